"""The program of a worker in a pod: ``python -m dask_hpsearch.clusters.kubernetes.worker_pod``.

It joins once its slots can be forked in milliseconds, and its versions are those of the
scheduler: a pod that is ready takes fits at once. When the pod is to end, it takes no more,
lets fits that end within the notice finish, and gives back the rest. When the scheduler is
lost it begins again, without a restart of the container, which Kubernetes would delay ever
longer.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed.core import rpc
from distributed.security import Security

from dask_hpsearch.clusters.drain import drain
from dask_hpsearch.clusters.kubernetes.manifests import (
    EXIT_REFUSED,
    EXIT_SKEW,
    SCRATCH,
    WORKER_HTTP_PORT,
)
from dask_hpsearch.clusters.tls import check_scheduler, response_timeouts
from dask_hpsearch.clusters.versions import (
    check_worker_versions,
    versions_here,
    versions_of,
)
from dask_hpsearch.clusters.worker_start import make_worker
from dask_hpsearch.exceptions import (
    ClusterAccessError,
    ClusterUnreachableError,
    VersionSkewError,
)
from dask_hpsearch.messages import IMAGE_VARIABLE
from dask_hpsearch.slots.disk_watch import DiskWatch, empty, give_slots_folders
from dask_hpsearch.slots.oom_record import FILE as OOM_RECORD_FILE
from dask_hpsearch.slots.oom_record import OOMRecord, read_oom_record
from dask_hpsearch.slots.plugin import DISK_WATCH, OOM_RECORD
from dask_hpsearch.slots.slot import Forkserver

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distributed import Worker

_RETRY_INTERVAL = 0.5
_RESTARTED = "DASK_HPSEARCH_AGAIN"  # set when a worker restarts in the same container
_logger = logging.getLogger("distributed.worker.dask_hpsearch")


def main(argv: Sequence[str] | None = None) -> None:
    """Run one worker until its pod is terminated."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    if arguments.disk:
        _prepare_disk(Path(arguments.scratch))
    # Its imports run beside the search for the scheduler.
    forkserver = Forkserver(sys.path)
    try:
        left = asyncio.run(_work(arguments, forkserver))
    except (ClusterAccessError, VersionSkewError) as error:
        print(f"refused: {error}", file=sys.stderr, flush=True)  # noqa: T201
        skew = isinstance(error, VersionSkewError)
        sys.exit(EXIT_SKEW if skew else EXIT_REFUSED)
    finally:
        forkserver.close()
    if not left:
        _logger.warning("lost the scheduler: looking for it again")
        os.environ[_RESTARTED] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="pod_worker")
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--memory", type=int, required=True, help="bytes for all slots")
    parser.add_argument("--notice", type=float, required=True, help="seconds to drain")
    parser.add_argument("--http-port", type=int, default=WORKER_HTTP_PORT)
    parser.add_argument("--scratch", default=SCRATCH)
    parser.add_argument(
        "--disk", type=int, default=0, help="bytes of the scratch volume"
    )
    return parser


def _prepare_disk(scratch: Path) -> None:
    """Start with an empty disk, which an earlier container may have filled."""
    if _RESTARTED not in os.environ:
        empty(scratch, but=[OOM_RECORD_FILE])
    give_slots_folders(scratch)


async def _work(arguments: Namespace, forkserver: Forkserver) -> bool:
    """Return True if the worker was terminated, False if it has lost its scheduler."""
    leave = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leave.set)
    leaving = asyncio.ensure_future(leave.wait())
    joining = asyncio.ensure_future(_join(arguments, forkserver))
    await asyncio.wait({leaving, joining}, return_when=asyncio.FIRST_COMPLETED)
    if not joining.done():
        joining.cancel()
        forkserver.close()  # do not wait for its imports
        return True
    worker = joining.result()
    finished = asyncio.ensure_future(worker.finished())
    await asyncio.wait({leaving, finished}, return_when=asyncio.FIRST_COMPLETED)
    if not leave.is_set():
        leaving.cancel()
        return False
    draining = asyncio.ensure_future(drain(worker, arguments.notice))
    await asyncio.wait({draining, finished}, return_when=asyncio.FIRST_COMPLETED)
    return True


async def _join(arguments: Namespace, forkserver: Forkserver) -> Worker:
    security = Security()  # from the environment
    address = os.environ["DASK_SCHEDULER_ADDRESS"]
    await _find(address, security)
    await _check_versions(address, security)
    scratch = Path(arguments.scratch)
    extensions: dict[str, Any] = {OOM_RECORD: lambda _worker: OOMRecord(scratch)}
    if arguments.disk:
        watch = DiskWatch(scratch, arguments.disk, leave=_leave_full_disk)
        extensions[DISK_WATCH] = lambda _worker: watch
    worker = await make_worker(
        address,
        forkserver,
        extensions=extensions,
        name=os.environ.get("DASK_WORKER_NAME"),
        nthreads=arguments.slots,
        memory_limit=arguments.memory,
        local_directory=arguments.scratch,
        dashboard=False,
        dashboard_address=f":{arguments.http_port}",
        security=security,
    )
    crashed = read_oom_record(scratch)
    await worker
    if crashed is not None:  # the previous container of the pod
        report = {
            "crashed": crashed.number,
            "nbytes": crashed.nbytes,
            "name": worker.name,
        }
        worker.log_event(crashed.topic, report)
    return worker


async def _find(address: str, security: Security) -> None:
    """Wait for the scheduler; give up if it is of another cluster."""
    for timeout in response_timeouts():
        try:
            await asyncio.to_thread(
                check_scheduler, address, security, role="worker", timeout=timeout
            )
        except ClusterUnreachableError as error:
            _logger.info("%s", error)
            await asyncio.sleep(_RETRY_INTERVAL)
        else:
            return


async def _check_versions(address: str, security: Security) -> None:
    """Check that the scheduler has the versions of this worker."""
    arguments = security.get_connection_args("worker")
    async with rpc(address, connection_args=arguments) as scheduler:
        theirs = await versions_of(scheduler)
    image = os.environ.get(IMAGE_VARIABLE, "of this worker")
    check_worker_versions(theirs, versions_here(), image)


def _leave_full_disk() -> None:
    """End as if terminated: the next container of the pod starts with an empty disk."""
    _logger.warning("the disk is full of files of earlier fits: restarting")
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
