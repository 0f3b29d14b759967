"""Objective, metric and callbacks of xgboost that are the script's."""

from __future__ import annotations

from typing import Any

import numpy as np
import xgboost

from tests.libraries.case import Case, petals
from tests.libraries.scripts.every_way import check


def squared_error(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    """Be an objective: gradient and hessian."""
    return y_pred - y_true, np.ones_like(y_true)


def largest_error(y_true: Any, y_pred: Any) -> float:
    """Be a metric."""
    return float(np.abs(y_true - y_pred).max())


class Enough(xgboost.callback.TrainingCallback):
    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        return epoch == 4


if __name__ == "__main__":
    check(
        Case(
            name="xgboost",
            estimator=lambda: xgboost.XGBRegressor(
                n_estimators=40,
                n_jobs=1,
                objective=squared_error,
                eval_metric=largest_error,
                callbacks=[Enough()],
            ),
            space={"max_depth": [1, 3]},
            data=petals,
            fit_params=lambda: {"eval_set": [petals()], "verbose": False},
        )
    )
