"""Drains a worker: running fits may end, finished results are handed over."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING

from distributed.core import Status

from dask_hpsearch.concurrency import Deadline
from dask_hpsearch.slots.plugin import drain_slots

if TYPE_CHECKING:
    from distributed import Worker

_RETIRE_TIME = 3.0  # seconds of the notice, reserved for handing over results
_POLL_INTERVAL = 0.05
_logger = logging.getLogger("distributed.worker.dask_hpsearch")


async def drain(worker: Worker, notice: float) -> None:
    """Accept no more tasks, hand over finished results, and close, within the notice.

    Parameters
    ----------
    worker : Worker
    notice : float
        Seconds; running fits have three fewer.
    """
    began = time.monotonic()
    fits = Deadline(max(notice - _RETIRE_TIME, 0.0))
    results = Deadline(notice - 2)
    # Otherwise its memory monitor would resume it.
    worker.memory_manager.memory_pause_fraction = False
    worker.status = Status.paused
    await asyncio.to_thread(drain_slots, worker, fits.remaining)
    # Its batches are about to return the results of their fits, which the client fetches at
    # once. Results that were lost with the worker would have to be computed again.
    while _has_results(worker) and not results.expired:  # noqa: ASYNC110 (the worker has no event for it)
        await asyncio.sleep(_POLL_INTERVAL)
    # The scheduler would warn about heartbeats of a worker that it has retired.
    worker.periodic_callbacks["heartbeat"].stop()
    with contextlib.suppress(Exception):  # the scheduler may be closing too
        await asyncio.wait_for(
            worker.scheduler.retire_workers(
                workers=[worker.address], remove=True, close_workers=False
            ),
            max(results.remaining + 1, 0.5),
        )
    _logger.info("drained in %.1f s", time.monotonic() - began)
    await worker.close(timeout=1, executor_wait=False, reason="drained")


def _has_results(worker: Worker) -> bool:
    return bool(worker.state.executing_count or worker.data)
