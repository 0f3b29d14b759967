"""Slots that only wait: what a strategy loses, without what a cluster would.

Evaluations take real time, so that asking takes its real share of it, but no CPU.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable


class SimulatedSlots:
    """Slots for `dask_hpsearch.strategies.explorer.Explorer`.

    Parameters
    ----------
    slots : int
    seconds : callable
        How long the fit of (candidate, split) takes.
    result : callable
        Returns its result.

    Attributes
    ----------
    begun : float
        When the first fit began.
    last_begun : float
        When the last one began: from then on slots are idle for want of work.
    busy_s : float
        Seconds that slots spent in fits until then.
    """

    def __init__(
        self,
        slots: int,
        *,
        seconds: Callable[[int, int], float],
        result: Callable[[int, int], dict[str, Any]],
    ) -> None:
        self.slots = slots
        self._seconds = seconds
        self._result = result
        self._changed = threading.Condition()
        self._waiting: deque[tuple[int, int, int, Any]] = deque()
        self._running: list[tuple[float, int, int, int, Any]] = []
        self._closed = False
        self.spans: list[tuple[float, float]] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def submit(self, space: int, candidate: int, split: int, done: Any) -> None:
        """Run a fit in a slot, now or when one is free."""
        with self._changed:
            self._waiting.append((space, candidate, split, done))
            self._changed.notify()

    def cancel(self, space: int) -> None:
        """Forget what runs and waits for a space."""
        with self._changed:
            self._waiting = deque(one for one in self._waiting if one[0] != space)
            self._running = [one for one in self._running if one[3] != space]
            heapq.heapify(self._running)

    @property
    def wall_s(self) -> float:
        """Seconds from the first fit's begin to the last one's end."""
        return max(end for _, end in self.spans) - min(begin for begin, _ in self.spans)

    @property
    def busy(self) -> float:
        """Share of slots in use until the last fit began."""
        first = min(begin for begin, _ in self.spans)
        last = max(begin for begin, _ in self.spans)
        used = sum(min(end, last) - begin for begin, end in self.spans)
        return used / (self.slots * (last - first))

    def _run(self) -> None:
        with self._changed:
            while not self._closed:
                now = time.perf_counter()
                while self._waiting and len(self._running) < self.slots:
                    space, candidate, split, done = self._waiting.popleft()
                    end = now + self._seconds(candidate, split)
                    self.spans.append((now, end))
                    one = (end, candidate, split, space, done)
                    heapq.heappush(self._running, one)
                while self._running and self._running[0][0] <= now:
                    _, candidate, split, _, done = heapq.heappop(self._running)
                    done(self._result(candidate, split))
                until = (
                    self._running[0][0] - time.perf_counter() if self._running else 1
                )
                if not self._waiting or len(self._running) >= self.slots:
                    self._changed.wait(max(until, 0.0))


def list_schedule_s(seconds: list[float], slots: int) -> float:
    """Bound by list scheduling: each fit in its turn on the slot that is free first."""
    free = [0.0] * slots
    for one in seconds:
        heapq.heapreplace(free, free[0] + one)
    return max(free)
