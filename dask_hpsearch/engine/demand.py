"""How many slots the waiting tasks could use: engines announce it to the scheduler.

The engine submits few tasks to Dask at a time, so the scheduler cannot know how many more
wait. Schedulers in pods read the announcements to scale the cluster.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TOPIC = "dask-hpsearch-demand"  # of the scheduler's events
ANNOUNCE_EVERY_S = 2.0
# The announcement of an engine that has ended expires.
VALID_FOR_S = 10.0
# Seconds of work that make a further slot worth its start; Dask's own default.
WORTH_S = 5.0
_UNTIL_KNOWN = 8


def slots_wanted(waiting: int, mean_s: float | None) -> int:
    """Return how many further slots the waiting tasks are worth.

    Parameters
    ----------
    waiting : int
    mean_s : float or None
        Expected seconds of a task; None: not known yet.
    """
    if mean_s is None:
        return min(waiting, _UNTIL_KNOWN)
    return min(waiting, math.ceil(waiting * mean_s / WORTH_S))


def message(engine: str, slots: int) -> dict[str, Any]:
    """Return an engine's announcement."""
    return {"engine": engine, "slots": slots}


def total(events: Iterable[tuple[float, Mapping[str, Any]]], now: float) -> int:
    """Add up the last announcement of every engine, unless it has expired.

    Parameters
    ----------
    events : iterable of (seconds since the epoch, message)
        In the order of time.
    now : float
        Seconds since the epoch.
    """
    last = {event["engine"]: (announced, event["slots"]) for announced, event in events}
    return sum(
        slots for announced, slots in last.values() if now - announced <= VALID_FOR_S
    )
