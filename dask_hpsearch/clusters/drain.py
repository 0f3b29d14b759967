"""How a worker leaves: what it runs may end, what is finished is handed on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING

from distributed.core import Status

from dask_hpsearch.slots.plugin import drain_slots

if TYPE_CHECKING:
    from distributed import Worker

_RETIRE_S = 3.0  # of the notice, kept for the results' way
_logger = logging.getLogger("distributed.worker.dask_hpsearch")


async def drain(worker: Worker, notice_s: float) -> None:
    """Take no more, hand on what is finished, and close, within the notice.

    Parameters
    ----------
    worker : Worker
    notice_s : float
        Seconds; running fits have three less to end.
    """
    began = time.monotonic()
    # Without this its memory monitor would set it running again.
    worker.memory_manager.memory_pause_fraction = False
    worker.status = Status.paused
    until = began + max(notice_s - _RETIRE_S, 0.0)
    await asyncio.to_thread(drain_slots, worker, until - time.monotonic())
    # Its batches are about to say what became of their fits. The client takes that at once,
    # and then there is nothing to hand on; what went with the worker would run again.
    end = began + notice_s - 1
    while _has_something(worker) and time.monotonic() < end - 1:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    # The scheduler would wonder, and say so, about a worker that it does not know any more.
    worker.periodic_callbacks["heartbeat"].stop()
    with contextlib.suppress(Exception):  # the scheduler may be leaving too
        await asyncio.wait_for(
            worker.scheduler.retire_workers(
                workers=[worker.address], remove=True, close_workers=False
            ),
            max(end - time.monotonic(), 0.5),
        )
    _logger.info("drained in %.1f s", time.monotonic() - began)
    await worker.close(timeout=1, executor_wait=False, reason="drained")


def _has_something(worker: Worker) -> bool:
    return bool(worker.state.executing_count or worker.data)
