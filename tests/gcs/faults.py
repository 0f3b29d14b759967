"""What can go wrong between a client and the storage, as values."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "list", "stat", "download", "upload", "begin", "chunk", "delete", "other"
]
Action = Literal["status", "hang", "reset", "lose", "flip", "cut", "shorten", "slow"]


@dataclass(frozen=True, slots=True)
class Fault:
    """What befalls some requests.

    Attributes
    ----------
    action : str
        "status": an error instead of an answer. "hang": never an answer. "reset": the
        connection ends before the request is read by anybody. "lose": it ends after the
        request was carried out. "garble": a byte of what is sent is another. "flip": one
        of what is answered is. "cut": the answer ends in its midst, as when a connection
        breaks. "shorten": the same, but it says so of itself. "slow": it comes in small
        pieces.
    kinds : tuple of str
        Which requests; all, if empty.
    name : str
        A part of the object's name.
    times : int or None
        How many requests; None: all.
    lasts_s : float or None
        For how long, from the moment it is set; None: for ever.
    status, message : int and str
        Of an error.
    pause_s : float
        Between the pieces of a slow body.
    """

    action: Action
    kinds: tuple[Kind, ...] = ()
    name: str = ""
    times: int | None = 1
    lasts_s: float | None = None
    status: int = 503
    message: str = "We encountered an internal error. Please try again."
    pause_s: float = 0.05

    def befalls(self, kind: str, name: str) -> bool:
        """Whether it is for a request of this kind, for this object."""
        return (not self.kinds or kind in self.kinds) and self.name in name


class Faults:
    """The faults that are set; each request takes the first that is for it."""

    def __init__(self) -> None:
        self._set: list[tuple[Fault, float]] = []
        self._taken: dict[int, int] = {}
        self._lock = threading.Lock()

    def set(self, *faults: Fault) -> None:
        """Let these faults, and no others, befall what comes."""
        now = time.monotonic()
        with self._lock:
            self._set = [(fault, now) for fault in faults]
            self._taken = {}

    def take(self, kind: str, name: str) -> Fault | None:
        """Return the fault that befalls a request, if any."""
        with self._lock:
            for index, (fault, since) in enumerate(self._set):
                taken = self._taken.get(index, 0)
                over = fault.lasts_s is not None and (
                    time.monotonic() - since > fault.lasts_s
                )
                used_up = fault.times is not None and taken >= fault.times
                if fault.befalls(kind, name) and not over and not used_up:
                    self._taken[index] = taken + 1
                    return fault
        return None

    def n_taken(self) -> int:
        """How many requests a fault has befallen."""
        with self._lock:
            return sum(self._taken.values())
