"""Waiting with a deadline, and coroutines called from ordinary code."""

from __future__ import annotations

from dask_hpsearch.concurrency.event_loops import run_coroutine, run_in_thread
from dask_hpsearch.concurrency.polling import (
    Clock,
    Deadline,
    poll_until,
    poll_until_async,
)

__all__ = [
    "Clock",
    "Deadline",
    "poll_until",
    "poll_until_async",
    "run_coroutine",
    "run_in_thread",
]
