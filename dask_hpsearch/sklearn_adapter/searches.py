"""scikit-learn's search classes: copies, hooks, and the end of a stopped search.

Private parts of scikit-learn that are used:

* ``_run_search`` and its argument ``evaluate_candidates`` (the documented way to write a
  search class), and the check of its input (since 1.9);
* the report of failed fits after a call;
* the fitted attributes of halving searches.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import sklearn
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.model_selection._search import BaseSearchCV
from sklearn.model_selection._search_successive_halving import BaseSuccessiveHalving
from sklearn.model_selection._validation import _warn_or_raise_about_fit_failures

from dask_hpsearch.exceptions import UnsupportedVersionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


OLDEST, BEYOND = (1, 9), (1, 10)


def check_version(version: str = sklearn.__version__) -> None:
    """Refuse a scikit-learn outside the supported range.

    Parameters
    ----------
    version : str
        Default: that which is installed.

    Raises
    ------
    UnsupportedVersionError
        Names the installed version and the range.
    """
    installed = tuple(int(part) for part in version.split(".")[:2])
    if not OLDEST <= installed < BEYOND:
        msg = (
            f"scikit-learn {version} is installed, dask_hpsearch supports "
            f">={OLDEST[0]}.{OLDEST[1]},<{BEYOND[0]}.{BEYOND[1]}: install one of these"
        )
        raise UnsupportedVersionError(msg)


def score_of(result: Mapping[str, Any], refit: Any) -> float | None:
    """Return the score by which a search ranks, if the fit has one."""
    scores = result.get("test_scores")
    if isinstance(scores, dict):
        scores = scores.get(refit) if isinstance(refit, str) else None
    return float(scores) if isinstance(scores, (int, float, np.number)) else None


def best_of(search: Any) -> tuple[float | None, Mapping[str, Any] | None]:
    """Return the mean score and the parameters of a fitted search's best candidate.

    The score is None if there are several; both are None if the search has no best one.
    """
    try:
        params = getattr(search, "best_params_", None)
    except ValueError:  # of an Optuna study without a complete trial
        return None, None
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


def is_halving(search: Any) -> bool:
    """Whether an object is a halving search, whose rungs have scores of their own."""
    return isinstance(search, BaseSuccessiveHalving)


def is_bayes(search: Any) -> bool:
    """Whether a search runs skopt's own strategy."""
    strategy = getattr(type(search), "_run_search", None)
    return str(getattr(strategy, "__module__", "")).startswith("skopt.")


def evaluates_once(search: Any) -> bool:
    """Whether a search evaluates all its candidates in one call, and then ends."""
    once = [strategy_of(one) for one in (GridSearchCV, RandomizedSearchCV)]
    return strategy_of(type(search)) in once


def has_several_scores(search: Any) -> bool:
    """Whether ``scoring`` names several scores; of a function, only its result shows it."""
    scoring = search.scoring
    return not (scoring is None or isinstance(scoring, str) or callable(scoring))


def without_fitted_state(search: Any) -> Any:
    """Copy a search: same parameter objects and metadata requests, no fitted attributes.

    `sklearn.base.clone` would copy ``cv`` and ``random_state`` too, fail on generators,
    and not advance the caller's ``RandomState`` as a plain fit does. Attributes that a
    constructor sets and that are named as fitted ones are set to its values.
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
    """Copy an object attribute by attribute, not by its pickled state.

    The state may lack attributes that a fit in this process needs, and scikit-learn
    refuses the state of an estimator with ``__slots__``.
    """
    if hasattr(search, "__copy__") or not hasattr(search, "__dict__"):
        return copy.copy(search)
    try:
        fresh = object.__new__(type(search))
    except TypeError:  # it is partly a C type
        return copy.copy(search)
    vars(fresh).update(vars(search))
    for base in type(search).__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in {"__dict__", "__weakref__"} and hasattr(search, name):
                setattr(fresh, name, getattr(search, name))
    return fresh


def _constructed(search: Any) -> dict[str, Any] | None:
    """Return the attributes that a constructor sets; None if it fails."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the user's own call has warned
            constructed = type(search)(**search.get_params(deep=False))
    except Exception:  # noqa: BLE001 (the user's code may raise anything)
        return None
    return dict(vars(constructed))


def report_fit_errors(errors: list[str | None], error_score: Any) -> None:
    """Warn of failed fits, or raise if all failed, as scikit-learn does after a call."""
    results = [{"fit_error": error} for error in errors]
    _warn_or_raise_about_fit_failures(results, error_score)


def strategy_of(search: Any) -> Any:
    """Return the method by which a search evaluates its candidates."""
    return search._run_search  # noqa: SLF001


def check_of(search: Any) -> Any:
    """Return the method by which a search checks its input before it evaluates."""
    return search._check_input_parameters  # noqa: SLF001


class _Hook:
    """A function that replaces a method on an instance."""

    def __init__(self, function: Any, search: Any, name: str) -> None:
        self._function, self._of = function, (search, name)
        self.__signature__ = inspect.signature(getattr(search, name))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the method itself, if a class pickles its hooks in its own way."""
        return getattr, self._of


@contextmanager
def hooked(search: Any, *, strategy: Any, check: Any) -> Iterator[None]:
    """Replace methods of a search while the block runs.

    They are replaced on the instance, since its class may forbid subclasses or check its
    own type. A copy or a pickle that is made meanwhile (by a scorer that refers to the
    search, by a callback) has the original methods.
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
    """Yields known splits, for any data.

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
    """Set the attributes that a search class sets at its end, for a stopped search.

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
    """Return the results of skopt's finished search spaces."""
    done: list[Any] = getattr(search, "_optim_results", [])
    return done
