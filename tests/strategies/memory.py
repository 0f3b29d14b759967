"""A run in memory: what was asked and what has finished, kept when a search is killed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from skopt import Optimizer

from benchmarks.simulated import SimulatedSlots
from dask_hpsearch.strategies.bayes.asker import Asker
from dask_hpsearch.strategies.explorer import Explorer, Space

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

QUICK = {"base_estimator": "ET", "acq_func": "EI", "n_initial_points": 4}


class KilledError(Exception):
    """Ends a search at a moment that a test has chosen."""


@dataclass
class Run:
    """What a journal keeps.

    Attributes
    ----------
    asks : dict of int to (int, dict)
        Space and parameters, by ordinal.
    results : dict
        By (candidate, split).
    tells : list of (int, int, float)
        Ordinal, space and value, as they came.
    begun : list of (int, int)
        Fits that ran, also those that did not finish.
    kill_after : int or None
        The tell at which it is killed.
    """

    asks: dict[int, tuple[int, dict[str, Any]]] = field(default_factory=dict)
    results: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)
    tells: list[tuple[int, int, float]] = field(default_factory=list)
    begun: list[tuple[int, int]] = field(default_factory=list)
    kill_after: int | None = None

    def asked(self, ordinal: int, space_index: int) -> Mapping[str, Any] | None:
        space, params = self.asks.get(ordinal, (None, None))
        return params if space == space_index else None

    def record_ask(self, ordinal: int, space_index: int, params: Any) -> None:
        assert ordinal not in self.asks
        self.asks[ordinal] = space_index, dict(params)

    def told(self, ordinal: int, space_index: int, value: float) -> None:
        self.tells.append((ordinal, space_index, value))
        if len(self.tells) == self.kill_after:
            raise KilledError


class RecalledSlots:
    """Simulated slots that run only what a run has not."""

    def __init__(self, run: Run, slots: SimulatedSlots) -> None:
        self._run = run
        self._slots = slots
        self.most_at_once = 0
        self._at_once: set[tuple[int, int]] = set()

    @property
    def slots(self) -> int:
        return self._slots.slots

    def submit(self, space: int, candidate: int, split: int, done: Any) -> None:
        key = candidate, split
        if key in self._run.results:
            done(self._run.results[key])
            return
        self._run.begun.append(key)
        self._at_once.add(key)
        self.most_at_once = max(self.most_at_once, len(self._at_once))

        def finished(result: dict[str, Any]) -> None:
            self._at_once.discard(key)
            self._run.results[key] = result
            done(result)

        self._slots.submit(space, candidate, split, finished)

    def cancel(self, space: int) -> None:
        self._slots.cancel(space)


def explore(
    run: Run,
    spaces: list[tuple[list[Any], int]],
    score: Callable[[dict[str, Any], int], float],
    *,
    slots: int = 3,
    n_splits: int = 1,
    settings: Mapping[str, Any] = QUICK,
    seconds: Callable[[int, int], float] = lambda *_: 0.002,
    fails: Exception | None = None,
    **options: Any,
) -> tuple[list[Space], RecalledSlots]:
    """Explore dimensions with their number of candidates, on simulated slots."""
    explored = []
    for index, (dimensions, n_iter) in enumerate(spaces):
        optimizer = Optimizer(dimensions, random_state=index, **settings)
        names = [f"x{place}" for place in range(len(dimensions))]
        asker = Asker(index, optimizer)
        explored.append(Space(index, names, n_iter, optimizer, asker))
    candidates: list[dict[str, Any]] = []

    def result(candidate: int, split: int) -> Any:
        if fails is not None:
            return fails
        value = score(candidates[candidate], split)
        return {"test_scores": value, "fit_time": 0.002, "score_time": 0.0}

    with SimulatedSlots(slots, seconds=seconds, result=result) as simulated:
        recalled = RecalledSlots(run, simulated)
        Explorer(
            explored,
            recalled,
            n_splits=n_splits,
            open_candidate=candidates.append,
            value=lambda found: -sum(one["test_scores"] for one in found) / len(found),
            asks=run,
            **options,
        ).run()
    return explored, recalled
