"""Events of searches that train models by ``partial_fit``; their keys are those of `events`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from dask_hpsearch.journal.stored_event import Stored, StoredEvent

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainEvent(StoredEvent):
    """A model was trained by some calls of ``partial_fit``; its state is stored.

    Attributes
    ----------
    generation : int
    time : float
    call, candidate : int
        The bracket, and the model in it.
    digest : str
        Of the model's parameters.
    calls : int
        Calls of ``partial_fit`` that made the model.
    model : str
        Name of its state: the hash of its content.
    result : dict
        Times, and the score if the model was scored, as `serialization.encode_result`
        encodes them.
    """

    KIND: ClassVar[str] = "train"

    generation: int
    time: float
    call: int
    candidate: int
    digest: str
    calls: int
    model: str
    result: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundEvent(StoredEvent):
    """All models of a bracket were scored, and it was decided which go on.

    Attributes
    ----------
    generation : int
    time : float
    call, number : int
        The bracket, and the ordinal of the round in it.
    calls : dict of int to int
        Further calls of ``partial_fit`` by model; models that are left out are dropped.
    """

    KIND: ClassVar[str] = "round"

    generation: int
    time: float
    call: int
    number: int
    calls: dict[int, int]

    def to_json(self) -> Stored:
        """Return the event as it is stored."""
        stored = StoredEvent.to_json(self)
        return stored | {"calls": [list(item) for item in self.calls.items()]}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Read a stored event."""
        calls = {int(model): int(calls) for model, calls in stored["calls"]}
        return super(RoundEvent, cls).from_json({**stored, "calls": calls})
