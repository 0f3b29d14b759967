"""Units of time for an axis."""

from __future__ import annotations

from typing import NamedTuple


class TimeUnit(NamedTuple):
    """A unit of time."""

    name: str
    seconds: float


_UNITS = (TimeUnit("s", 1.0), TimeUnit("min", 60.0), TimeUnit("h", 3600.0))
_DAYS = TimeUnit("days", 86400.0)
_LEAST = 3.0  # of a unit: less is shown in the next smaller one


def time_unit(seconds: float) -> TimeUnit:
    """Return the unit for an axis of some length."""
    found = _UNITS[0]
    for unit in (*_UNITS, _DAYS):
        if seconds >= _LEAST * unit.seconds:
            found = unit
    return found
