"""Cases of xgboost, lightgbm and catboost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import lightgbm
import numpy as np
import xgboost
from catboost import CatBoostClassifier, CatBoostRegressor
from sklearn.base import BaseEstimator, ClassifierMixin

from tests.libraries.case import (
    EVERY_KIND,
    Case,
    flowers,
    petals,
    shop,
    tumours,
    weights,
)

if TYPE_CHECKING:
    import pandas as pd

DEPTHS = {"max_depth": [1, 2, 3]}
LEAVES = {"num_leaves": [3, 7, 15]}


class BoosterClassifier(ClassifierMixin, BaseEstimator):
    """Uses xgboost's own interface, whose matrices and boosters have threads."""

    def __init__(self, max_depth: int = 2, threads: int = 2) -> None:
        self.max_depth = max_depth
        self.threads = threads

    def fit(self, X: Any, y: Any) -> Self:
        self.classes_ = np.unique(y)
        table = xgboost.DMatrix(X, y, nthread=self.threads)
        options = {
            "max_depth": self.max_depth,
            "nthread": self.threads,
            "objective": "binary:logistic",
        }
        self.booster_ = xgboost.train(options, table, num_boost_round=8)
        return self

    def predict(self, X: Any) -> Any:
        table = xgboost.DMatrix(X, nthread=self.threads)
        return (self.booster_.predict(table) > 0.5).astype(int)


class Slower(xgboost.callback.TrainingCallback):
    """Halves the learning rate after each round, and counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.rounds = 0

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        self.rounds += 1
        model.set_param("learning_rate", 0.5 ** (epoch + 1))
        return False


def slower(epoch: int) -> float:
    """Halve the learning rate in each round."""
    return float(0.5 ** (epoch + 1))


def squared_error(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    """Be an objective in Python: gradient and hessian."""
    return y_pred - y_true, np.ones_like(y_true)


def largest_error(y_true: Any, y_pred: Any) -> tuple[str, float, bool]:
    """Be a metric in Python."""
    return "largest", float(np.abs(y_true - y_pred).max()), False


def held_out() -> list[tuple[Any, Any]]:
    """Hold samples out, by which a fit stops early."""
    X, y = flowers()
    return [(X[::3] + 0.3, y[::3])]


def _xgb(**options: Any) -> xgboost.XGBClassifier:
    defaults = {"n_estimators": 8, "n_jobs": 1, "random_state": 0}
    return xgboost.XGBClassifier(**(defaults | options))


def _lgbm(**options: Any) -> lightgbm.LGBMClassifier:
    defaults = {"n_estimators": 8, "n_jobs": 1, "random_state": 0, "verbose": -1}
    return lightgbm.LGBMClassifier(**(defaults | options))


def _cat(**options: Any) -> CatBoostClassifier:
    defaults = {
        "iterations": 8,
        "thread_count": 1,
        "random_seed": 0,
        "verbose": False,
        "allow_writing_files": False,
    }
    return CatBoostClassifier(**(defaults | options))


def _shop_strings() -> tuple[pd.DataFrame, Any]:
    X, y = shop()
    return X.astype({"city": str, "plan": str}), y


XGBOOST = (
    Case(name="xgboost", estimator=_xgb, space=DEPTHS, data=flowers, kinds=EVERY_KIND),
    Case(
        name="xgboost-random-subsamples",
        estimator=lambda: _xgb(subsample=0.6, colsample_bytree=0.6),
        space=DEPTHS,
        data=flowers,
        kinds=("grid", "bayes"),
    ),
    Case(
        name="xgboost-early-stopping",
        estimator=lambda: _xgb(n_estimators=60, early_stopping_rounds=2),
        space=DEPTHS,
        data=flowers,
        fit_params=lambda: {"eval_set": held_out(), "verbose": False},
        fitted_name="best_iteration",
        kinds=("grid", "halving-random"),
    ),
    Case(
        name="xgboost-callbacks",
        estimator=lambda: _xgb(
            callbacks=[Slower(), xgboost.callback.LearningRateScheduler(slower)]
        ),
        space=DEPTHS,
        data=flowers,
    ),
    Case(
        name="xgboost-sample-weight",
        estimator=lambda: xgboost.XGBRegressor(n_estimators=8, n_jobs=1),
        space=DEPTHS,
        data=petals,
        fit_params=lambda: {"sample_weight": weights(120)},
        kinds=("grid", "bayes"),
    ),
    Case(
        name="xgboost-objective-in-python",
        estimator=lambda: xgboost.XGBRegressor(
            n_estimators=8, n_jobs=1, objective=squared_error
        ),
        space=DEPTHS,
        data=petals,
    ),
    Case(
        name="xgboost-categories",
        estimator=lambda: _xgb(enable_categorical=True, tree_method="hist"),
        space=DEPTHS,
        data=shop,
    ),
    Case(
        name="xgboost-two-threads",
        estimator=lambda: _xgb(n_jobs=2),
        space=DEPTHS,
        data=flowers,
        kinds=("grid", "random"),
    ),
    Case(
        name="xgboost-matrices",
        estimator=BoosterClassifier,
        space=DEPTHS,
        data=tumours,
    ),
)
LIGHTGBM = (
    Case(
        name="lightgbm", estimator=_lgbm, space=LEAVES, data=flowers, kinds=EVERY_KIND
    ),
    Case(
        name="lightgbm-random-subsamples",
        estimator=lambda: _lgbm(
            subsample=0.6, subsample_freq=1, colsample_bytree=0.6, extra_trees=True
        ),
        space=LEAVES,
        data=flowers,
        kinds=("grid", "bayes"),
    ),
    Case(
        name="lightgbm-early-stopping",
        estimator=lambda: _lgbm(n_estimators=60),
        space=LEAVES,
        data=flowers,
        fit_params=lambda: {
            "eval_X": held_out()[0][0],
            "eval_y": held_out()[0][1],
            "callbacks": [
                lightgbm.early_stopping(2, verbose=False),
                lightgbm.reset_parameter(learning_rate=slower),
            ],
        },
        fitted_name="best_iteration_",
        kinds=("grid", "random"),
    ),
    Case(
        name="lightgbm-objective-and-metric-in-python",
        estimator=lambda: lightgbm.LGBMRegressor(
            n_estimators=8, n_jobs=1, verbose=-1, objective=squared_error
        ),
        space=LEAVES,
        data=petals,
        fit_params=lambda: {
            "eval_X": petals()[0],
            "eval_y": petals()[1],
            "eval_metric": largest_error,
            "sample_weight": weights(120),
        },
    ),
    Case(
        name="lightgbm-categories",
        estimator=lambda: _lgbm(min_child_samples=5),
        space=LEAVES,
        data=shop,
    ),
    Case(
        name="lightgbm-two-threads",
        estimator=lambda: _lgbm(n_jobs=2, deterministic=True, force_row_wise=True),
        space=LEAVES,
        data=flowers,
        kinds=("grid", "random"),
    ),
)
CATBOOST = (
    Case(
        name="catboost",
        estimator=_cat,
        space={"depth": [1, 2, 3]},
        data=flowers,
        kinds=EVERY_KIND,
    ),
    Case(
        name="catboost-early-stopping",
        estimator=lambda: _cat(iterations=60),
        space={"depth": [1, 2, 3]},
        data=flowers,
        fit_params=lambda: {"eval_set": held_out(), "early_stopping_rounds": 2},
        fitted_name="best_iteration_",
        kinds=("grid", "halving-random"),
    ),
    Case(
        name="catboost-strings",
        estimator=_cat,
        space={"depth": [1, 2, 3]},
        data=_shop_strings,
        fit_params=lambda: {"cat_features": ["city", "plan"]},
        kinds=("grid", "bayes"),
    ),
    Case(
        name="catboost-sample-weight",
        estimator=lambda: CatBoostRegressor(
            iterations=8, thread_count=2, random_seed=0, silent=True
        ),  # writes files, in the folder where it is fitted
        space={"depth": [1, 2, 3]},
        data=petals,
        fit_params=lambda: {"sample_weight": weights(120)},
        options={"scoring": "r2"},  # its own score takes no weights
    ),
)
CASES = XGBOOST + LIGHTGBM + CATBOOST
