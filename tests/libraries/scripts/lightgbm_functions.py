"""Objective, metric and callbacks of lightgbm that are the script's."""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np

from tests.libraries.case import Case, petals
from tests.libraries.scripts.every_way import check


def squared_error(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    """Be an objective: gradient and hessian."""
    return y_pred - y_true, np.ones_like(y_true)


def largest_error(y_true: Any, y_pred: Any) -> tuple[str, float, bool]:
    """Be a metric."""
    return "largest", float(np.abs(y_true - y_pred).max()), False


class Rounds:
    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, env: Any) -> None:
        self.seen += 1


if __name__ == "__main__":
    check(
        Case(
            name="lightgbm",
            estimator=lambda: lightgbm.LGBMRegressor(
                n_estimators=40, n_jobs=1, verbose=-1, objective=squared_error
            ),
            space={"num_leaves": [3, 15]},
            data=petals,
            fit_params=lambda: {
                "eval_set": [petals()],
                "eval_metric": largest_error,
                "callbacks": [lightgbm.early_stopping(2, verbose=False), Rounds()],
            },
            fitted_name="best_iteration_",
        )
    )
