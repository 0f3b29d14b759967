"""The program of a local worker: ``python -m dask_hpsearch.clusters.local_worker``.

Unlike a process that multiprocessing spawns, it does not import the user's main module,
so that a script needs no ``if __name__ == "__main__"``. It joins the cluster when its
forkserver is ready, so that it can run fits at once.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from dask_hpsearch.clusters.worker_start import make_worker
from dask_hpsearch.slots.slot import Forkserver

if TYPE_CHECKING:
    from distributed import Worker

_PARENT_CHECK_INTERVAL = 1.0
_ORPHAN_GRACE = 3.0
# The signal to drain and leave, and the seconds for that: fits have two of them to end, then
# they are returned to the scheduler.
DRAIN = signal.SIGUSR1
NOTICE = 5.0


async def _work(settings: dict[str, Any], forkserver: Forkserver) -> None:
    import distributed  # noqa: F401 (sets its logger's level, which is set here again)

    logging.getLogger("distributed").setLevel(settings["log_level"])
    worker = await make_worker(settings["scheduler"], forkserver, **settings["options"])
    leaving = _LeaveOnSignal(worker)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(DRAIN, leaving.leave, NOTICE)
    loop.add_signal_handler(signal.SIGTERM, leaving.leave, 0.0)
    if parent := settings.get("parent"):
        threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    await worker
    await worker.finished()


class _LeaveOnSignal:
    """Handles signals to leave; a signal to leave at once ends the draining."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._leaving: asyncio.Task[None] | None = None

    def leave(self, notice: float) -> None:
        """Start to leave."""
        # Dask's warnings about tasks and connections of a closing worker are of no use.
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        if self._leaving is not None and notice:
            return
        begun, leaves = self._leaving, _drain if notice else _close
        self._leaving = asyncio.ensure_future(leaves(self._worker, notice))
        if begun is not None:
            begun.cancel()


async def _drain(worker: Worker, notice: float) -> None:
    """Leave after running fits have ended."""
    from dask_hpsearch.clusters.drain import drain

    await drain(worker, notice)


async def _close(worker: Worker, notice: float) -> None:
    """Leave at once: end the slots, delete the local folder."""
    del notice
    await worker.close(timeout=1, executor_wait=False, reason="closed")


def _end_with_parent(parent: int) -> None:
    """End this process when the client's process has ended, normally or not.

    Dask's worker ends when it loses its scheduler, but waits forever for one that it has
    never reached.
    """
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_INTERVAL)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_ORPHAN_GRACE)
    os._exit(1)  # the forkserver ends with this process, and the slots with it


def main() -> None:
    """Run one Dask worker until its scheduler is gone; never return."""
    forkserver = Forkserver(sys.path)  # its imports run beside those of Dask
    settings = json.loads(sys.argv[1])
    status = 0
    try:
        asyncio.run(_work(settings, forkserver))
    except (KeyboardInterrupt, OSError, TimeoutError):
        status = 1
    finally:
        forkserver.close()
    # Everything is closed. The interpreter's shutdown would take longer than that, and
    # closing or scaling a cluster waits for it.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
