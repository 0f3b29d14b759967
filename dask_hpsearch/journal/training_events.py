"""Events of searches that train models by ``partial_fit``; their keys are those of `events`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

Stored = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainEvent:
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

    def to_json(self) -> Stored:
        """Return the event as it is stored."""
        return {
            "e": self.KIND,
            "c": self.call,
            "g": self.generation,
            "i": self.candidate,
            "d": self.digest,
            "calls": self.calls,
            "model": self.model,
            "r": self.result,
            "t": self.time,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Read a stored event."""
        return cls(
            generation=stored["g"],
            time=stored["t"],
            call=stored["c"],
            candidate=stored["i"],
            digest=stored["d"],
            calls=stored["calls"],
            model=stored["model"],
            result=stored["r"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundEvent:
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
        return {
            "e": self.KIND,
            "c": self.call,
            "g": self.generation,
            "number": self.number,
            "calls": [list(item) for item in self.calls.items()],
            "t": self.time,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Read a stored event."""
        return cls(
            generation=stored["g"],
            time=stored["t"],
            call=stored["c"],
            number=stored["number"],
            calls={int(model): int(calls) for model, calls in stored["calls"]},
        )
