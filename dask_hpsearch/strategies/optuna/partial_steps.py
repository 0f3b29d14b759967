"""**Runs in slots**: some steps of ``partial_fit`` of one model on one split."""

from __future__ import annotations

import time
from dataclasses import dataclass
from numbers import Number
from typing import TYPE_CHECKING, Any

import cloudpickle
from sklearn.model_selection import _validation

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Training:
    """How the models of a search are trained and scored.

    Attributes
    ----------
    scorer : callable
    partial_fit_params : mapping
    error_score : object
        As for OptunaSearchCV: "raise", or the score of a step that fails.
    return_train_score : bool
    """

    scorer: Any
    partial_fit_params: Mapping[str, Any]
    error_score: Any
    return_train_score: bool


def train_steps(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    train: Any,
    test: Any,
    parameters: Mapping[str, Any],
    training: Training,
    **settings: Any,
) -> dict[str, Any]:
    """Call ``partial_fit`` some times, and score after each call.

    It is called as scikit-learn's own fit-and-score function. Each step is that of
    ``_Objective._partial_fit_and_score`` of optuna_integration: a model whose step fails
    goes on with the next one.

    Parameters
    ----------
    estimator : object
        Not used: the model is among the parameters.
    X, y : array-like
    train, test : array-like of int
    parameters : mapping
        ``model``, a pickled estimator, and ``n_steps``.
    training : Training
    **settings
        Not used.

    Returns
    -------
    dict
        ``model``, pickled, and for each step ``test_scores``, ``train_scores``,
        ``fit_times`` and ``score_times``; ``fit_time`` and ``score_time`` are the sums.
    """
    del estimator, settings
    model = cloudpickle.loads(parameters["model"])
    # That of this module may be given rows that were selected before.
    select = _validation._safe_split  # noqa: SLF001 (as sklearn_adapter.row_selection)
    data = select(model, X, y, train), select(model, X, y, test, train)
    names = "test_scores", "train_scores", "fit_times", "score_times"
    found: dict[str, Any] = {name: [] for name in names}
    for _ in range(parameters["n_steps"]):
        step = _step(model, training, *data)
        for name, value in zip(names, step, strict=True):
            found[name].append(value)
    found["model"] = cloudpickle.dumps(model, protocol=5)
    found["fit_time"] = sum(found["fit_times"])
    found["score_time"] = sum(found["score_times"])
    return found


def _step(
    model: Any, training: Training, train: tuple[Any, Any], test: tuple[Any, Any]
) -> tuple[float, float, float, float]:
    """Train once; return test score, train score (or NaN), fit time and score time."""
    began = time.time()
    try:
        model.partial_fit(*train, **training.partial_fit_params)
    except Exception as error:
        score = training.error_score
        if score == "raise":
            raise
        if not isinstance(score, Number):
            msg = f"error_score must be 'raise' or a number, got {score!r}"
            raise ValueError(msg) from error  # noqa: TRY004 (as OptunaSearchCV)
        return score, score, time.time() - began, 0.0  # type: ignore[return-value]
    fitted = time.time()
    test_score = float(training.scorer(model, *test))
    scored = time.time()
    train_score = float("nan")
    if training.return_train_score:
        train_score = float(training.scorer(model, *train))
    return test_score, train_score, fitted - began, scored - fitted
