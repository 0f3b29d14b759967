"""How requests to a cloud are repeated: pauses, deadline, time-outs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Retry:
    """When a failed request is repeated, and when it is given up.

    Attributes
    ----------
    initial, maximum : float
        Seconds before the first repetition, and the most before a later one; doubled
        each time, and drawn at random below that.
    deadline : float
        Seconds for a request with all its repetitions. An outage of 20 s must be
        survived.
    timeout : float
        Seconds to wait for one response, or for its next bytes.
    connect_timeout : float
        Seconds to wait for a connection (HTTP only).
    """

    initial: float = 0.25
    maximum: float = 8.0
    deadline: float = 120.0
    timeout: float = 30.0
    connect_timeout: float = 10.0
