"""Drivers as processes of their own on this machine."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle
import psutil

from dask_hpsearch import paths
from dask_hpsearch.engine.client import check_client
from dask_hpsearch.engine.cluster_features import features_of
from dask_hpsearch.exceptions import UnsupportedSearchError
from dask_hpsearch.runs.logs import new_log
from dask_hpsearch.slots.slot import python_path

if TYPE_CHECKING:
    from distributed import Client

    from dask_hpsearch.journal.folder import RunFolder
    from dask_hpsearch.stores import Store


def check_other_processes(store: Store, client: Client | None) -> None:
    """Refuse a store or a client that a process of its own could not open.

    Raises
    ------
    UnsupportedSearchError
    ClientClosedError
    """
    if store.url.startswith("memory:"):
        msg = (
            f"{store.url!r} exists in this process alone, and a submitted run has a "
            "process of its own: give a store that it can open too, a folder or a bucket"
        )
        raise UnsupportedSearchError(msg)
    if client is not None:
        check_client(client)
        if _address_of(client).startswith("inproc://"):
            msg = (
                f"the scheduler of {client} is in this process alone, and a submitted "
                "run has a process of its own: give a client of local_cluster(), or of a "
                "LocalCluster with processes=True"
            )
            raise UnsupportedSearchError(msg)


def start_driver(
    folder: RunFolder, *, client: Client | None, options: dict[str, Any]
) -> int:
    """Start a driver that outlives this process; its output goes to the run's logs.

    Parameters
    ----------
    folder : RunFolder
    client : Client, optional
        Its scheduler's address and certificates are handed on by a private file.
        None: the driver starts a local cluster of its own.
    options : dict
        JSON values for the driver.

    Returns
    -------
    int
        Its process.

    Raises
    ------
    UnsupportedSearchError
        If another process cannot open the run's store, or reach the client's scheduler.
    """
    check_other_processes(folder.store, client)
    secrets = _write_private(folder.run_id, client)
    request = {"run": folder.store.url, "client": secrets, **options}
    with new_log(folder.store, folder.run_id) as log:
        process = subprocess.Popen(  # noqa: S603 (our own module)
            [
                sys.executable,
                "-m",
                "dask_hpsearch.runs.driver.local_main",
                json.dumps(request),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": python_path(sys.path)},
        )
    # It may outlive this process: that is no mistake to be warned of at the exit.
    atexit.register(setattr, process, "returncode", 0)
    _unwaited[:] = [one for one in (*_unwaited, process) if one.poll() is None]
    return process.pid


# Drivers that may run; a Popen object warns if it is collected before its process ended.
_unwaited: list[subprocess.Popen[bytes]] = []


def read_private(path: str) -> dict[str, Any]:
    """Read and remove what `start_driver` handed on."""
    content = Path(path).read_bytes()
    Path(path).unlink()
    handed: dict[str, Any] = cloudpickle.loads(content)  # written by this user, 0600
    return handed


def started_at(pid: int) -> float:
    """When a process began, which tells it from a later one of the same number."""
    try:
        return round(float(psutil.Process(pid).create_time()), 1)
    except psutil.Error:
        return 0.0


def is_running(pid: int, started: float) -> bool:
    """Whether that very process still runs."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        zombie = process.status() == psutil.STATUS_ZOMBIE
        return not zombie and abs(process.create_time() - started) < 1.0
    return False


def _write_private(run_id: str, client: Client | None) -> str | None:
    if client is None:
        return None
    folder = paths.data_folder() / "drivers"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{run_id}-{uuid.uuid4().hex[:12]}"
    # A cluster on Kubernetes is reached from outside by a way of each process's own.
    attach = features_of(client).attach_options
    handed = {
        "address": _address_of(client),
        "security": client.security,
        "attach": attach,
    }
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(cloudpickle.dumps(handed))
    return str(path)


def _address_of(client: Client) -> str:
    return str(client.scheduler_info(n_workers=0)["address"])
