"""Fits a search as a run: in the caller's process, or by a driver elsewhere."""

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
    TrackerError,
    UnpicklableError,
    UnsupportedSearchError,
)
from dask_hpsearch.execution.client import in_memory
from dask_hpsearch.execution.cost import meter_of
from dask_hpsearch.execution.fit import fit_trials
from dask_hpsearch.execution.reporting import reporting
from dask_hpsearch.execution.settings import callback_to_manifest
from dask_hpsearch.progress.environment import in_kernel
from dask_hpsearch.runs.create import (
    Work,
    copy_with_cv_list,
    create_run,
    read_references,
)
from dask_hpsearch.runs.dask_page import show_on_dask
from dask_hpsearch.runs.driver.drive import drive_run
from dask_hpsearch.runs.follow import follow
from dask_hpsearch.runs.gc import tidy
from dask_hpsearch.runs.launch.kubernetes_job import job_cluster
from dask_hpsearch.runs.launch.launch import start_driver
from dask_hpsearch.runs.launch.local_process import check_other_processes
from dask_hpsearch.runs.notebook_view import cluster_of, shown_while_driven
from dask_hpsearch.runs.run import SearchRun
from dask_hpsearch.runs.stores import default_store
from dask_hpsearch.strategies.optuna import samplers

if TYPE_CHECKING:
    from dask_hpsearch.execution.fitted import Fitted
    from dask_hpsearch.execution.settings import Settings
    from dask_hpsearch.exports.mlflow_settings import MlflowTracker
    from dask_hpsearch.journal.folder import RunFolder

_logger = logging.getLogger(__name__)


def fit_here(
    search: Any, X: Any, y: Any, params: dict[str, Any], settings: Settings
) -> Fitted:
    """Fit a search in this process, with a journal so that any other process can resume it.

    On a cluster on Kubernetes, data in a bucket are not read here: the driver is a Job on
    the cluster, and this process displays its progress.

    Returns
    -------
    Fitted
        With the run's ``url``.
    """
    fresh, own_cv = copy_with_cv_list(search)
    data = refer(X, y, params)
    settings = replace(settings, client=settings.client or current_client())
    if _is_better_as_job(data, settings):
        run = _submit(fresh, data, settings)
        fitted = follow(run, progress=settings.progress)
        _restore_cv(fitted.search, own_cv)
        return fitted
    work = Work(fresh, data.X, data.y, data.params)
    with ExitStack() as stack:
        try:
            folder, data_store = _create_run_if_possible(work, settings, stack)
            work = _read_or_delete(work, data_store, folder)
            if folder is None:
                fitted = _fit_without_journal(work, settings, data_store)
            else:
                with shown_while_driven(SearchRun(folder), settings) as driven:
                    fitted = drive_run(folder, work, data_store, driven)
        except StoreError as error:
            _restore_cv(error.partial, own_cv)
            raise
    _restore_cv(fitted.search, own_cv)
    return replace(fitted, url=None if folder is None else folder.store.url)


def _fit_without_journal(
    work: Work, settings: Settings, data_store: DataStore
) -> Fitted:
    with reporting(work.search, settings) as reports:
        fitted = fit_trials(
            work.search,
            work.X,
            work.y,
            work.params,
            settings,
            data_store=data_store,
            meter=meter_of(settings),
            listener=reports.listener,
        )
        reports.fit_ended()
        reports.result_stored(fitted, work.X)
    return fitted


def _read_or_delete(
    work: Work, data_store: DataStore, folder: RunFolder | None
) -> Work:
    """Read data that are references; delete the run if they cannot be read."""
    try:
        return read_references(work, data_store)
    except BaseException:
        if folder is not None:
            with contextlib.suppress(StoreError):
                folder.delete()
        raise


def _restore_cv(search: Any, cv: Any) -> None:
    if hasattr(search, "cv"):
        search.cv = cv


def _create_run_if_possible(
    work: Work, settings: Settings, stack: ExitStack
) -> tuple[RunFolder | None, DataStore]:
    """Create a run, unless the search or the default store does not permit one.

    Raises
    ------
    StoreError, SigningKeyError
        If the user has given the store.
    """
    store_is_given = settings.store is not None
    store = settings.store or default_store()
    data_store = stack.enter_context(DataStore.of(store))
    try:
        if not store_is_given:
            tidy(store)
        return _create_run(work, settings, data_store), data_store
    except UnpicklableError as error:
        reason: Exception = error
    except (StoreError, SigningKeyError) as error:
        if store_is_given:
            raise
        reason = error
        data_store = stack.enter_context(DataStore(None))
    _logger.warning("this search has no journal and cannot be resumed: %s", reason)
    return None, data_store


def _create_run(
    work: Work,
    settings: Settings,
    data_store: DataStore,
    *,
    cache_search: bool = False,
    callback: str | None = None,
) -> RunFolder:
    reported_to: dict[str, Any] = {} if callback is None else {"on_candidate": callback}
    if settings.tracker is not None:
        reported_to["tracker"] = settings.tracker.to_json()
    return create_run(
        work,
        store=settings.store or default_store(),
        data_store=data_store,
        task_name=settings.task_name,
        settings=_to_manifest(settings) | reported_to,
        cache_search=cache_search,
    )


def submit(
    search: Any, X: Any, y: Any, params: dict[str, Any], settings: Settings
) -> SearchRun:
    """Create a run, start a driver for it, and return at once."""
    fresh, _ = copy_with_cv_list(search)
    settings = replace(settings, client=settings.client or current_client())
    X, y, params = in_memory(search, X, y, params, settings)
    run = _submit(fresh, refer(X, y, params), settings)
    if settings.progress and in_kernel():
        try:
            run.watch()
        except StoreError as error:  # the run goes on
            _logger.warning("the run cannot be displayed now: %s", error)
    return run


def _submit(fresh: Any, data: FitData, settings: Settings) -> SearchRun:
    store = settings.store or default_store()
    check_other_processes(store, settings.client)
    _check_keep(settings)
    callback = callback_to_manifest(settings.on_candidate)
    if settings.store is None:
        tidy(store)
    as_job = job_cluster(store, settings.client) is not None
    if as_job:
        _check_tracker(settings.tracker)
    with DataStore.of(store) as data_store:
        if as_job:
            data = _reachable(data, data_store)
        work = Work(fresh, data.X, data.y, data.params)
        folder = _create_run(
            work, settings, data_store, cache_search=as_job, callback=callback
        )
    start_driver(folder, settings.client, keep_cluster=settings.keep_cluster)
    folder.forget_search_pickle()
    show_on_dask(settings.client, SearchRun(folder))
    return SearchRun(folder, cluster=cluster_of(settings.client))


def _is_better_as_job(data: FitData, settings: Settings) -> bool:
    """Whether the data of a fit are nearer to its workers than to this machine."""
    remote = is_reference(data.X) and data.X.reachable
    if not remote or settings.store is None:
        return False
    if settings.tracker is not None and settings.tracker.is_of_this_machine:
        return False
    return job_cluster(settings.store, settings.client) is not None


def _reachable(data: FitData, data_store: DataStore) -> FitData:
    """Replace references to this machine by their data."""
    values = {
        name: data_store.open(value, what=name)
        if is_reference(value) and not value.reachable
        else value
        for name, value in data.named().items()
    }
    return FitData(values.pop("X"), values.pop("y"), values)


def _check_tracker(tracker: MlflowTracker | None) -> None:
    """Refuse a tracker that only this machine reaches to a driver in a pod."""
    if tracker is not None and tracker.is_of_this_machine:
        msg = (
            f"the driver of this run is a pod, which does not reach {tracker.tracking_uri}: "
            "give the address of an MLflow server, such as "
            "MlflowTracker(tracking_uri='http://mlflow:5000'), or fit() without submit()"
        )
        raise TrackerError(msg)


def _check_keep(settings: Settings) -> None:
    """Refuse ``keep_cluster=False`` for a cluster that a driver cannot end."""
    client = settings.client
    on_kubernetes = features_of(client).on_kubernetes
    if not settings.keep_cluster and client is not None and not on_kubernetes:
        msg = (
            "keep_cluster=False: the driver of a submitted run can end only a cluster of "
            f"kube_cluster, and its own; end that of {client} yourself"
        )
        raise UnsupportedSearchError(msg)


def _to_manifest(settings: Settings) -> dict[str, Any]:
    """Return the settings that a resumed run needs."""
    return {
        "fit_timeout_s": settings.fit_timeout_s,
        "worker_timeout_s": settings.worker_timeout_s,
        "max_time_s": settings.max_time_s,
        "bayes_async": settings.bayes_async,
        "share_steps": settings.share_steps,
        "max_cost_usd": settings.max_cost_usd,
        "tariff": settings.tariff,
        "racing": settings.racing,
        "stop_score": settings.stop_score,
        "patience": settings.patience,
        "sampler": samplers.to_manifest(settings.sampler),
    }
