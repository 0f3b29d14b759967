"""Dask workers whose fits only wait: ``python -m benchmarks.simulated_workers ADDRESS``.

Client, engine, scheduler, messages, journal and the workers' own protocol are real; in the
place of slots, that is of processes, a batch waits in the worker's event loop. So one process
can be dozens of workers with thousands of slots.
"""

from __future__ import annotations

import argparse
import asyncio
import pickle
import signal
import tempfile
import time
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
import numpy as np
from distributed import Worker, get_worker

from dask_hpsearch.messages import Batch, Outcome, encode_outcomes
from dask_hpsearch.slots import plugin
from dask_hpsearch.slots.pool import SlotPool

if TYPE_CHECKING:
    from collections.abc import Callable

_EARLY_REPORT_S = 0.5  # as a real batch reports what has ended before it
_MOST_BY_EVENT = 2**16


class Fits:
    """What the fits of this process take, and when each began and ended."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.began, self.ended = array("d"), array("d")

    async def run(self, number: int) -> bytes:
        """Wait as long as a fit takes; return its outcome."""
        began = time.time()
        await asyncio.sleep(self.seconds)
        ended = time.time()
        self.began.append(began)
        self.ended.append(ended)
        result = {
            "fit_error": None,
            "test_scores": (number * 7919 % 10007) / 10007,
            "n_test_samples": 1797,
            "fit_time": ended - began,
            "score_time": 0.001,
        }
        payload = pickle.dumps(result, protocol=5)
        return Outcome(number, "ok", payload, seconds=ended - began).to_bytes()

    def save(self, file: Path) -> None:
        """Write the times."""
        np.save(file, np.array([self.began, self.ended]))


def batches_of(fits: Fits) -> Callable[[bytes], Any]:
    """Return the function that takes the place of `plugin.run_batch`."""

    async def run_batch(payload: bytes) -> bytes:
        batch, worker = Batch.from_bytes(payload), get_worker()
        known: list[bytes] = []

        def report() -> None:
            message = {"batch": batch.number, "outcomes": encode_outcomes(known)}
            worker.log_event(batch.topic, message)
            known.clear()

        for task in batch.tasks:
            if known and fits.seconds > _EARLY_REPORT_S:
                report()
            known.append(await fits.run(task.number))
        if sum(map(len, known)) > _MOST_BY_EVENT:
            return encode_outcomes(known)
        report()
        return encode_outcomes([])

    return run_batch


class SimulatedPool(SlotPool):
    """Slots without processes."""

    def start(self) -> None:
        """Start nothing."""


async def run(options: argparse.Namespace, folder: str) -> None:
    """Run workers until this process is told to end."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    fits = Fits(options.seconds)
    plugin.run_batch = batches_of(fits)
    plugin.SlotPool = SimulatedPool  # type: ignore[misc]
    workers = [
        Worker(
            options.address,
            nthreads=options.slots,
            local_directory=folder,
            memory_limit=0,
            dashboard=False,
        )
        for _ in range(options.workers)
    ]
    await asyncio.gather(*workers)
    await ended.wait()
    fits.save(Path(options.times))
    await asyncio.gather(*(one.close(timeout=2) for one in workers))


def main() -> None:
    """Be some workers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--slots", type=int, default=64, help="of each worker")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each fit")
    parser.add_argument("--times", required=True, help="file for what fits took")
    options = parser.parse_args()
    # Every worker would look at its process, which it shares with dozens, all the time.
    seldom = {
        "distributed.worker.profile.enabled": False,
        "distributed.admin.tick.interval": "5 s",
        "distributed.admin.system-monitor.interval": "60 s",
    }
    with tempfile.TemporaryDirectory() as folder, dask.config.set(seldom):
        asyncio.run(run(options, folder))


if __name__ == "__main__":
    main()
