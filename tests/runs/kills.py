"""What the tests that kill a part of a running search have in common."""

from __future__ import annotations

import os
import signal
import time
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from dask_hpsearch import SearchRun
from dask_hpsearch.journal.events import StateEvent
from tests.processes import is_alive, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from dask_hpsearch import DaskSearchCV

SEEDS = 10


def places(kinds: tuple[str, ...] = ("",)) -> list[Any]:
    """Return parameters (kind of search, place, seed): all slow, but for the first seeds."""
    return [
        pytest.param(
            (kind, place, seed),
            id="-".join([*([kind] if kind else []), place, str(seed)]),
            marks=[pytest.mark.slow] if seed or (place == "gs" and number) else [],
        )
        for number, kind in enumerate(kinds)
        for place in ("file", "gs")
        for seed in range(SEEDS)
    ]


def store_at(place: str, folder: Path, bucket: str) -> str:
    """Return the URL of a store of its own, in a folder or in a bucket."""
    return (
        f"gs://{bucket}/{uuid.uuid4().hex}" if place == "gs" else str(folder / "store")
    )


def kill(pid: int) -> float:
    """Kill a process; return when."""
    os.kill(pid, signal.SIGKILL)
    return time.time()


def driver_of(run: SearchRun) -> int:
    """Return the process of a run's newest driver."""
    states = [one for one in run._reader.events() if isinstance(one, StateEvent)]
    return max(states, key=lambda one: one.time).process.pid


def kill_driver(run: SearchRun) -> None:
    """Kill the process that drives a run, once it does, and wait until that is known."""
    wait_until(lambda: is_alive(driver_of(run)))
    kill(driver_of(run))
    wait_until(lambda: run.state == "interrupted")


def fit_in_thread(
    own: DaskSearchCV, *data: Any
) -> tuple[SearchRun, Future[DaskSearchCV]]:
    """Fit in a thread of this process; return the run once it is there."""
    found = ThreadPoolExecutor(1).submit(own.fit, *data)
    wait_until(lambda: SearchRun.list(own.store) or found.done())
    if not SearchRun.list(own.store):
        found.result()
    (run,) = SearchRun.list(own.store)
    return run, found
