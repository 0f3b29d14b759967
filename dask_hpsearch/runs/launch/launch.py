"""Starts a driver for a run and notes that in the run's journal."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

from dask_hpsearch.execution.cost import tariff_of
from dask_hpsearch.execution.early_ends import check_stop_rules
from dask_hpsearch.execution.settings import check_limit
from dask_hpsearch.journal.run_state import RunState
from dask_hpsearch.runs.driver.request import DriverRequest
from dask_hpsearch.runs.driver_process import describe_process
from dask_hpsearch.runs.launch.kubernetes_job import (
    START_TIMEOUT_S,
    job_cluster,
    start_job,
    warn_if_local,
)
from dask_hpsearch.runs.launch.local_process import start_process
from dask_hpsearch.runs.states import note_state
from dask_hpsearch.runs.stores import store_around

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distributed import Client

    from dask_hpsearch.journal.folder import RunFolder


def start_driver(
    folder: RunFolder,
    client: Client | None,
    *,
    generation: int = 0,
    n_iter_more: int = 0,
    ignored: Sequence[str] = (),
    keep_cluster: bool = True,
    limits: dict[str, Any] | None = None,
) -> None:
    """Start a driver for a run: a Job beside the client's workers, or a local process.

    Parameters
    ----------
    folder : RunFolder
    client : Client, optional
        None: the driver starts a local cluster.
    generation, n_iter_more, ignored, keep_cluster, limits
        As for `DriverRequest`.

    Raises
    ------
    UntrustedObjectError
        If the run's private key is not on this machine.
    UnsupportedSearchError
        If another process cannot open the run's store, or reach the client's scheduler.
    ClusterError
        If Kubernetes does not accept the Job.
    """
    folder.signing_key()  # without it, the driver could not write the journal
    request = DriverRequest(
        run=folder.store.url,
        store=store_around(folder.store).url,
        driver=uuid.uuid4().hex,
        generation=generation,
        n_iter_more=n_iter_more,
        ignored=tuple(ignored),
        limits=limits or {},
        keep_cluster=keep_cluster,
    )
    began = time.time()
    cluster = job_cluster(folder.store, client)
    if cluster is not None:
        start_job(folder, cluster, request)
        process = describe_process(
            request.driver, 0, own=True, heartbeat_timeout_s=START_TIMEOUT_S
        )
    else:
        warn_if_local(folder.store, client)
        pid = start_process(folder, request, client=client)
        process = describe_process(request.driver, pid, own=True)
    note_state(folder, RunState.STARTING, process, generation=generation, at=began)


def new_limits(
    folder: RunFolder,
    client: Client | None,
    *,
    stop_score: float | None = None,
    patience: float | None = None,
    **limits: float | None,
) -> dict[str, Any]:
    """Check the limits with which a run is resumed; return those that are given.

    Raises
    ------
    ValueError
        If one is not a number as it must be, or the cluster's prices are not known.
    """
    check_stop_rules(stop_score=stop_score, patience=patience, may_remove=True)
    for name, value in limits.items():
        public, _, unit = name.rpartition("_")
        check_limit(public, value, "US dollars" if unit == "usd" else "seconds")
    limits |= {"stop_score": stop_score, "patience": patience}
    given: dict[str, Any] = {
        name: value for name, value in limits.items() if value is not None
    }
    if "max_cost_usd" in given:
        tariff = tariff_of(client) or folder.manifest.settings.get("tariff")
        if tariff is None:
            msg = (
                f"max_cost={given['max_cost_usd']!r} needs a cluster whose prices are "
                "known: resume with a client whose cluster has a tariff"
            )
            raise ValueError(msg)
        given["tariff"] = tariff
    return given
