"""How many slots the work that waits could use: engines tell it, schedulers in pods read it.

Few tasks at a time are with Dask, so that its scheduler cannot know how much is to come.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TOPIC = "dask-hpsearch-demand"  # of the scheduler's events
ANNOUNCE_EVERY_S = 2.0
# An engine that is gone asks for nothing any more.
VALID_FOR_S = 10.0
# Work that a further slot must have, to be worth its start; Dask's own default.
WORTH_S = 5.0
_UNTIL_KNOWN = 8


def slots_wanted(waiting: int, mean_s: float | None) -> int:
    """Return how many further slots the tasks that wait are worth.

    Parameters
    ----------
    waiting : int
    mean_s : float or None
        What a task is expected to take; None: not known yet.
    """
    if mean_s is None:
        return min(waiting, _UNTIL_KNOWN)
    return min(waiting, math.ceil(waiting * mean_s / WORTH_S))


def message(engine: str, slots: int) -> dict[str, Any]:
    """Return what an engine tells."""
    return {"engine": engine, "slots": slots}


def total(events: Iterable[tuple[float, Mapping[str, Any]]], now: float) -> int:
    """Add up what every engine has told last, unless that was long ago.

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
