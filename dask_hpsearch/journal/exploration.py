"""A call whose candidates were asked one by one: its asks and results, read back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dask_hpsearch.journal.serialization import decode_result, is_of

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Exploration:
    """What a run has of such a call.

    Attributes
    ----------
    splits : list of (train, test)
    asks : dict of int to (int, dict)
        Search space and parameters, by candidate.
    results : dict
        Finished fits by (candidate, split).
    """

    splits: list[tuple[Any, Any]]
    asks: dict[int, tuple[int, dict[str, Any]]] = field(default_factory=dict)
    results: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)


def exploration_of(
    splits: list[tuple[Any, Any]],
    asks: Iterable[dict[str, Any]],
    fits: Iterable[dict[str, Any]],
) -> Exploration:
    """Read events back.

    Two drivers of a run may have asked differently: of two asks with one ordinal the
    earlier counts, and a result of the other's parameters is none of the candidate's.
    """
    found = Exploration(splits)
    for ask in sorted(asks, key=lambda event: float(event["t"])):
        found.asks.setdefault(ask["i"], (ask["space"], decode_result(ask["p"])))
    for fit in fits:
        asked = found.asks.get(fit["i"])
        if asked is not None and is_of(fit["d"], asked[1]):
            found.results[fit["i"], fit["s"]] = decode_result(fit["r"])
    return found
