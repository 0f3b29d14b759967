"""Starts a driver for a run, and says so in the run's journal."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

from dask_hpsearch.execution.cost import tariff_of
from dask_hpsearch.execution.settings import check_limit
from dask_hpsearch.journal.folder import RUNS
from dask_hpsearch.runs.launch.kubernetes_job import (
    START_TIMEOUT_S,
    job_cluster,
    start_job,
    tell_why_not,
)
from dask_hpsearch.runs.launch.local_process import start_driver
from dask_hpsearch.runs.states import note_state, signature_of
from dask_hpsearch.stores import Store, open_store

if TYPE_CHECKING:
    from distributed import Client

    from dask_hpsearch.journal.folder import RunFolder


def start(
    folder: RunFolder,
    client: Client | None,
    *,
    generation: int = 0,
    n_iter_more: int = 0,
    ignored: list[str] | None = None,
    keep_cluster: bool = True,
    limits: dict[str, Any] | None = None,
) -> None:
    """Start a driver for a run, and note that in its journal.

    It is a Job beside the client's workers if that is possible, else a process of this
    machine. With ``limits`` it takes these in place of the manifest's settings.
    """
    driver = uuid.uuid4().hex
    options = {
        "store": store_of(folder.store).url,
        "generation": generation,
        "n_iter_more": n_iter_more,
        "driver": driver,
        "ignored": ignored or [],
        "limits": limits or {},
    }
    folder.signing_key()  # or nobody could note anything
    began = time.time()
    cluster = job_cluster(folder.store, client)
    if cluster is not None:
        start_job(folder, cluster, options, keep_cluster=keep_cluster)
        signature = signature_of(
            driver, 0, own=True, heartbeat_timeout_s=START_TIMEOUT_S
        )
    else:
        tell_why_not(folder.store, client)
        options["keep_cluster"] = keep_cluster
        pid = start_driver(folder, client=client, options=options)
        signature = signature_of(driver, pid, own=True)
    note_state(folder, "starting", signature, generation=generation, at=began)


def new_limits(
    folder: RunFolder, client: Client | None, **limits: float | None
) -> dict[str, Any]:
    """Check the limits with which a run is to go on; return those that are given.

    Raises
    ------
    ValueError
        If one is no positive number, or the cluster's prices are not known.
    """
    for name, value in limits.items():
        public, _, unit = name.rpartition("_")
        check_limit(public, value, "US dollars" if unit == "usd" else "seconds")
    given: dict[str, Any] = {
        name: value for name, value in limits.items() if value is not None
    }
    if "max_cost_usd" in given:
        tariff = tariff_of(client) or folder.manifest.settings.get("tariff")
        if tariff is None:
            msg = (
                f"max_cost={given['max_cost_usd']!r} needs a cluster whose prices are "
                "known: resume with the client of one that has a tariff"
            )
            raise ValueError(msg)
        given["tariff"] = tariff
    return given


def store_of(run_store: Store) -> Store:
    """Return the store that a run's folder lies in."""
    return open_store(run_store.url.rsplit(f"/{RUNS}/", 1)[0])
