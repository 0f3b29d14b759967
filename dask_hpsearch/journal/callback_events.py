"""The event of a run's journal that notes which candidates a callback was called with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from dask_hpsearch.journal.stored_event import Stored, StoredEvent

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackEvent(StoredEvent):
    """``on_candidate`` was called with some candidates.

    Attributes
    ----------
    generation : int
    time : float
    candidates : tuple of (int, int, str)
        Call, ordinal within the call, and digest of the parameters.
    """

    KIND: ClassVar[str] = "callback"

    generation: int
    time: float
    candidates: tuple[tuple[int, int, str], ...]

    def to_json(self) -> Stored:
        """Return the event as it is stored."""
        return {
            "e": self.KIND,
            "g": self.generation,
            "of": [list(one) for one in self.candidates],
            "t": self.time,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Read a stored event."""
        return cls(
            generation=stored["g"],
            time=stored["t"],
            candidates=tuple(
                (call, number, digest) for call, number, digest in stored["of"]
            ),
        )
