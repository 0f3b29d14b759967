"""Starts a driver as a process of this machine that outlives the caller's process."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle

from dask_hpsearch import paths
from dask_hpsearch.engine.client import check_client
from dask_hpsearch.engine.cluster_features import features_of
from dask_hpsearch.exceptions import UnsupportedSearchError
from dask_hpsearch.runs.logs import create_driver_log
from dask_hpsearch.slots.slot import python_path

if TYPE_CHECKING:
    from distributed import Client

    from dask_hpsearch.journal.folder import RunFolder
    from dask_hpsearch.runs.driver.request import DriverRequest
    from dask_hpsearch.stores import Store

# Drivers that may run; a Popen object warns if it is collected before its process ended.
_running: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientAccess:
    """What a driver needs to connect to the scheduler of a client.

    Attributes
    ----------
    address : str
    security : Security
        With the client's certificates.
    attach_options : dict, optional
        Of a cluster on Kubernetes: the driver attaches to it by these arguments of
        `kube_cluster`, since each process has its own tunnel to the scheduler.
    """

    address: str
    security: Any
    attach_options: dict[str, Any] | None

    @classmethod
    def of(cls, client: Client) -> ClientAccess:
        """Describe a client."""
        return cls(
            address=_address_of(client),
            security=client.security,
            attach_options=features_of(client).attach_options,
        )

    def write(self, path: Path) -> None:
        """Write a file that only this user can read."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(cloudpickle.dumps(self))

    @staticmethod
    def take(path: str) -> ClientAccess:
        """Read and remove a file that `write` wrote."""
        content = Path(path).read_bytes()
        Path(path).unlink()
        access: ClientAccess = cloudpickle.loads(content)  # written by this user, 0600
        return access


def check_other_processes(store: Store, client: Client | None) -> None:
    """Refuse a store or a client that only this process can use.

    Raises
    ------
    UnsupportedSearchError
    ClientClosedError
    """
    if store.url.startswith("memory:"):
        msg = (
            f"{store.url!r} exists only in this process, and a submitted run has its "
            "own process: pass a store that it can open too, a folder or a bucket"
        )
        raise UnsupportedSearchError(msg)
    if client is not None:
        check_client(client)
        if _address_of(client).startswith("inproc://"):
            msg = (
                f"the scheduler of {client} exists only in this process, but another "
                "process drives a submitted run: pass a client of local_cluster(), or of a "
                "LocalCluster with processes=True"
            )
            raise UnsupportedSearchError(msg)


def start_process(
    folder: RunFolder, request: DriverRequest, *, client: Client | None
) -> int:
    """Start a driver whose output goes to the run's logs.

    Parameters
    ----------
    folder : RunFolder
    request : DriverRequest
    client : Client, optional
        The driver reads its scheduler's address and certificates from a private file.
        None: the driver starts a local cluster.

    Returns
    -------
    int
        Process id.

    Raises
    ------
    UnsupportedSearchError
        If another process cannot open the run's store, or reach the client's scheduler.
    """
    check_other_processes(folder.store, client)
    if client is not None:
        path = (
            paths.data_folder() / "drivers" / f"{folder.run_id}-{uuid.uuid4().hex[:12]}"
        )
        ClientAccess.of(client).write(path)
        request = replace(request, client=str(path))
    with create_driver_log(folder.store, folder.run_id) as log:
        process = subprocess.Popen(  # noqa: S603 (our own module)
            [
                sys.executable,
                "-m",
                "dask_hpsearch.runs.driver.local_main",
                json.dumps(request.to_json()),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": python_path(sys.path)},
        )
    # It may outlive this process, which needs no warning at exit.
    atexit.register(setattr, process, "returncode", 0)
    _running[:] = [one for one in (*_running, process) if one.poll() is None]
    return process.pid


def _address_of(client: Client) -> str:
    return str(client.scheduler_info(n_workers=0)["address"])
