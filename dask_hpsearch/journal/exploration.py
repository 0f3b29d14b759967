"""A call whose candidates are asked one by one, read from its journal."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dask_hpsearch.journal.events import AskEvent, ReportEvent, TellEvent
from dask_hpsearch.journal.serialization import decode_result, is_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dask_hpsearch.journal.events import DropEvent, FitEvent

# What a strategy has asked and learned, in the order in which it did.
Step = AskEvent | ReportEvent | TellEvent


@dataclass(frozen=True, slots=True)
class Exploration:
    """The part of such a call that a journal has.

    Attributes
    ----------
    splits : list of (train, test)
    asks : dict of int to (int, dict)
        Search space and parameters, by candidate.
    results : dict
        Finished fits by (candidate, split).
    dropped : set of int
        Candidates of which no further fit begins.
    steps : list of AskEvent, ReportEvent or TellEvent
        The steps of the strategy, in their order.
    """

    splits: list[tuple[Any, Any]]
    asks: dict[int, tuple[int, dict[str, Any]]] = field(default_factory=dict)
    results: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)
    dropped: set[int] = field(default_factory=set)
    steps: list[Step] = field(default_factory=list)


def key_of(step: Step) -> tuple[Any, ...]:
    """Return what there is one of in a call."""
    at = step.step if isinstance(step, ReportEvent) else None
    return step.KIND, step.candidate, at


def exploration_of(
    splits: list[tuple[Any, Any]],
    steps: Iterable[Step],
    fits: Iterable[FitEvent],
    drops: Iterable[DropEvent] = (),
) -> Exploration:
    """Build a call from its events.

    Two drivers of a run may have asked differently: of two asks with one ordinal the
    earlier counts, and what is noted for the parameters of the later one is left out.
    """
    found = Exploration(splits)
    known: set[tuple[Any, ...]] = set()
    for step in sorted(steps, key=lambda event: event.time):
        # An event may be in more than one object of the journal.
        if key_of(step) in known:
            continue
        known.add(key_of(step))
        if isinstance(step, AskEvent):
            found.asks[step.candidate] = step.space, decode_result(step.encoded)
        if step.candidate in found.asks:
            found.steps.append(step)
    for fit in fits:
        asked = found.asks.get(fit.candidate)
        if asked is not None and is_of(fit.digest, asked[1]):
            found.results[fit.candidate, fit.split] = decode_result(fit.result)
    for drop in drops:
        asked = found.asks.get(drop.candidate)
        if asked is not None and is_of(drop.digest, asked[1]):
            found.dropped.add(drop.candidate)
    return found
