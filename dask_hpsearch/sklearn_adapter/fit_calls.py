"""Calls of scikit-learn's fit-and-score function: recognised, sent, and made in a slot.

Private parts of scikit-learn that are used:

* ``_fit_and_score`` and its keywords (stable since 1.4; 1.9 adds ``caller`` and
  ``callback_ctx``, which hold the tree of all tasks: see `callbacks`);
* ``_FuncWrapper`` and its attributes, by which it carries configuration and filters;
* ``format_exc``, by which ``_fit_and_score`` makes text of an error that does not end the search;
* the scorer classes of ``sklearn.metrics._scorer``, which pass X on as they get it.
"""

from __future__ import annotations

import contextlib
import copy
import sys
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.metrics._scorer import (
    _BaseScorer,
    _MultimetricScorer,
    _PassthroughScorer,
)
from sklearn.model_selection import _validation
from sklearn.model_selection._validation import _fit_and_score
from sklearn.utils.parallel import _FuncWrapper
from sklearn.utils.validation import _num_samples

from dask_hpsearch.sklearn_adapter import callbacks, warning_filters
from dask_hpsearch.sklearn_adapter.row_selection import selecting_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from dask_hpsearch.sklearn_adapter.row_selection import RowsOf


_NEVER_SENT_WHOLE = frozenset({"caller", "callback_ctx"})
_CARRIED = ("config", "warning_filters")
_OF_ONE_FIT = frozenset(
    {"train", "test", "parameters", "split_progress", "candidate_progress"}
)


def _reduce_wrapper(wrapper: _FuncWrapper) -> tuple[Any, ...]:
    """Pickle scikit-learn's wrapper so that any process can load its warning filters."""
    carried = {name: vars(wrapper)[name] for name in _CARRIED if name in vars(wrapper)}
    filters = carried.pop("warning_filters", None)
    encoded = None if filters is None else warning_filters.encode(filters)
    return wrap, (wrapper.function, carried, encoded)


def wrap(function: Any, carried: dict[str, Any], filters: bytes | None) -> Any:
    """Wrap a function again, with the filters that can be loaded in this process."""
    wrapper = _FuncWrapper(function)
    vars(wrapper).update(carried)
    if filters is not None:
        wrapper.warning_filters = warning_filters.decode(filters)
    return wrapper


# Reducers of scikit-learn's own parts of a task, for a pickler's dispatch table.
REDUCERS: dict[type, Any] = {_FuncWrapper: _reduce_wrapper}


class Portable:
    """Pickles a function of scikit-learn by `REDUCERS`, with any pickler.

    Parameters
    ----------
    function : callable
        The object that is loaded instead.
    """

    def __init__(self, function: Any) -> None:
        self._function = function

    def __reduce__(self) -> tuple[Any, ...]:
        reduce = REDUCERS.get(type(self._function))
        if reduce is None:
            return _itself, (self._function,)
        reduced: tuple[Any, ...] = reduce(self._function)
        return reduced


def _itself(value: Any) -> Any:
    return value


@dataclass(slots=True, eq=False)
class FitCall:
    """The arguments of one call of scikit-learn's fit-and-score function.

    Attributes
    ----------
    function : callable
        The function with scikit-learn's configuration around it.
    estimator, X, y, train, test, parameters : object
        As scikit-learn passes them.
    split, n_splits, candidate, n_candidates : int or None
        Ordinals and totals; None where the caller gives none (`cross_validate`).
    shared : dict
        The keywords that all fits of a search's call share.
    of_call : int or None
        Ordinal of the ``evaluate_candidates`` call that it belongs to; None: the last one.
    """

    function: Any
    estimator: Any
    X: Any
    y: Any
    train: Any
    test: Any
    parameters: Any
    split: int | None
    n_splits: int | None
    candidate: int | None
    n_candidates: int | None
    shared: dict[str, Any]
    of_call: int | None = None

    @property
    def of_search(self) -> bool:
        """Whether a search made the call; its estimators are then clones of one."""
        return self.candidate is not None

    def let_go(self, first: FitCall) -> None:
        """Refer to the equal clone and settings of another fit instead of its own.

        A call is kept until its fit has ended; thousands of clones would be kept too.
        """
        self.estimator, self.shared = first.estimator, first.shared


def fit_call_of(item: tuple[Any, tuple[Any, ...], dict[str, Any]]) -> FitCall | None:
    """Recognise a joblib task that is a fit; None for any other."""
    function, args, kwargs = item
    if getattr(function, "function", function) is not _fit_and_score:
        return None
    if len(args) != 3:  # noqa: PLR2004 (estimator, X, y)
        return None
    if not {"train", "test", "parameters"} <= kwargs.keys():
        return None
    candidate, n_candidates = kwargs.get("candidate_progress") or (None, None)
    split, n_splits = kwargs.get("split_progress") or (None, None)
    for_hooks = callbacks.keywords_for_hooks(
        kwargs.get("callback_ctx"), kwargs.get("caller"), args[0], kwargs["parameters"]
    )
    if for_hooks and (
        candidate is None or split is None
    ):  # no place of its own: sent as any call
        return None
    apart = _NEVER_SENT_WHOLE | _OF_ONE_FIT
    return FitCall(
        function=function,
        estimator=args[0],
        X=args[1],
        y=args[2],
        train=kwargs["train"],
        test=kwargs["test"],
        parameters=kwargs["parameters"],
        split=split,
        n_splits=n_splits,
        candidate=candidate,
        n_candidates=n_candidates,
        shared={key: value for key, value in kwargs.items() if key not in apart}
        | for_hooks,
    )


def same_settings(one: FitCall, other: FitCall) -> bool:
    """Whether two fits differ only in candidate, split and clone of the estimator."""
    return (
        one.X is other.X
        and one.y is other.y
        and one.shared.keys() == other.shared.keys()
        and all(value is other.shared[key] for key, value in one.shared.items())
        and _settings(one.function) == _settings(other.function)
    )


def _settings(function: Any) -> tuple[int, int]:
    config = getattr(function, "config", None)
    return id(config), id(getattr(function, "warning_filters", None))


def distinct_functions(items: list[Any]) -> tuple[list[Any], list[int]]:
    """Return the distinct functions of joblib's calls.

    scikit-learn wraps its function again for every call, with the same settings.

    Returns
    -------
    list of callable
        One of each.
    list of int
        The index of each call's function.
    """
    distinct: dict[Any, tuple[int, Any]] = {}
    of_call = []
    for function, *_ in items:
        key: Any = id(function)
        if type(function) is _FuncWrapper:
            key = id(function.function), _settings(function)
        of_call.append(distinct.setdefault(key, (len(distinct), function))[0])
    return [function for _, function in distinct.values()], of_call


def run_fit(  # noqa: PLR0917 (called once, in order)
    spec_function: Any,
    estimator: Any,
    data: tuple[Any, Any],
    indices: tuple[Any, Any],
    parameters: Any,
    progress: tuple[tuple[int, int] | None, tuple[int, int] | None],
    shared: Mapping[str, Any],
    rows: RowsOf | None = None,
) -> dict[str, Any]:
    """Call scikit-learn's fit-and-score function as the search itself would.

    Parameters
    ----------
    rows : callable, optional
        As `row_selection.selecting_rows` takes it.
    """
    split_progress, candidate_progress = progress
    if callbacks.CONTEXT in shared and split_progress and candidate_progress:
        number = candidate_progress[0] * split_progress[1] + split_progress[0]
        shared = callbacks.for_one_fit(shared, number)
    with (
        contextlib.nullcontext()
        if rows is None
        else selecting_rows(data, indices, rows)
    ):
        result: dict[str, Any] = spec_function(
            estimator,
            *data,
            train=indices[0],
            test=indices[1],
            parameters=parameters,
            split_progress=split_progress,
            candidate_progress=candidate_progress,
            **shared,
        )
    return result


@contextlib.contextmanager
def before_errors_are_text(
    look: Callable[[BaseException], None], *, without: str
) -> Iterator[None]:
    """Call a function with each error of a fit or a score that scikit-learn makes text of.

    This is for a process that runs nothing but fits.

    Parameters
    ----------
    look : callable
        It may add a note to the error, which is then part of the text.
    without : str
        A folder of code that runs between scikit-learn's and the user's. The text leaves it
        out: scikit-learn counts fits with equal texts, and not each fit takes the same way.
    """

    def format_exc(limit: int | None = None, chain: bool = True) -> str:  # noqa: FBT001, FBT002 (as traceback's)
        error = sys.exception()
        if error is None:
            return traceback.format_exc(limit, chain)
        look(error)
        summary = traceback.TracebackException.from_exception(error, limit=limit)
        _leave_out(summary, without)
        return "".join(summary.format(chain=chain))

    own = getattr(_validation, "format_exc", None)
    _validation.format_exc = format_exc
    try:
        yield
    finally:
        _validation.format_exc = own


def _leave_out(summary: traceback.TracebackException, folder: str) -> None:
    """Remove a folder's frames from a traceback, and from those of its causes."""
    summary.stack[:] = [
        one for one in summary.stack if not one.filename.startswith(folder)
    ]
    inner = (
        summary.__cause__,
        summary.__context__,
        *(getattr(summary, "exceptions", None) or ()),
    )
    for one in inner:
        if one is not None:
            _leave_out(one, folder)


def failed_result(call: FitCall, *, cause: str, seconds: float) -> dict[str, Any]:
    """Build the result of a fit that was ended, as ``_fit_and_score`` does for failures."""
    error_score = call.shared.get("error_score", np.nan)
    scorers = getattr(call.shared.get("scorer"), "_scorers", None)
    scores: Any = error_score
    if isinstance(scorers, dict):
        scores = dict.fromkeys(scorers, error_score)
    result: dict[str, Any] = {"fit_error": cause, "test_scores": scores}
    if call.shared.get("return_train_score"):
        result["train_scores"] = copy.copy(scores)
    if call.shared.get("return_n_test_samples"):
        result["n_test_samples"] = _length(call.test)
    if call.shared.get("return_times"):
        result |= {"fit_time": seconds, "score_time": 0.0}
    if call.shared.get("return_parameters"):
        result["parameters"] = call.parameters
    if call.shared.get("return_estimator"):
        result["estimator"] = call.estimator
    return result


def _length(indices: Any) -> int:
    selected = np.asarray(indices)
    if selected.dtype == bool:
        return int(selected.sum())
    return int(_num_samples(selected))


def scores_predictions_only(scorer: Any) -> bool:
    """Whether X reaches the estimator as it is: no code of a user scores with it.

    Parameters
    ----------
    scorer : callable
        As ``_fit_and_score`` gets it.
    """
    several = getattr(scorer, "_scorers", None)
    if type(scorer) is _MultimetricScorer and isinstance(several, dict):
        return all(scores_predictions_only(one) for one in several.values())
    own_class = type(scorer).__module__ == _MultimetricScorer.__module__
    return own_class and isinstance(scorer, _BaseScorer | _PassthroughScorer)


def raises_errors(call: FitCall) -> bool:
    """Whether a failed fit ends the search (``error_score="raise"``)."""
    return isinstance(call.shared.get("error_score"), str)
