"""Replaces the steps "passthrough" and "drop", which dask-ml takes for estimators.

dask-ml's graph accepts only None as a step that does nothing, and fits any other step
(AttributeError: 'str' object has no attribute 'fit').
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_MARK = {"stands for": "passthrough"}


def written_out(estimator: Any) -> Any:
    """Return an estimator whose steps are estimators, at any depth of pipelines.

    The last step of the outermost pipeline scores, so it is not replaced: with
    "passthrough" there, the candidate fails in dask-ml as in scikit-learn.
    """
    last = _last_step(estimator)
    return _with_steps(
        estimator, lambda name, step: step if name == last else _identity_for(step)
    )


def _identity_for(step: Any) -> Any:
    if _is_word(step, "passthrough"):
        # Only its inverse would use these arguments.
        return FunctionTransformer(inv_kw_args=_MARK)
    return _with_steps(step, lambda _, inner: _identity_for(inner))


def _last_step(estimator: Any) -> str | None:
    return estimator.steps[-1][0] if isinstance(estimator, Pipeline) else None


def in_words(estimator: Any) -> Any:
    """Undo `written_out`."""
    if isinstance(estimator, FunctionTransformer) and estimator.inv_kw_args == _MARK:
        return "passthrough"
    return _with_steps(estimator, lambda _, step: in_words(step))


def values_written_out(
    parameters: Mapping[str, Any], estimator: Any, *, refits: bool
) -> dict[str, Any]:
    """Return lists of parameter values whose steps are estimators.

    Parameters
    ----------
    parameters : mapping of str to list or distribution
    estimator : object
        The estimator of the parameters.
    refits : bool
        Whether the best one is refitted with these values: then "drop", for which
        dask-ml's graph has None, is not replaced.
    """
    kinds = dict(_steps(estimator))
    kinds.pop(_last_step(estimator) or "", None)
    return {
        name: [_step(one, kinds[name], refits=refits) for one in values]
        if name in kinds and not hasattr(values, "rvs")
        else values
        for name, values in parameters.items()
    }


def results_in_words(search: Any) -> None:
    """Undo `written_out` in the attributes of a fitted search."""
    table = search.cv_results_
    for name, column in table.items():
        if name == "params":
            table[name] = [_values_in_words(one) for one in column]
        elif name.startswith("param_") and column.dtype.hasobject:
            for place in np.flatnonzero(~np.ma.getmaskarray(column)):
                column[place] = in_words(column[place])
    if "best_params_" in vars(search):
        search.best_params_ = _values_in_words(search.best_params_)
    if "best_estimator_" in vars(search):
        search.best_estimator_ = _fitted_in_words(search.best_estimator_)


def _fitted_in_words(estimator: Any) -> Any:
    """Undo `written_out` in a fitted estimator.

    A fitted union has an estimator instead of the word, as in scikit-learn.
    """
    in_union = isinstance(estimator, FeatureUnion)
    if in_words(estimator) == "passthrough":
        return "passthrough"

    def undo(_: str, step: Any) -> Any:
        if in_union and in_words(step) == "passthrough":
            step = copy.copy(step)
            step.inv_kw_args, step.feature_names_out = None, "one-to-one"
            return step
        return _fitted_in_words(step)

    return _with_steps(estimator, undo)


def _values_in_words(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: in_words(value) for name, value in parameters.items()}


def _step(value: Any, kind: type, *, refits: bool) -> Any:
    if kind is FeatureUnion and not refits and _is_word(value, "drop"):
        return None
    return _identity_for(value)


def _steps(estimator: Any, prefix: str = "") -> Iterator[tuple[str, type]]:
    """Yield the names of parameters that are steps, and the class that has the step."""
    for kind, attribute in ((Pipeline, "steps"), (FeatureUnion, "transformer_list")):
        if isinstance(estimator, kind):
            for name, step in getattr(estimator, attribute):
                yield f"{prefix}{name}", kind
                yield from _steps(step, f"{prefix}{name}__")


def _with_steps(estimator: Any, change: Any) -> Any:
    for kind, attribute in ((Pipeline, "steps"), (FeatureUnion, "transformer_list")):
        if isinstance(estimator, kind):
            steps = getattr(estimator, attribute)
            changed = [(name, change(name, step)) for name, step in steps]
            pairs = zip(steps, changed, strict=True)
            if any(old[1] is not new[1] for old, new in pairs):
                estimator = copy.copy(estimator)
                setattr(estimator, attribute, changed)
    return estimator


def _is_word(value: Any, word: str) -> bool:
    return isinstance(value, str) and value == word
