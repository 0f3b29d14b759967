"""Fits a search as a run: from the caller's process, or handed to a driver of its own."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from dask_hpsearch.data import DataHome
from dask_hpsearch.driver import Fitted, Settings, fit_trials
from dask_hpsearch.runs.beginning import (
    Work,
    begin,
    begin_if_possible,
    default_store,
    materialised,
)
from dask_hpsearch.runs.driving import drive_run
from dask_hpsearch.runs.processes import start_driver
from dask_hpsearch.runs.run import SearchRun


def fit_here(
    search: Any, X: Any, y: Any, params: dict[str, Any], settings: Settings
) -> Fitted:
    """Fit a search in this process, its journal kept so that any other can go on.

    Returns
    -------
    Fitted
        Its ``url`` is the run's.
    """
    store = settings.store or default_store()
    fresh, own_cv = materialised(search)
    work = Work(fresh, X, y, params)
    with ExitStack() as stack:
        home = stack.enter_context(DataHome(store.local_path()))
        folder = begin_if_possible(
            work,
            store=store,
            home=home,
            task_name=settings.task_name,
            settings=_kept(settings),
        )
        if folder is None:
            fitted = fit_trials(fresh, X, y, params, settings, home=home)
        else:
            fitted = drive_run(folder, work, home, settings)
    if hasattr(fitted.search, "cv"):
        fitted.search.cv = own_cv
    return replace(fitted, url=None if folder is None else folder.store.url)


def submit(
    search: Any, X: Any, y: Any, params: dict[str, Any], settings: Settings
) -> SearchRun:
    """Begin a run and hand it to a driver process; return as soon as that has it."""
    store = settings.store or default_store()
    fresh, _ = materialised(search)
    with DataHome(store.local_path()) as home:
        folder = begin(
            Work(fresh, X, y, params),
            store=store,
            home=home,
            task_name=settings.task_name,
            settings=_kept(settings),
        )
    options = {"store": store.url, "generation": 0, "n_iter_more": 0}
    start_driver(folder, client=settings.client, options=options)
    return SearchRun(folder)


def _kept(settings: Settings) -> dict[str, Any]:
    """Pick the settings that a run is resumed with."""
    return {
        "fit_timeout_s": settings.fit_timeout_s,
        "worker_timeout_s": settings.worker_timeout_s,
        "max_time_s": settings.max_time_s,
    }
