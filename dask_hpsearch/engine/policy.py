"""Decides what to submit next. Pure: no clock, no cluster."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

TARGET_BATCH_S = 0.4
RACE_BATCH_S = 0.1  # in a race a batch is decided on as late as possible
LEAST_BATCH_S = 0.02
_HANDOVER_S = 0.02
_SMOOTHING = 0.2
_MOST_PER_BATCH = 500
_BEFORE_ANY_WORKER = 8


def most_in_flight(slots: int) -> int:
    """Return how many batches Dask should have: one running and one waiting a slot.

    A waiting batch hides the round trip to the client, and a new worker can start it at
    once. With more, searches that share a cluster would wait for each other.
    """
    return 2 * slots if slots else _BEFORE_ANY_WORKER


def most_in_race(slots: int, mean_s: float | None) -> int:
    """Return how many batches Dask should have if candidates are dropped as results come.

    One a slot, and more if fits are so short that a slot would idle while a result
    travels and the next fit is handed over.
    """
    if mean_s is None:
        return slots
    batch_s = max(mean_s, RACE_BATCH_S)
    return slots + math.ceil(slots * min(1.0, _HANDOVER_S / batch_s))


@dataclass(slots=True)
class Durations:
    """Running estimate of a task's duration.

    Attributes
    ----------
    mean_s : float or None
        Exponentially smoothed mean of the wall-clock time in the slot.
    """

    mean_s: float | None = field(default=None)

    def add(self, seconds: float) -> None:
        """Take in a finished task."""
        if self.mean_s is None:
            self.mean_s = seconds
        else:
            self.mean_s += _SMOOTHING * (seconds - self.mean_s)


def batch_size(
    *,
    waiting: int,
    slots: int,
    mean_s: float | None,
    target_s: float = TARGET_BATCH_S,
) -> int:
    """Return how many tasks the next batch takes.

    Enough for ``target_s`` of work, but one while no duration is known. So that slots
    do not idle at the end, a batch takes at most a fair share of half of the waiting
    tasks, unless those take less time than the batch itself costs.

    Parameters
    ----------
    waiting : int
        Tasks that wait in the engine.
    slots : int
        Slots that share them.
    mean_s : float or None
        Expected seconds of a task.
    target_s : float
        Seconds of work that a batch is to have.
    """
    if mean_s is None:
        return 1
    mean_s = max(mean_s, 1e-4)
    fair = math.ceil(waiting / (2 * max(slots, 1)))
    least = math.floor(LEAST_BATCH_S / mean_s)
    wanted = min(int(target_s / mean_s), max(fair, least))
    return max(1, min(wanted, waiting, _MOST_PER_BATCH))


def quiet_time_s(tasks: int, mean_s: float) -> float:
    """Return how long a worker need not look at a batch of short tasks.

    That is most of their expected time; looking near the end keeps the slot busy.
    """
    return min(TARGET_BATCH_S, 0.8 * tasks * mean_s) if tasks > 1 else 0.0
