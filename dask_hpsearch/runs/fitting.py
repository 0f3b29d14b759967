"""Fits a search as a run: from the caller's process, or handed to a driver of its own."""

from __future__ import annotations

import contextlib
import logging
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dask_hpsearch.data import DataHome
from dask_hpsearch.data.references import refer
from dask_hpsearch.driver import Fitted, Settings, fit_trials, meter_of
from dask_hpsearch.errors import SigningKeyError, StoreError, UnpicklableError
from dask_hpsearch.runs.beginning import (
    Work,
    begin,
    default_store,
    materialised,
    opened,
)
from dask_hpsearch.runs.cleaning import tidy
from dask_hpsearch.runs.driving import drive_run
from dask_hpsearch.runs.processes import check_other_processes
from dask_hpsearch.runs.run import SearchRun
from dask_hpsearch.runs.starting import start

if TYPE_CHECKING:
    from dask_hpsearch.journal.folder import RunFolder

_logger = logging.getLogger(__name__)


def fit_here(
    search: Any, X: Any, y: Any, params: dict[str, Any], settings: Settings
) -> Fitted:
    """Fit a search in this process, its journal kept so that any other can go on.

    Returns
    -------
    Fitted
        Its ``url`` is the run's.
    """
    fresh, own_cv = materialised(search)
    data = refer(X, y, params)
    work = Work(fresh, data.X, data.y, data.params)
    with ExitStack() as stack:
        try:
            folder, home = _begin_if_possible(work, settings, stack)
            work = _opened(work, home, folder)
            if folder is None:
                fitted = fit_trials(
                    fresh,
                    work.X,
                    work.y,
                    work.params,
                    settings,
                    home=home,
                    meter=meter_of(settings),
                )
            else:
                fitted = drive_run(folder, work, home, settings)
        except StoreError as error:
            _give_back_cv(error.partial, own_cv)
            raise
    _give_back_cv(fitted.search, own_cv)
    return replace(fitted, url=None if folder is None else folder.store.url)


def _opened(work: Work, home: DataHome, folder: RunFolder | None) -> Work:
    """Read data by URL; what cannot be read leaves no run behind."""
    try:
        return opened(work, home)
    except BaseException:
        if folder is not None:
            with contextlib.suppress(StoreError):
                folder.delete()
        raise


def _give_back_cv(search: Any, cv: Any) -> None:
    if hasattr(search, "cv"):
        search.cv = cv


def _begin_if_possible(
    work: Work, settings: Settings, stack: ExitStack
) -> tuple[RunFolder | None, DataHome]:
    """Begin a run; without one if the search, or a store not asked for, has none."""
    asked_for = settings.store is not None
    store = settings.store or default_store()
    home = stack.enter_context(DataHome.of(store))
    try:
        if not asked_for:
            tidy(store)
        return _begin(work, settings, home), home
    except UnpicklableError as error:
        reason: Exception = error
    except (StoreError, SigningKeyError) as error:
        if asked_for:
            raise
        reason = error
        home = stack.enter_context(DataHome(None))
    _logger.warning("this search keeps no journal, and cannot be resumed: %s", reason)
    return None, home


def _begin(work: Work, settings: Settings, home: DataHome) -> RunFolder:
    return begin(
        work,
        store=settings.store or default_store(),
        home=home,
        task_name=settings.task_name,
        settings=_kept(settings),
    )


def submit(
    search: Any, X: Any, y: Any, params: dict[str, Any], settings: Settings
) -> SearchRun:
    """Begin a run and hand it to a driver process; return at once."""
    store = settings.store or default_store()
    check_other_processes(store, settings.client)
    if settings.store is None:
        tidy(store)
    fresh, _ = materialised(search)
    data = refer(X, y, params)
    with DataHome.of(store) as home:
        folder = _begin(Work(fresh, data.X, data.y, data.params), settings, home)
    start(folder, settings.client)
    return SearchRun(folder)


def _kept(settings: Settings) -> dict[str, Any]:
    """Pick the settings that a run is resumed with."""
    return {
        "fit_timeout_s": settings.fit_timeout_s,
        "worker_timeout_s": settings.worker_timeout_s,
        "max_time_s": settings.max_time_s,
        "asynchronous": settings.asynchronous,
        "share_prefixes": settings.share_prefixes,
        "max_cost_usd": settings.max_cost_usd,
        "tariff": settings.tariff,
    }
