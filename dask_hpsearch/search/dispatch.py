"""Chooses the backend that fits a search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dask_hpsearch import sklearn_adapter
from dask_hpsearch.data import DataStore
from dask_hpsearch.data.inputs import refer
from dask_hpsearch.exceptions import UnsupportedSearchError
from dask_hpsearch.execution.client import in_memory
from dask_hpsearch.execution.joblib_fit import fit_joblib
from dask_hpsearch.runs.create import Work, read_references
from dask_hpsearch.runs.submit import fit_here
from dask_hpsearch.safe_text import repr_of
from dask_hpsearch.search.dask_ml import fit_dask_ml, is_dask_ml_search, why_not_dask_ml
from dask_hpsearch.strategies.incremental.kinds import is_incremental
from dask_hpsearch.strategies.optuna.search import is_optuna_search

if TYPE_CHECKING:
    from collections.abc import Callable

    from dask_hpsearch.execution.fitted import Fitted
    from dask_hpsearch.execution.settings import Settings

FITS: dict[str, Callable[[Any, Any, Any, dict[str, Any], Settings], Fitted]] = {
    "trials": fit_here,
    "dask-ml": fit_dask_ml,
    "joblib": fit_joblib,
}


def choose(search: Any, backend: str) -> str:
    """Choose the backend of a search.

    Parameters
    ----------
    search : object
    backend : {"auto", "trials", "joblib", "dask-ml"}

    Raises
    ------
    ValueError
        If the backend is unknown.
    UnsupportedSearchError
        If ``search`` is not a search, or the backend cannot run it; names one that can.
    """
    if backend not in ("auto", *FITS):
        msg = f"backend must be one of 'auto', {', '.join(map(repr, FITS))}, got {backend!r}"
        raise ValueError(msg)
    _check_is_estimator(search)
    best = _best_for(search)
    if backend == "auto":
        return best
    reason = _why_not(search, backend)
    if reason:
        msg = f"backend={backend!r} cannot run {_name(search)}: {reason}; use {best!r}"
        raise UnsupportedSearchError(msg)
    return backend


def fit(  # noqa: PLR0917 (as the backends' own functions)
    route: str, search: Any, X: Any, y: Any, params: dict[str, Any], settings: Settings
) -> Fitted:
    """Fit a search with the backend that `choose` returned."""
    X, y, params = in_memory(search, X, y, params, settings)
    if route == "trials":
        return FITS[route](search, X, y, params, settings)
    with DataStore() as data_store:  # mapped data stay mapped after it is closed
        data = refer(X, y, params)
        work = read_references(Work(search, data.X, data.y, data.params), data_store)
        return FITS[route](search, work.X, work.y, work.params, settings)


def _best_for(search: Any) -> str:
    if _has_own_engine(search):
        return "trials"
    return "dask-ml" if is_dask_ml_search(search) else "joblib"


def _has_own_engine(search: Any) -> bool:
    """Whether this package's engine runs a search."""
    return (
        sklearn_adapter.is_search(search)
        or is_incremental(search)
        or is_optuna_search(search)
    )


def _why_not(search: Any, backend: str) -> str | None:
    if backend == "trials" and not _has_own_engine(search):
        return "it runs subclasses of scikit-learn's BaseSearchCV, and OptunaSearchCV"
    if is_optuna_search(search) and backend != "trials":
        return "OptunaSearchCV runs its trials in threads of one process"
    if backend == "joblib" and (is_dask_ml_search(search) or is_incremental(search)):
        return "dask-ml's searches do not use joblib"
    if backend == "dask-ml" and is_incremental(search):
        return "dask-ml's own code for it fails on current versions of Dask"
    return why_not_dask_ml(search) if backend == "dask-ml" else None


def _check_is_estimator(search: Any) -> None:
    if isinstance(search, type) or not callable(getattr(search, "fit", None)):
        hint = ", an instance of it" if isinstance(search, type) else ""
        msg = (
            f"search must be a search object with a fit method{hint}, such as "
            f"GridSearchCV(estimator, param_grid), got {repr_of(search)}"
        )
        raise UnsupportedSearchError(msg)


def _name(search: Any) -> str:
    return f"{type(search).__module__.split('.')[0]}'s {type(search).__name__}"
