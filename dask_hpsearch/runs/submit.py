"""Fits a search as a run: from the caller's process, or handed to a driver of its own."""

from __future__ import annotations

import contextlib
import logging
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dask_hpsearch.data import DataStore
from dask_hpsearch.data.collections import current_client
from dask_hpsearch.data.inputs import FitData, is_reference, refer
from dask_hpsearch.engine.cluster_features import features_of
from dask_hpsearch.exceptions import (
    SigningKeyError,
    StoreError,
    UnpicklableError,
    UnsupportedSearchError,
)
from dask_hpsearch.execution.client import in_memory
from dask_hpsearch.execution.cost import meter_of
from dask_hpsearch.execution.fit import fit_trials
from dask_hpsearch.runs.create import Work, begin, default_store, materialised, opened
from dask_hpsearch.runs.driver.drive import drive_run
from dask_hpsearch.runs.follow import follow
from dask_hpsearch.runs.gc import tidy
from dask_hpsearch.runs.launch.kubernetes_job import job_cluster
from dask_hpsearch.runs.launch.launch import start
from dask_hpsearch.runs.launch.local_process import check_other_processes
from dask_hpsearch.runs.run import SearchRun

if TYPE_CHECKING:
    from dask_hpsearch.execution.fitted import Fitted
    from dask_hpsearch.execution.settings import Settings
    from dask_hpsearch.journal.folder import RunFolder

_logger = logging.getLogger(__name__)


def fit_here(
    search: Any, X: Any, y: Any, params: dict[str, Any], settings: Settings
) -> Fitted:
    """Fit a search in this process, its journal kept so that any other can go on.

    On a cluster on Kubernetes, data that lie in a bucket do not come here: the search is
    driven from there, and this process looks on.

    Returns
    -------
    Fitted
        Its ``url`` is the run's.
    """
    fresh, own_cv = materialised(search)
    data = refer(X, y, params)
    settings = replace(settings, client=settings.client or current_client())
    if _is_for_a_job(data, settings):
        run = _submit(fresh, data, settings)
        fitted = follow(run, progress=settings.progress)
        _give_back_cv(fitted.search, own_cv)
        return fitted
    work = Work(fresh, data.X, data.y, data.params)
    with ExitStack() as stack:
        try:
            folder, data_store = _begin_if_possible(work, settings, stack)
            work = _opened(work, data_store, folder)
            if folder is None:
                fitted = fit_trials(
                    fresh,
                    work.X,
                    work.y,
                    work.params,
                    settings,
                    data_store=data_store,
                    meter=meter_of(settings),
                )
            else:
                fitted = drive_run(folder, work, data_store, settings)
        except StoreError as error:
            _give_back_cv(error.partial, own_cv)
            raise
    _give_back_cv(fitted.search, own_cv)
    return replace(fitted, url=None if folder is None else folder.store.url)


def _opened(work: Work, data_store: DataStore, folder: RunFolder | None) -> Work:
    """Read data by URL; what cannot be read leaves no run behind."""
    try:
        return opened(work, data_store)
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
) -> tuple[RunFolder | None, DataStore]:
    """Begin a run; without one if the search, or a store not asked for, has none."""
    asked_for = settings.store is not None
    store = settings.store or default_store()
    data_store = stack.enter_context(DataStore.of(store))
    try:
        if not asked_for:
            tidy(store)
        return _begin(work, settings, data_store), data_store
    except UnpicklableError as error:
        reason: Exception = error
    except (StoreError, SigningKeyError) as error:
        if asked_for:
            raise
        reason = error
        data_store = stack.enter_context(DataStore(None))
    _logger.warning("this search keeps no journal, and cannot be resumed: %s", reason)
    return None, data_store


def _begin(work: Work, settings: Settings, data_store: DataStore) -> RunFolder:
    return begin(
        work,
        store=settings.store or default_store(),
        data_store=data_store,
        task_name=settings.task_name,
        settings=_kept(settings),
    )


def submit(
    search: Any, X: Any, y: Any, params: dict[str, Any], settings: Settings
) -> SearchRun:
    """Begin a run and hand it to a driver elsewhere; return at once."""
    fresh, _ = materialised(search)
    settings = replace(settings, client=settings.client or current_client())
    X, y, params = in_memory(X, y, params, settings)
    return _submit(fresh, refer(X, y, params), settings)


def _submit(fresh: Any, data: FitData, settings: Settings) -> SearchRun:
    store = settings.store or default_store()
    check_other_processes(store, settings.client)
    _check_keep(settings)
    if settings.store is None:
        tidy(store)
    with DataStore.of(store) as data_store:
        if job_cluster(store, settings.client) is not None:
            data = _carried(data, data_store)
        folder = _begin(Work(fresh, data.X, data.y, data.params), settings, data_store)
    start(folder, settings.client, keep_cluster=settings.keep_cluster)
    return SearchRun(folder)


def _is_for_a_job(data: FitData, settings: Settings) -> bool:
    """Whether a fit is better driven from where its data and its workers are."""
    far = is_reference(data.X) and data.X.reachable
    if not far or settings.store is None:
        return False
    return job_cluster(settings.store, settings.client) is not None


def _carried(data: FitData, data_store: DataStore) -> FitData:
    """Replace references that lead to this machine by what they refer to."""
    values = {
        name: data_store.open(value, what=name)
        if is_reference(value) and not value.reachable
        else value
        for name, value in data.named().items()
    }
    return FitData(values.pop("X"), values.pop("y"), values)


def _check_keep(settings: Settings) -> None:
    """Refuse to end a cluster that a driver elsewhere cannot end."""
    client = settings.client
    on_kubernetes = features_of(client).on_kubernetes
    if not settings.keep_cluster and client is not None and not on_kubernetes:
        msg = (
            "keep_cluster=False: the driver of a submitted run can end a cluster on "
            f"Kubernetes (kube_cluster), and its own; end that of {client} yourself"
        )
        raise UnsupportedSearchError(msg)


def _kept(settings: Settings) -> dict[str, Any]:
    """Pick the settings that a run is resumed with."""
    return {
        "fit_timeout_s": settings.fit_timeout_s,
        "worker_timeout_s": settings.worker_timeout_s,
        "max_time_s": settings.max_time_s,
        "bayes_async": settings.bayes_async,
        "share_steps": settings.share_steps,
        "max_cost_usd": settings.max_cost_usd,
        "tariff": settings.tariff,
    }
