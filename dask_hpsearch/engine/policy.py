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
MOST_QUEUED_PER_SLOT = 100
_LEAST_QUEUED_PER_SLOT = 10
_MOST_QUEUED_AT_ALL = 50_000
# The scheduler takes about a millisecond for a batch, whatever is in it.
SCHEDULER_S = 1e-3
SCHEDULER_SHARE = 0.5
_LEAST_ROUNDS = 4
_LEAST_PREDICTED = 4096
_PREDICTED_PER_SLOT = 20


def most_in_flight(slots: int) -> int:
    """Return how many batches Dask should have: one running and one waiting a slot.

    A waiting batch hides the round trip to the client, and a new worker can start it at
    once. With more, searches that share a cluster would wait for each other. With fewer,
    slots whose fits take equally long would end together and wait for the client.
    """
    return 2 * slots or _BEFORE_ANY_WORKER


def most_queued(slots: int, usual: int) -> int:
    """Return how many fits of a search may wait: each takes memory, and time at the end.

    Parameters
    ----------
    slots : int
        Slots that share them; each may have some batches of them.
    usual : int
        How many may wait in any case.
    """
    most = max(_MOST_QUEUED_AT_ALL, _LEAST_QUEUED_PER_SLOT * slots)
    return max(usual, min(MOST_QUEUED_PER_SLOT * slots, most))


def most_predicted(slots: int) -> int:
    """Return how many waiting candidates have their times predicted.

    The next rounds of all slots: a long fit that is not among them may begin last.
    """
    return max(_LEAST_PREDICTED, _PREDICTED_PER_SLOT * slots)


def least_batch_s(slots: int) -> float:
    """Return the seconds of work in a batch that keep the scheduler's share small.

    With batches of that length on all slots, it is busy for `SCHEDULER_SHARE` of the time.
    """
    return slots * SCHEDULER_S / SCHEDULER_SHARE


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
    total_s: float | None = None,
    target_s: float = TARGET_BATCH_S,
) -> int:
    """Return how many tasks the next batch takes.

    Enough for ``target_s`` of work, but one while no duration is known. With many slots,
    enough for `least_batch_s`, if every slot has several such batches to come. So that slots
    do not idle at the end, a batch takes at most a fair share of half of the waiting
    tasks, unless those take less time than the batch itself costs.

    Parameters
    ----------
    waiting : int
        Tasks that wait in the engine.
    slots : int
        Slots that share them.
    mean_s : float or None
        Expected seconds of a task of the batch.
    total_s : float or None
        Expected seconds of all that wait; None: as the mean says.
    target_s : float
        Seconds of work that a batch should have.
    """
    if mean_s is None:
        return 1
    mean_s, slots = max(mean_s, 1e-4), max(slots, 1)
    fair = math.ceil(waiting / (2 * slots))
    least = math.floor(LEAST_BATCH_S / mean_s)
    each_s = (waiting * mean_s if total_s is None else total_s) / slots
    many_s = min(least_batch_s(slots), each_s / _LEAST_ROUNDS)
    target = max(int(target_s / mean_s), math.ceil(many_s / mean_s))
    wanted = min(target, max(fair, least))
    return max(1, min(wanted, waiting, _MOST_PER_BATCH))


def quiet_time_s(tasks: int, mean_s: float) -> float:
    """Return how long a worker need not look at a batch of short tasks.

    That is most of their expected time; looking near the end keeps the slot busy.
    """
    return min(TARGET_BATCH_S, 0.8 * tasks * mean_s) if tasks > 1 else 0.0
