"""A clock that stands still until somebody waits by it."""

from __future__ import annotations

import threading
import time

from dask_hpsearch.concurrency import Clock

START = 1_800_000_000.0


class FakeClock:
    """Time that passes by sleeping.

    Parameters
    ----------
    start : float
        Seconds since the epoch.
    """

    def __init__(self, start: float = START) -> None:
        self._now = start
        self._lock = threading.Lock()
        self.clock = Clock(self.now, self.sleep)

    def now(self) -> float:
        """Return seconds since the epoch."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        with self._lock:
            self._now += seconds


class RunningClock(FakeClock):
    """Time that passes by itself, much faster than ours.

    Parameters
    ----------
    start : float
        Seconds since the epoch.
    speed : float
        Its seconds in one of ours.
    """

    def __init__(self, start: float = START, speed: float = 1000.0) -> None:
        super().__init__(start)
        self._began, self._speed = time.monotonic(), speed

    def now(self) -> float:
        """Return seconds since the epoch."""
        return self._now + (time.monotonic() - self._began) * self._speed
