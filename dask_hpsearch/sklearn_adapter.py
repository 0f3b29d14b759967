"""The only place that knows scikit-learn's private fit call and its search classes.

Supported: scikit-learn 1.6 to 1.9. What is used of it beyond its public API:

* ``_fit_and_score`` and its keywords (stable since 1.4; 1.9 adds ``caller`` and
  ``callback_ctx``, which hold the tree of all tasks: see `fit_callbacks`);
* ``_FuncWrapper`` and its attributes, by which it carries configuration and filters;
* ``evaluate_candidates`` as handed to ``_run_search`` (the documented way to write a
  search class of one's own);
* the fitted attributes of halving searches.
"""

from __future__ import annotations

import copy
import inspect
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import sklearn
from sklearn.model_selection._search import BaseSearchCV
from sklearn.model_selection._search_successive_halving import BaseSuccessiveHalving
from sklearn.model_selection._validation import (
    _fit_and_score,
    _warn_or_raise_about_fit_failures,
)
from sklearn.utils.parallel import _FuncWrapper
from sklearn.utils.validation import _num_samples

from dask_hpsearch import sklearn_callbacks, warning_filters
from dask_hpsearch.exceptions import UnsupportedVersionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


OLDEST, BEYOND = (1, 6), (1, 10)
_NEVER_SENT_WHOLE = frozenset({"caller", "callback_ctx"})
_CARRIED = ("config", "warning_filters")
_OF_ONE_FIT = frozenset(
    {"train", "test", "parameters", "split_progress", "candidate_progress"}
)


def check_version() -> None:
    """Refuse a scikit-learn outside the supported range.

    Raises
    ------
    UnsupportedVersionError
        Names the installed version and the range.
    """
    installed = tuple(int(part) for part in sklearn.__version__.split(".")[:2])
    if not OLDEST <= installed < BEYOND:
        msg = (
            f"scikit-learn {sklearn.__version__} is installed, dask_hpsearch supports "
            f">={OLDEST[0]}.{OLDEST[1]},<{BEYOND[0]}.{BEYOND[1]}: install one of these"
        )
        raise UnsupportedVersionError(msg)


def _reduce_wrapper(wrapper: _FuncWrapper) -> tuple[Any, ...]:
    """Pickle scikit-learn's wrapper so that any process can load its warning filters."""
    carried = {name: vars(wrapper)[name] for name in _CARRIED if name in vars(wrapper)}
    filters = carried.pop("warning_filters", None)
    encoded = None if filters is None else warning_filters.encode(filters)
    return wrap, (wrapper.function, carried, encoded)


def wrap(function: Any, carried: dict[str, Any], filters: bytes | None) -> Any:
    """Wrap a function again, with the filters that can be had in this process."""
    wrapper = _FuncWrapper(function)
    vars(wrapper).update(carried)
    if filters is not None:
        wrapper.warning_filters = warning_filters.decode(filters)
    return wrapper


# How to pickle what travels beside the user's own parts; for a pickler's dispatch table.
REDUCERS: dict[type, Any] = {_FuncWrapper: _reduce_wrapper}


class Portable:
    """Pickles a function of scikit-learn's by `REDUCERS`, whatever the pickler.

    Parameters
    ----------
    function : callable
        What is loaded in its place.
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
    """One call of scikit-learn's fit-and-score function, taken apart.

    Attributes
    ----------
    function : callable
        The function with scikit-learn's configuration around it.
    estimator, X, y, train, test, parameters : object
        As scikit-learn passes them.
    split, n_splits, candidate, n_candidates : int or None
        Ordinals and totals; None where the caller gives none (`cross_validate`).
    shared : dict
        The keywords that are the same for all fits of the call.
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

    @property
    def of_search(self) -> bool:
        """Whether a search made it: then all estimators are clones of one."""
        return self.candidate is not None

    def let_go(self, first: FitCall) -> None:
        """Keep another fit's clone and settings, which are equal, instead of its own.

        A call waits until its fit has ended: thousands of clones would wait with it.
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
    told = sklearn_callbacks.what_hooks_need(
        kwargs.get("callback_ctx"), kwargs.get("caller"), args[0], kwargs["parameters"]
    )
    if told and (candidate is None or split is None):  # none of its own: sent whole
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
        shared={key: value for key, value in kwargs.items() if key not in apart} | told,
    )


def same_settings(one: FitCall, other: FitCall) -> bool:
    """Whether two fits differ only in candidate and split (and estimator's clone)."""
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
    """Find the functions that joblib's calls have in common.

    scikit-learn wraps its function for every call anew, with the same settings.

    Returns
    -------
    list of callable
        One of each.
    list of int
        Which of them each call calls.
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
) -> dict[str, Any]:
    """Call scikit-learn's fit-and-score function as the search itself would."""
    split_progress, candidate_progress = progress
    if sklearn_callbacks.CONTEXT in shared and split_progress and candidate_progress:
        number = candidate_progress[0] * split_progress[1] + split_progress[0]
        shared = sklearn_callbacks.for_one_fit(shared, number)
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


def failed_result(call: FitCall, *, cause: str, seconds: float) -> dict[str, Any]:
    """Build the result of a fit that was ended, as ``_fit_and_score`` does on failure."""
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


def raises_errors(call: FitCall) -> bool:
    """Whether a failing fit is to end the search (``error_score="raise"``)."""
    return isinstance(call.shared.get("error_score"), str)


def score_of(result: Mapping[str, Any], refit: Any) -> float | None:
    """Return the score that a search ranks by, if the fit has one."""
    scores = result.get("test_scores")
    if isinstance(scores, dict):
        scores = scores.get(refit) if isinstance(refit, str) else None
    return float(scores) if isinstance(scores, (int, float, np.number)) else None


def best_of(search: Any) -> tuple[float | None, Mapping[str, Any] | None]:
    """Return the mean score and the parameters of a fitted search's best candidate.

    Without a score where several count, without either where the search ranks none.
    """
    params = getattr(search, "best_params_", None)
    if params is None:
        return None, None
    score = getattr(search, "best_score_", None)
    if score is None:  # a callable refit leaves none
        means = search.cv_results_.get("mean_test_score")
        score = None if means is None else means[search.best_index_]
    if score is None:
        return None, params
    return (None, None) if np.isnan(score) else (float(score), params)


def is_search(search: Any) -> bool:
    """Whether scikit-learn's own ``fit`` code drives the object."""
    return isinstance(search, BaseSearchCV)


def without_fitted_state(search: Any) -> Any:
    """Copy a search: same parameter objects, same requests, nothing fitted.

    `sklearn.base.clone` would copy ``cv`` and ``random_state`` too, fails on generators,
    and would not advance the caller's ``RandomState`` as a plain fit does. A constructor
    may set attributes that are named as fitted ones: these are as it sets them.
    """
    fresh = _copied(search)
    fitted = [name for name in vars(fresh) if _is_fitted_name(name)]
    if not fitted:
        return fresh
    constructed = _constructed(search)
    if constructed is None:
        if not is_search(search):
            return fresh  # a plain fit would not remove them either
        constructed = {}
    for name in fitted:
        if name in constructed:
            vars(fresh)[name] = constructed[name]
        else:
            delattr(fresh, name)
    return fresh


def _copied(search: Any) -> Any:
    """Copy an object attribute by attribute, not by what its pickle would hold.

    A pickle may lack what a fit in this process needs, and scikit-learn refuses that of an
    estimator with ``__slots__``.
    """
    if hasattr(search, "__copy__") or not hasattr(search, "__dict__"):
        return copy.copy(search)
    try:
        fresh = object.__new__(type(search))
    except TypeError:  # part of it is not Python's
        return copy.copy(search)
    vars(fresh).update(vars(search))
    for base in type(search).__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in {"__dict__", "__weakref__"} and hasattr(search, name):
                setattr(fresh, name, getattr(search, name))
    return fresh


def _constructed(search: Any) -> dict[str, Any] | None:
    """Return what a constructor sets for a search's parameters; None if that fails."""
    try:
        constructed = type(search)(**search.get_params(deep=False))
    except Exception:  # noqa: BLE001 (the user's code may raise anything)
        return None
    return dict(vars(constructed))


def report_fit_errors(errors: list[str | None], error_score: Any) -> None:
    """Warn of failed fits, or raise if all failed, as scikit-learn does after a call."""
    results = [{"fit_error": error} for error in errors]
    _warn_or_raise_about_fit_failures(results, error_score)


def strategy_of(search: Any) -> Any:
    """Return the method by which a search says what to evaluate."""
    return search._run_search  # noqa: SLF001


def check_of(search: Any) -> Any:
    """Return the method by which a search looks at its data, before it evaluates."""
    return search._check_input_parameters  # noqa: SLF001


class _Hook:
    """Stands on an instance in the place of one of its methods."""

    def __init__(self, function: Any, search: Any, name: str) -> None:
        self._function, self._of = function, (search, name)
        self.__signature__ = inspect.signature(getattr(search, name))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the method itself, where a class of its own way takes hooks along."""
        return getattr, self._of


@contextmanager
def hooked(search: Any, *, strategy: Any, check: Any) -> Iterator[None]:
    """Put functions in the place of a search's methods while the block runs.

    They are set on the instance, whose class may forbid subclasses or look at itself. A
    copy or a pickle of it that is made meanwhile (by a scorer that refers to the search, by
    a callback) has none of them.
    """
    functions = {"_run_search": strategy, "_check_input_parameters": check}
    hooks: dict[str, Any] = {
        name: _Hook(function, search, name) for name, function in functions.items()
    }
    own, state_of = vars(search), search.__getstate__
    replaced = {name: own[name] for name in (*hooks, "__getstate__") if name in own}

    def state_without_hooks() -> Any:
        state = state_of()
        if not isinstance(state, dict):
            return state
        return {
            name: one for name, one in state.items() if name not in hooks
        } | replaced

    hooks["__getstate__"] = state_without_hooks
    own.update(hooks)
    try:
        yield
    finally:
        for name in hooks:
            own.pop(name, None)
        own.update(replaced)


def splitter_of(search: Any) -> Any:
    """Return the splitter that a search is being fitted with."""
    return search._checked_cv_orig  # noqa: SLF001


def _is_fitted_name(name: str) -> bool:
    return name.endswith("_") and not name.startswith("_")


class FixedSplits:
    """Yields splits that are known already, whatever it is asked about.

    Parameters
    ----------
    splits : list of (train, test)
    """

    def __init__(self, splits: list[tuple[Any, Any]]) -> None:
        self.splits = splits

    def split(self, X: Any, y: Any = None, groups: Any = None, **params: Any) -> Any:
        """Yield the splits."""
        del X, y, groups, params
        yield from self.splits

    def get_n_splits(
        self, X: Any = None, y: Any = None, groups: Any = None, **params: Any
    ) -> int:
        """Count the splits."""
        del X, y, groups, params
        return len(self.splits)


def complete_stopped_search(search: Any, calls: list[list[dict[str, Any]]]) -> None:
    """Set what a search class sets at the end of a run that was stopped midway.

    Parameters
    ----------
    search : BaseSearchCV
    calls : list of list of dict
        The candidates that finished, by ``evaluate_candidates`` call.
    """
    if isinstance(search, BaseSuccessiveHalving):
        search.n_iterations_ = len(calls)
        search.n_candidates_ = [len(candidates) for candidates in calls]
        search.n_resources_ = search.n_resources_[: len(calls)]
        search.n_remaining_candidates_ = -(-len(calls[-1]) // search.factor)
    for optimizer in getattr(search, "optimizers_", ())[len(_spaces_done(search)) :]:
        if optimizer.yi:
            _spaces_done(search).append(optimizer.get_result())


def _spaces_done(search: Any) -> list[Any]:
    """Results of skopt's finished search spaces."""
    done: list[Any] = getattr(search, "_optim_results", [])
    return done
