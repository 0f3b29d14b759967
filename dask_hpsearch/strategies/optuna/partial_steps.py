"""**Runs in slots**: some steps of ``partial_fit`` of one model on one split."""

from __future__ import annotations

import time
from dataclasses import dataclass
from numbers import Number
from typing import TYPE_CHECKING, Any

import cloudpickle
from sklearn.utils.metaestimators import _safe_split

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Training:
    """How the models of a search are trained and scored.

    Attributes
    ----------
    X, y : array-like
    scorer : callable
    partial_fit_params : mapping
    error_score : object
        As for OptunaSearchCV: "raise", or the score of a step that fails.
    return_train_score : bool
    """

    X: Any
    y: Any
    scorer: Any
    partial_fit_params: Mapping[str, Any]
    error_score: Any
    return_train_score: bool


def train_steps(
    model: bytes, training: Training, split: tuple[Any, Any], n_steps: int
) -> dict[str, Any]:
    """Call ``partial_fit`` some times, and score after each call.

    Each step is that of ``_Objective._partial_fit_and_score`` of optuna_integration: a model
    whose step fails goes on with the next one.

    Parameters
    ----------
    model : bytes
        The pickled estimator.
    training : Training
    split : (train, test)
    n_steps : int

    Returns
    -------
    dict
        ``model``, pickled, and for each step ``test_scores``, ``train_scores``,
        ``fit_times`` and ``score_times``; ``fit_time`` and ``score_time`` are the sums.
    """
    estimator = cloudpickle.loads(model)
    train, test = split
    X_train, y_train = _safe_split(estimator, training.X, training.y, train)
    X_test, y_test = _safe_split(
        estimator, training.X, training.y, test, train_indices=train
    )
    names = "test_scores", "train_scores", "fit_times", "score_times"
    found: dict[str, Any] = {name: [] for name in names}
    for _ in range(n_steps):
        step = _step(estimator, training, (X_train, y_train), (X_test, y_test))
        for name, value in zip(names, step, strict=True):
            found[name].append(value)
    found["model"] = cloudpickle.dumps(estimator, protocol=5)
    found["fit_time"] = sum(found["fit_times"])
    found["score_time"] = sum(found["score_times"])
    return found


def _step(
    estimator: Any, training: Training, train: tuple[Any, Any], test: tuple[Any, Any]
) -> tuple[float, float, float, float]:
    """Train once; return test score, train score (or NaN), fit time and score time."""
    began = time.time()
    try:
        estimator.partial_fit(*train, **training.partial_fit_params)
    except Exception as error:
        score = training.error_score
        if score == "raise":
            raise
        if not isinstance(score, Number):
            msg = f"error_score must be 'raise' or a number, got {score!r}"
            raise ValueError(msg) from error  # noqa: TRY004 (as OptunaSearchCV)
        return score, score, time.time() - began, 0.0  # type: ignore[return-value]
    fitted = time.time()
    test_score = float(training.scorer(estimator, *test))
    scored = time.time()
    train_score = float("nan")
    if training.return_train_score:
        train_score = float(training.scorer(estimator, *train))
    return test_score, train_score, fitted - began, scored - fitted
