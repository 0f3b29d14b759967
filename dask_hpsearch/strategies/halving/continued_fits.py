"""Fits that go on with a model of a lower rung instead of training a new one.

**Runs in slots.** `ContinuedFit` stands in for scikit-learn's fit-and-score function.
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.pipeline import Pipeline
from sklearn.utils.multiclass import unique_labels

from dask_hpsearch import sklearn_adapter
from dask_hpsearch.slots.model_state import ModelState
from dask_hpsearch.strategies.halving.rungs import PARTIAL_FIT

if TYPE_CHECKING:
    from collections.abc import Callable

MODEL_STATE = "model_state"  # key of a result
_WARM_START = "warm_start"
# Parameters of which a warm-started fit makes so many further iterations …
_FURTHER = frozenset({"max_iter", "max_epochs"})
# … or goes on until there are so many in all.
_IN_ALL = frozenset({"n_estimators"})
# By name: to import scikit-learn's ensembles takes a slot a third of a second.
_COUNTS_IN_ALL = "BaseHistGradientBoosting"
_OF_OUTPUTS = "MultiOutputClassifier"


@dataclass(frozen=True, slots=True)
class Step:
    """What a fit starts from, and how far it goes.

    Attributes
    ----------
    resource : str
        A parameter's name, or ``"partial_fit"``.
    amount : int
        Of the resource, in all.
    done : int
        Part of it that the model has.
    state : ModelState or None
        The model of the rung below; None: train a new one.
    keep : bool
        Whether a higher rung may go on with the model.
    """

    resource: str
    amount: int
    done: int = 0
    state: ModelState | None = None
    keep: bool = True

    @property
    def is_trained(self) -> bool:
        """Whether the model has all of the resource: with a small factor, rungs are equal."""
        return self.state is not None and self.amount == self.done


class Continuation(dict[str, Any]):
    """A candidate's parameters, and the step that its fit makes.

    Parameters
    ----------
    parameters : dict
    step : Step
    """

    def __init__(self, parameters: dict[str, Any], step: Step) -> None:
        super().__init__(parameters)
        self.step = step

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self), self.step)


def may_continue(resource: str, *, warm_start: bool) -> bool:
    """Whether a search's resource is one with which models go on."""
    if resource == PARTIAL_FIT:
        return True
    return warm_start and resource.rpartition("__")[2] in _FURTHER | _IN_ALL


class ContinuedFit:
    """scikit-learn's fit-and-score function, for fits that have a `Step`.

    Parameters
    ----------
    function : callable
        scikit-learn's, with its configuration around it.
    """

    def __init__(self, function: Callable[..., dict[str, Any]]) -> None:
        self._function = function

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (sklearn_adapter.Portable(self._function),)

    def __call__(
        self, estimator: Any, X: Any, y: Any, *, parameters: Any, **keywords: Any
    ) -> dict[str, Any]:
        """Fit, score, and return the result with the state of the model.

        Parameters
        ----------
        estimator, X, y
            As scikit-learn's function takes them.
        parameters : Continuation
        **keywords
            The others; ``return_estimator`` is true.
        """
        step = parameters.step
        configured = clone(estimator).set_params(**clone(dict(parameters), safe=False))
        train: Callable[..., Any] | None = None
        if step.resource == PARTIAL_FIT:
            own: dict[str, Any] = {}
            keep = step.keep
            train = functools.partial(train_by_passes, classes=classes_of(estimator, y))
        else:
            own, keep = _warm_start(configured, step)
        if step.state is None:
            own = {**parameters, **own}
        else:
            estimator = step.state.load()
            if step.is_trained:
                train = _leave
        if train is not None:
            # scikit-learn calls the estimator's fit.
            estimator.fit = functools.partial(train, estimator, step.amount - step.done)
        try:
            result = self._function(estimator, X, y, parameters=own, **keywords)
        finally:
            if train is not None:
                del estimator.fit
        model = result.pop("estimator")
        if keep and result["fit_error"] is None:
            result[MODEL_STATE] = ModelState.of(model)
        return result


def train_by_passes(
    estimator: Any,
    n_passes: int,
    X: Any,
    y: Any = None,
    *,
    classes: Any = None,
    **fit_params: Any,
) -> Any:
    """Train an estimator by passes of ``partial_fit`` over all data.

    Parameters
    ----------
    estimator : estimator
    n_passes : int
    X, y : array-like
    classes : ndarray, optional
        All classes, of a classifier.
    **fit_params
        Further arguments of ``partial_fit``.
    """
    if classes is not None:
        fit_params["classes"] = classes
    for _ in range(n_passes):
        if y is None:
            estimator.partial_fit(X, **fit_params)
        else:
            estimator.partial_fit(X, y, **fit_params)
    return estimator


def _leave(estimator: Any, _n_passes: int, _X: Any, _y: Any = None, **_: Any) -> Any:
    """Leave an estimator as it is."""
    return estimator


def classes_of(estimator: Any, y: Any) -> Any:
    """Return the classes that ``partial_fit`` needs to know; None if it needs none.

    A `MultiOutputClassifier` needs those of each output.
    """
    takes_classes = "classes" in inspect.signature(estimator.partial_fit).parameters
    if not (is_classifier(estimator) and takes_classes):
        return None
    if any(base.__name__ == _OF_OUTPUTS for base in type(estimator).__mro__):
        return [np.unique(output) for output in np.asarray(y).T]
    return unique_labels(y)


def _warm_start(estimator: Any, step: Step) -> tuple[dict[str, Any], bool]:
    """Return the parameters of a warm-started fit, and whether its model can go on."""
    prefix, separator, name = step.resource.rpartition("__")
    part = _fitted_part(estimator, prefix)
    if part is None or _WARM_START not in part.get_params(deep=False):
        return {step.resource: step.amount}, False
    in_all = name in _IN_ALL or any(
        base.__name__ == _COUNTS_IN_ALL for base in type(part).__mro__
    )
    is_whole = in_all or step.state is None or step.is_trained
    amount = step.amount if is_whole else step.amount - step.done
    return {step.resource: amount, prefix + separator + _WARM_START: True}, step.keep


def _fitted_part(estimator: Any, prefix: str) -> Any:
    """Return the part of an estimator that has the resource, if its fit does not copy it.

    A pipeline fits its last step itself; other estimators fit copies of their parts, which
    start anew.
    """
    for name in prefix.split("__") if prefix else ():
        if not isinstance(estimator, Pipeline) or name != estimator.steps[-1][0]:
            return None
        estimator = estimator.steps[-1][1]
    return estimator if hasattr(estimator, "get_params") else None
