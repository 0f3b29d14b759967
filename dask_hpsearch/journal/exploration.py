"""A call of a Bayes search, whose candidates are asked one by one, read from its journal."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dask_hpsearch.journal.serialization import decode_result, is_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dask_hpsearch.journal.events import AskEvent, DropEvent, FitEvent


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
    """

    splits: list[tuple[Any, Any]]
    asks: dict[int, tuple[int, dict[str, Any]]] = field(default_factory=dict)
    results: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)
    dropped: set[int] = field(default_factory=set)


def exploration_of(
    splits: list[tuple[Any, Any]],
    asks: Iterable[AskEvent],
    fits: Iterable[FitEvent],
    drops: Iterable[DropEvent] = (),
) -> Exploration:
    """Build a call from its events.

    Two drivers of a run may have asked differently: of two asks with one ordinal the
    earlier counts, and what is noted for the parameters of the later one is left out.
    """
    found = Exploration(splits)
    for ask in sorted(asks, key=lambda event: event.time):
        asked = ask.space, decode_result(ask.encoded)
        found.asks.setdefault(ask.candidate, asked)
    for fit in fits:
        known = found.asks.get(fit.candidate)
        if known is not None and is_of(fit.digest, known[1]):
            found.results[fit.candidate, fit.split] = decode_result(fit.result)
    for drop in drops:
        known = found.asks.get(drop.candidate)
        if known is not None and is_of(drop.digest, known[1]):
            found.dropped.add(drop.candidate)
    return found
