"""What racing saves, and what it loses.

``python -m benchmarks.cases.racing [--tables FOLDER] [--seeds 10] [--slots 8]``: for six real
searches, all scores and times are computed once (some minutes on two cores; the folder keeps
them). Then searches of 100 candidates each, drawn with other seeds, run on simulated slots:
the engine's own queue, order and rule on a clock that jumps. ``--scale 20``: fits take 20
times as long, as with more data. ``--real`` runs two of the searches on a cluster of this
machine, with racing and without.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from distributed import Client
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import RandomizedSearchCV

from benchmarks.cases.racing_tables import Table, searches, tables
from dask_hpsearch import DaskSearchCV, local_cluster
from dask_hpsearch.engine.policy import most_in_flight
from dask_hpsearch.engine.racing import Race
from dask_hpsearch.engine.tasks import TaskGroup
from dask_hpsearch.engine.waiting_tasks import WaitingTasks

N_CANDIDATES, N_SLOTS = 100, 8
HANDOVER_S = 0.01  # from the end of a batch to the next one's begin, through the client
BATCH_S = 0.002  # what a batch costs in its slot
REAL = ("SVC, digits", "forest, breast cancer")


@dataclass(eq=False, slots=True)
class Fit:
    """A fit as the engine's queue sees it."""

    candidate: int
    split: int
    n_splits: int
    parameters: dict[str, Any]
    seconds: float
    steps_group: int | None = None
    deaths: int = 0


@dataclass(frozen=True, slots=True)
class Search:
    """A search of a table's candidates that has ended.

    Attributes
    ----------
    seconds : float
    n_fits : int
    best : int
        The best complete candidate.
    """

    seconds: float
    n_fits: int
    best: int


class SimulatedEngine:
    """The engine's queue, order and rule, on slots that need no time.

    Parameters
    ----------
    table : Table
    drawn : list of int
        Candidates of the table, in the order of the search.
    racing : bool
    slots : int
    """

    def __init__(
        self, table: Table, drawn: list[int], *, racing: bool, slots: int = N_SLOTS
    ) -> None:
        self._table, self._drawn, self._slots = table, drawn, slots
        self._n_splits = table.scores.shape[1]
        self._race = Race(self._n_splits, n_candidates=len(drawn)) if racing else None
        self._group = TaskGroup(waiting=WaitingTasks(self._race))
        self._free = [0.0] * slots
        self._events: list[tuple[float, int, list[Any]]] = []
        self._numbers = itertools.count()
        self._finished: Counter[int] = Counter()
        self._now = 0.0
        for place, split in itertools.product(range(len(drawn)), range(self._n_splits)):
            parameters = table.parameters[drawn[place]]
            seconds = float(table.seconds[drawn[place], split])
            fit = Fit(place, split, self._n_splits, parameters, seconds)
            self._group.waiting.append(fit)

    def run(self) -> Search:
        """Run the search to its end."""
        waiting = self._group.waiting
        while waiting or self._events:
            self._fill_slots()
            self._now, _, batch = heapq.heappop(self._events)
            self._group.in_flight -= 1
            for fit in batch:
                self._take(fit)
            if self._race is not None and self._race.is_over:
                break
            if waiting.can_learn:
                waiting.learn()
        complete = sorted(
            one for one, fits in self._finished.items() if fits == self._n_splits
        )
        rows = [self._drawn[one] for one in complete]
        means = self._table.scores[rows].mean(axis=1)
        best = rows[int(np.argmax(means))]
        return Search(self._now, self._finished.total(), best)

    def _fill_slots(self) -> None:
        group = self._group
        while group.waiting and group.in_flight < most_in_flight(self._slots):
            if not group.may_begin(self._slots):
                return
            batch: list[Any] = group.take_batch(self._slots)
            group.in_flight += 1
            begins = max(heapq.heappop(self._free), self._now + HANDOVER_S)
            ends = begins + BATCH_S + sum(fit.seconds for fit in batch)
            heapq.heappush(self._free, ends)
            heapq.heappush(self._events, (ends, next(self._numbers), batch))

    def _take(self, fit: Any) -> None:
        self._finished[fit.candidate] += 1
        self._group.took(fit, fit.seconds)
        if self._race is not None:
            score = float(self._table.scores[self._drawn[fit.candidate], fit.split])
            self._race.add(fit.candidate, fit.split, score)
            for beaten in self._race.beaten():
                self._group.waiting.drop(beaten)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A search with racing against the same one without.

    Attributes
    ----------
    time, fits : float
        Over those of the whole search.
    same, as_good : bool
        Whether the best candidate is the same, or one with the same score.
    loss : float
        What the best score lost, in standard deviations of its splits.
    """

    time: float
    fits: float
    same: bool
    as_good: bool
    loss: float


def compare(table: Table, *, seed: int, slots: int) -> Comparison:
    """Draw a search with a seed, and run it in both ways."""
    drawn = random.Random(seed).sample(range(len(table.parameters)), N_CANDIDATES)
    whole, raced = (
        SimulatedEngine(table, drawn, racing=racing, slots=slots).run()
        for racing in (False, True)
    )
    means, deviations = table.scores.mean(axis=1), table.scores.std(axis=1)
    lost = float(means[whole.best] - means[raced.best])
    deviation = max(float(deviations[whole.best]), 1e-12)
    return Comparison(
        time=raced.seconds / whole.seconds,
        fits=raced.n_fits / whole.n_fits,
        same=raced.best == whole.best,
        as_good=lost == 0,
        loss=lost / deviation,
    )


def row(name: str, found: list[Comparison]) -> str:
    """Return a line of the table."""
    times = [one.time for one in found]
    losses = [one.loss for one in found]
    return (
        f"| {name} | {np.mean(times):.2f} ({min(times):.2f} to {max(times):.2f}) | "
        f"{np.mean([one.fits for one in found]):.2f} | "
        f"{100 * np.mean([one.same for one in found]):.0f} % | "
        f"{100 * np.mean([one.as_good for one in found]):.0f} % | "
        f"{np.mean(losses):.4f} | {max(losses):.3f} |"
    )


def real(client: Client, name: str, *, seed: int, racing: bool) -> tuple[float, Any]:
    """Return the seconds of a real search of 40 candidates, and the fitted search."""
    estimator, space, (X, y) = searches()[name]
    search = RandomizedSearchCV(
        estimator, space, n_iter=40, cv=5, random_state=seed, refit=False
    )
    with tempfile.TemporaryDirectory() as store, warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        ours = DaskSearchCV(search, client=client, store=store, racing=racing)
        began = time.perf_counter()
        ours.fit(X, y)
        return time.perf_counter() - began, ours


def run_real(seeds: int) -> None:
    """Run searches on a cluster of this machine, with racing and without."""
    with (
        local_cluster(1, 2, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        for name in REAL:
            for seed in range(seeds):
                whole_s, whole = real(client, name, seed=seed, racing=False)
                raced_s, raced = real(client, name, seed=seed, racing=True)
                same = whole.best_params_ == raced.best_params_
                print(
                    f"{name}, seed {seed}: {whole_s:.1f} s whole, {raced_s:.1f} s with "
                    f"racing, ratio {raced_s / whole_s:.2f}; "
                    f"{len(raced.dropped_['params'])} of 40 dropped; best candidate "
                    f"{'the same' if same else 'another'}, score lost "
                    f"{whole.best_score_ - raced.best_score_:.4f}",
                    flush=True,
                )


def main() -> None:
    """Print a row for each search and number of splits."""
    parser = argparse.ArgumentParser(description=__doc__)
    folder = Path(tempfile.gettempdir()) / "dask-hpsearch-racing"
    parser.add_argument("--tables", type=Path, default=folder)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--slots", type=int, default=N_SLOTS)
    parser.add_argument(
        "--scale", type=float, default=1.0, help="fits take so much longer"
    )
    parser.add_argument("--real", type=int, default=0, metavar="SEEDS")
    options = parser.parse_args()
    if options.real:
        run_real(options.real)
        return
    options.tables.mkdir(parents=True, exist_ok=True)
    print("| search | time | fits | same best | as good | mean loss | largest loss |")
    print("|---|---|---|---|---|---|---|")
    by_splits: dict[int, list[Comparison]] = {}
    for stored in tables(options.tables, n_jobs=options.jobs):
        table = replace(stored, seconds=options.scale * stored.seconds)
        found = [
            compare(table, seed=seed, slots=options.slots)
            for seed in range(options.seeds)
        ]
        n_splits = table.scores.shape[1]
        by_splits.setdefault(n_splits, []).extend(found)
        print(row(f"{table.name}, {n_splits} splits", found), flush=True)
    for n_splits, found in sorted(by_splits.items()):
        print(row(f"all, {n_splits} splits", found))


if __name__ == "__main__":
    main()
