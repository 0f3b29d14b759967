"""The program of a driver: ``python -m dask_hpsearch.runs.driver.local_main REQUEST``."""

from __future__ import annotations

import json
import logging
import os
import sys
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any

from distributed import Client

from dask_hpsearch.data import DataStore
from dask_hpsearch.exceptions import (
    ClientClosedError,
    ClusterNotFoundError,
    HPSearchError,
    RunCancelledError,
    StoreError,
)
from dask_hpsearch.execution.settings import Settings
from dask_hpsearch.journal.folder import RunFolder
from dask_hpsearch.journal.main_names import stand_in_for_main
from dask_hpsearch.runs.create import load
from dask_hpsearch.runs.driver.drive import drive_run
from dask_hpsearch.runs.driver.retry import DriverLoop, extended, let_go
from dask_hpsearch.runs.launch.local_process import read_private
from dask_hpsearch.runs.logs import StoredPodLogs, keep_logs, leave_word
from dask_hpsearch.stores import open_store

_logger = logging.getLogger(__name__)


def drive(request: dict[str, Any]) -> None:
    """Drive a run to its end."""
    folder = RunFolder.open(open_store(request["run"]))
    handed = None if request["client"] is None else read_private(request["client"])
    if handed is not None and handed["attach"] is not None:
        _drive_on_kubernetes(folder, request, handed["attach"])
        return
    settings = Settings.from_manifest(
        folder.manifest.settings, **request.get("limits", {})
    )
    with ExitStack() as stack:
        data_store = stack.enter_context(DataStore.of(open_store(request["store"])))
        work = extended(load(folder, data_store), int(request["n_iter_more"]))
        if handed is not None:
            settings = replace(settings, client=_connected(handed, stack))
        drive_run(
            folder,
            work,
            data_store,
            settings,
            generation=request["generation"],
            driver=request["driver"],
            ignored=request["ignored"],
        )


def _connected(handed: dict[str, Any], stack: ExitStack) -> Client:
    try:
        client = Client(
            handed["address"], security=handed["security"], set_as_default=False
        )
    except OSError as error:
        address = handed["address"]
        msg = f"the Dask scheduler at {address} does not answer: {error}"
        raise ClientClosedError(msg) from error
    stack.callback(client.close)
    return client


def _drive_on_kubernetes(
    folder: RunFolder, request: dict[str, Any], options: dict[str, Any]
) -> None:
    """Drive on a cluster that is attached to by name, also when its scheduler is lost."""
    from dask_hpsearch.clusters.kubernetes.cluster import kube_cluster
    from dask_hpsearch.clusters.kubernetes.pod_logs import PodLogs

    def attached(stack: ExitStack) -> Client:
        cluster = stack.enter_context(kube_cluster(**options))
        client: Client = cluster.get_client()
        stack.callback(let_go, client)
        return client

    where = {key: value for key, value in options.items() if key != "name"}
    with StoredPodLogs(folder.store) as kept:
        driver = DriverLoop(
            folder, request, attached, has_cluster=lambda: True, before_end=kept.write
        )
        since = kept.book.moments()
        name = options["name"]
        with PodLogs(name, folder.run_id, where, kept.take, since=since):
            error = driver.drive_to_the_end()
    if not request["keep_cluster"]:
        with suppress(ClusterNotFoundError):
            kube_cluster(**options).end()
    if error is not None:
        raise error


def main() -> int:
    """Run, and say in the log how it ended."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    for noisy in ("distributed", "bokeh", "tornado"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    request = json.loads(sys.argv[1])
    try:
        drive(request)
    except RunCancelledError:
        _logger.info("the run was cancelled")
    except HPSearchError as error:
        _logger.error("the run ended: %s", error)  # noqa: TRY400 (a message is enough)
        if isinstance(error, StoreError):  # its folder cannot tell
            leave_word(_run_id(request), f"{type(error).__name__}: {error}")
        return 1
    except Exception:
        _logger.exception("the run ended")
        return 1
    finally:
        with suppress(StoreError):
            keep_logs(open_store(request["run"]), _run_id(request))
    return 0


def _run_id(request: dict[str, Any]) -> str:
    return str(request["run"]).rpartition("/")[2]


if __name__ == "__main__":
    stand_in_for_main()
    status = main()
    # All is closed, and nobody needs the interpreter to take itself apart, which costs a
    # sixth of what its imports did.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
