"""Runs whose driver is a Job on Kubernetes, beside the cluster on which they run."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from typing import TYPE_CHECKING, Any, Protocol

from dask_hpsearch import paths
from dask_hpsearch.clusters.kubernetes.driver_job import DriverRequest
from dask_hpsearch.concurrency import run_coroutine
from dask_hpsearch.data.sources import REACHABLE
from dask_hpsearch.exceptions import HPSearchError, PodStartError
from dask_hpsearch.runs.generations import generation_of
from dask_hpsearch.runs.launch.module_archive import keep_modules
from dask_hpsearch.runs.states import UNDER_WAY, note_state, signature_of
from dask_hpsearch.security import signing

if TYPE_CHECKING:
    from pathlib import Path

    from distributed import Client

    from dask_hpsearch.clusters.kubernetes.diagnosis import Problem
    from dask_hpsearch.journal.folder import RunFolder
    from dask_hpsearch.stores import Store

_logger = logging.getLogger(__name__)
_PROGRAM = "dask_hpsearch.runs.driver.pod_main"
# A driver that is silent for so long is gone: Kubernetes takes its time to notice that a
# node is lost, and a node that is to be added takes its own.
HEARTBEAT_TIMEOUT_S = 900.0
START_TIMEOUT_S = 1800.0
_LOOK_EVERY_S = 5.0
_STUCK_LOOKS = 2


class JobCluster(Protocol):
    """A cluster that runs drivers beside its workers, as `SearchKubeCluster`."""

    @property
    def runs_drivers(self) -> bool:
        """Whether it knows all that a driver's pod needs."""

    def start_driver(self, order: DriverRequest) -> dict[str, Any]:
        """Start a Job; return how Kubernetes is reached from here."""

    def end_with_runs(self) -> None:
        """Let the cluster end as soon as no run needs it."""


def job_cluster(store: Store, client: Client | None) -> JobCluster | None:
    """Return the cluster beside whose workers a run's driver can be.

    Parameters
    ----------
    store : Store
        The run's folder, or the store that it is in.
    client : Client, optional

    Returns
    -------
    JobCluster or None
        None if the driver has to be a process of this machine.
    """
    cluster: Any = None if client is None else client.cluster
    if not hasattr(cluster, "start_driver") or _why_not(store, cluster) is not None:
        return None
    found: JobCluster = cluster
    return found


def tell_why_not(store: Store, client: Client | None) -> None:
    """Say in the log why a run on Kubernetes is driven from this machine all the same."""
    cluster: Any = None if client is None else client.cluster
    reason = _why_not(store, cluster) if hasattr(cluster, "start_driver") else None
    if reason is not None:
        _logger.warning("the run is driven from this machine: %s", reason)


def _why_not(store: Store, cluster: JobCluster) -> str | None:
    if store.url.partition("://")[0] not in REACHABLE:
        return f"pods do not reach {store.url}; store='gs://…' lets it outlive this machine"
    if not cluster.runs_drivers:
        return "the cluster was not made by kube_cluster(spec)"
    return None


def start_job(
    folder: RunFolder,
    cluster: JobCluster,
    options: dict[str, Any],
    *,
    keep_cluster: bool,
) -> None:
    """Start a Job that drives a run.

    Parameters
    ----------
    folder : RunFolder
    cluster : JobCluster
    options : dict
        JSON values for the driver, its name among them.
    keep_cluster : bool
        False: the cluster ends with the run.

    Raises
    ------
    ClusterError
        If Kubernetes does not take the Job; nothing of it is left.
    """
    request = options | {
        "run": folder.store.url,
        "maker": signing.user_key().public,
        "modules": keep_modules(folder),
    }
    order = DriverRequest(
        run_id=folder.run_id,
        job=f"run-{folder.run_id}-{options['driver'][:6]}",
        module=_PROGRAM,
        request=request,
        signing_key=folder.signing_key().to_pem().decode("ascii"),
    )
    if not keep_cluster:
        cluster.end_with_runs()
    where = cluster.start_driver(order)
    record = {"job": order.job, "where": where, "driver": options["driver"]}
    _remember(folder.run_id, record)


class JobWatch:
    """Looks, while a run is under way, whether its driver's pod can run at all.

    Only the machine that started the Job knows how to ask.

    Parameters
    ----------
    folder : RunFolder

    Attributes
    ----------
    text : str
        What keeps the driver from running, for those who look on; empty if nothing does.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._next_look = time.monotonic() + _LOOK_EVERY_S
        self._told = ""
        self._lasting = 0
        self.text = ""

    def look(self, state: str) -> None:
        """Look, if it is time.

        Raises
        ------
        PodStartError
            If the pod cannot start; with what Kubernetes says.
        """
        if state not in UNDER_WAY or time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _LOOK_EVERY_S
        record = _recalled(self._folder.run_id)
        problem = _problem(record)
        self.text = "" if problem is None else problem.message
        if record is None or problem is None:
            self._lasting = 0
            return
        if problem.message != self._told:
            self._told = problem.message
            _logger.warning("the driver does not run: %s", problem.message)
        if problem.reason == "JobFailed":
            self._note_failure(record, problem.message)
            return
        self._lasting += problem.outlook in ("late", "stuck")
        if self._lasting >= _STUCK_LOOKS:
            self._lasting = 0
            msg = (
                f"the driver of run {self._folder.run_id} does not start: "
                f"{problem.message}. cancel() gives it up; resume(client) then tries again"
            )
            raise PodStartError(msg)

    def _note_failure(self, record: dict[str, Any], text: str) -> None:
        """Note the run's end where no driver is left that could."""
        with contextlib.suppress(HPSearchError):
            note_state(
                self._folder,
                "failed",
                signature_of(record["driver"], 0, own=True),
                generation=generation_of(self._folder),
                error=text,
            )


def problem_with_driver(run_id: str) -> str:
    """Say what keeps a run's driver from running, if this machine knows how to ask."""
    problem = _problem(_recalled(run_id))
    return "" if problem is None else problem.message


def end_if_stuck(run_id: str) -> str | None:
    """End a Job whose pod does not start; return its driver's name if that was so."""
    record = _recalled(run_id)
    if record is None or _problem(record) is None:
        return None
    from dask_hpsearch.clusters.kubernetes import job_control

    with contextlib.suppress(HPSearchError):
        run_coroutine(lambda: job_control.end_from_here(record["job"], record["where"]))
    return str(record["driver"])


def forget_job(run_id: str) -> None:
    """Forget how a run's Job is reached."""
    _path(run_id).unlink(missing_ok=True)


def _problem(record: dict[str, Any] | None) -> Problem | None:
    if record is None:
        return None
    from dask_hpsearch.clusters.kubernetes import job_control

    try:
        found: Problem | None = run_coroutine(
            lambda: job_control.look_from_here(record["job"], record["where"])
        )
    except HPSearchError as error:
        _logger.debug("Kubernetes does not say how the driver is: %s", error)
        return None
    return found


def _remember(run_id: str, record: dict[str, Any]) -> None:
    path = _path(run_id)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(record, file)
    except OSError as error:  # it is a help, and no part of the run
        _logger.debug("the way to %s is not kept: %s", record["job"], error)


def _recalled(run_id: str) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads(_path(run_id).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return record


def _path(run_id: str) -> Path:
    return paths.data_folder() / "drivers" / f"{run_id}.job"
