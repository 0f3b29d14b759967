"""Eight searches with fixed results: runs whose journals were written by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.dummy import DummyClassifier
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import SearchRun
from dask_hpsearch.data import DataStore
from dask_hpsearch.journal.events import (
    BestCandidate,
    CallEvent,
    ClusterUsage,
    DriverProcess,
    DropEvent,
    FitEvent,
    HeartbeatEvent,
    StateEvent,
)
from dask_hpsearch.journal.run_state import RunState
from dask_hpsearch.journal.segments import write_once
from dask_hpsearch.journal.serialization import digest_of
from tests.runs.recorded import begun, new_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dask_hpsearch.journal.events import Event

BEGIN = 1_800_000_000.0
N_SPLITS = 5


@dataclass
class Literal:
    """A search whose results are written down.

    ``score(params, split)`` is a number, a dict of numbers, or None for a failed fit.
    """

    params: list[dict[str, Any]]
    score: Any
    refit: str | None = None
    n_splits: int = N_SPLITS
    slots: int = 4
    seconds: Any = lambda params, split: 20.0 + 3 * split
    rungs: list[list[int]] | None = None
    dropped: dict[int, int] = field(default_factory=dict)
    finished: int | None = None
    end: RunState | None = RunState.FINISHED
    sizes: list[tuple[float, int, int]] = field(default_factory=list)

    def run(self) -> SearchRun:
        """Write a run with a journal; nothing was ever fitted."""
        scoring = None if self.refit is None else [self.refit, "roc_auc"]
        search = GridSearchCV(
            DummyClassifier(),
            {"strategy": ["prior"]},
            scoring=scoring,
            refit=self.refit or True,
        )
        with DataStore() as data_store:
            folder = begun(search, [[0.0]], [0], new_store(), data_store)
        events = sorted(self.events(), key=lambda event: event.time)
        write_once(folder.store, folder.run_id, folder.signing_key(), events)
        return SearchRun(folder)

    def cv_results(self) -> dict[str, Any]:
        """Return the columns that scikit-learn would have made of all candidates."""
        rows = [(rung, one) for rung, ones in enumerate(self.calls()) for one in ones]
        results: dict[str, Any] = {"params": [self.params[one] for _, one in rows]}
        if self.rungs is not None:
            results["iter"] = [rung for rung, _ in rows]
            results["n_resources"] = [30 * 3**rung for rung, _ in rows]
        first = self.score(self.params[0], 0)
        names = list(first) if isinstance(first, dict) else ["score"]
        for name in names:
            scores = np.array(
                [
                    [
                        self.value(one, split, rung, name)
                        for split in range(self.n_splits)
                    ]
                    for rung, one in rows
                ]
            )
            for split in range(self.n_splits):
                results[f"split{split}_test_{name}"] = scores[:, split]
            results[f"mean_test_{name}"] = scores.mean(axis=1)
        return results

    def calls(self) -> list[list[int]]:
        """Return the candidates of each call."""
        return self.rungs or [list(range(len(self.params)))]

    def value(self, candidate: int, split: int, rung: int, name: str) -> float:
        """Return one score; NaN for a failed fit."""
        found = self.score(self.params[candidate], split)
        if isinstance(found, dict):
            found = found[name]
        if found is None:
            return math.nan
        return found - 0.1 / 3**rung if self.rungs is not None else found

    def events(self) -> Iterator[Event]:
        """Yield the events of the journal."""
        process = DriverProcess(
            driver="first", host="nowhere", pid=1, started=BEGIN, own=True
        )
        now, n_finished = BEGIN, 0
        yield StateEvent(
            generation=0, time=now, state=RunState.RUNNING, process=process
        )
        for rung, candidates in enumerate(self.calls()):
            extra = {}
            if self.rungs is not None:
                extra = {
                    "iter": [rung] * len(candidates),
                    "n_resources": [30 * 3**rung] * len(candidates),
                }
            yield CallEvent(
                generation=0,
                time=now,
                call=rung,
                n_splits=self.n_splits,
                params=[self.params[one] for one in candidates],
                extra=extra,
            )
            free = [now] * self.slots
            for place, candidate in enumerate(candidates):
                for split in range(self.dropped.get(candidate, self.n_splits)):
                    if n_finished == self.finished:
                        break
                    n_finished += 1
                    slot, begin = self.next_slot(free)
                    fit = self.fit(rung, place, candidate, split, begin)
                    free[slot] = fit.time + 1.0
                    yield fit
                if candidate in self.dropped:
                    yield DropEvent(
                        generation=0,
                        time=max(free),
                        call=rung,
                        candidate=place,
                        digest=digest_of(self.params[candidate]),
                    )
            now = max(free)
        for seconds, workers, slots in self.sizes:
            usage = ClusterUsage(workers=workers, slots=slots, running=slots)
            yield HeartbeatEvent(generation=0, time=BEGIN + seconds, usage=usage)
        if self.end is not None:
            yield StateEvent(
                generation=0,
                time=now,
                state=self.end,
                process=process,
                best=BestCandidate(),
            )

    def next_slot(self, free: list[float]) -> tuple[int, float]:
        """Return the slot that is free first, of those that there are then, and when."""
        begins = [self.begin_of(slot, seconds) for slot, seconds in enumerate(free)]
        begin = min(begins)
        return begins.index(begin), begin

    def begin_of(self, slot: int, seconds: float) -> float:
        """Return when a slot that is free can begin a fit, while it is there."""
        begin = math.inf if self.sizes else seconds
        noted = [-math.inf, *(BEGIN + one[0] for one in self.sizes[1:]), math.inf]
        for place, (_, _, slots) in enumerate(self.sizes):
            if slot < slots and noted[place + 1] > seconds:
                return max(seconds, noted[place])
        return begin

    def fit(
        self, call: int, place: int, candidate: int, split: int, begin: float
    ) -> FitEvent:
        """Return one finished fit."""
        params = self.params[candidate]
        seconds = self.seconds(params, split)
        found = self.score(params, split)
        names = list(found) if isinstance(found, dict) else None
        values = {
            name: self.value(candidate, split, call, name)
            for name in names or ["score"]
        }
        return FitEvent(
            generation=0,
            time=begin + seconds + 1.0,
            call=call,
            candidate=place,
            split=split,
            digest=digest_of(params),
            result={
                "test_scores": values if names else values["score"],
                "fit_time": float(seconds),
                "score_time": 1.0,
                "fit_error": "ValueError: no" if found is None else None,
            },
        )


def wave(*values: float) -> float:
    """Return a number between -1 and 1 that looks like noise."""
    return math.sin(
        sum((place + 1) * 12.9898 * one for place, one in enumerate(values))
    )


def spread(place: int, step: float) -> float:
    """Return numbers that fill the range from 0 to 1."""
    return place * step % 1


def forest_params(n_candidates: int) -> list[dict[str, Any]]:
    """Return candidates with parameters of all kinds."""
    return [
        {
            "model__learning_rate": float(10 ** (-3 + 3 * spread(one, 0.618))),
            "model__max_depth": int(2 + 10 * spread(one, 0.414)),
            "model__max_features": ["sqrt", "log2", None][one * 7 % 3],
            "model__subsample": round(0.4 + 0.6 * spread(one, 0.732), 3),
        }
        for one in range(n_candidates)
    ]


def forest_score(params: dict[str, Any], split: int) -> float:
    """Return a score with a best learning rate and depth, and noise."""
    rate = math.log10(params["model__learning_rate"])
    depth = params["model__max_depth"]
    features = 0.01 if params["model__max_features"] == "sqrt" else 0.0
    noise = 0.008 * wave(rate, depth) + 0.012 * wave(split) + 0.003 * wave(rate, split)
    return 0.93 - 0.05 * (rate + 1.2) ** 2 - 0.001 * (depth - 8) ** 2 + features + noise


def svc_params() -> list[dict[str, Any]]:
    """Return a grid over two logarithmic parameters and a categorical one."""
    return [
        {"C": C, "gamma": gamma, "kernel": kernel}
        for C in (0.1, 1.0, 10.0, 100.0)
        for gamma in (0.001, 0.01, 0.1)
        for kernel in ("linear", "rbf")
    ]


def svc_score(params: dict[str, Any], split: int) -> float:
    """Return a score with a best C and gamma."""
    C, gamma = math.log10(params["C"]), math.log10(params["gamma"])
    bend = 0.03 * (gamma + 2) ** 2 if params["kernel"] == "rbf" else 0.04
    noise = 0.01 * wave(split) + 0.004 * wave(C, gamma, split)
    return 0.95 - 0.02 * (C - 1) ** 2 - bend + noise


def two_scores(params: dict[str, Any], split: int) -> dict[str, float]:
    """Return two scores."""
    accuracy = svc_score(params, split)
    return {"accuracy": accuracy, "roc_auc": 1 - (1 - accuracy) ** 1.2}


def failing_score(params: dict[str, Any], split: int) -> float | None:
    """Fail for a large learning rate; learn nothing for a tiny one."""
    rate = params["model__learning_rate"]
    if rate > 0.5:
        return None
    return -3.0 if rate < 0.0015 else forest_score(params, split)


def bayes_params() -> list[dict[str, Any]]:
    """Return candidates that gather around the best one."""
    return [
        {
            "alpha": float(
                10 ** (-4 + 4 * spread(one, 0.618) / (1 + one / 8) + one / 20)
            ),
            "l1_ratio": round(0.5 + 0.5 * wave(one) / (1 + one / 8), 3),
        }
        for one in range(30)
    ]


def bayes_score(params: dict[str, Any], split: int) -> float:
    """Return a negative error, as regressions have it."""
    alpha = math.log10(params["alpha"])
    return (
        -12.0
        - 1.5 * (alpha + 2.2) ** 2
        - 4 * (params["l1_ratio"] - 0.5) ** 2
        + 0.8 * wave(split)
        + 0.3 * wave(alpha, split)
    )


SEARCHES: dict[str, Literal] = {
    "grid": Literal(svc_params(), svc_score, sizes=[(5.0, 2, 4)]),
    "randomized": Literal(
        forest_params(40),
        forest_score,
        dropped={one: 1 + one % 3 for one in range(9, 40, 4)},
        sizes=[(5.0, 2, 4), (600.0, 2, 4)],
    ),
    "halving": Literal(
        forest_params(27),
        forest_score,
        rungs=[list(range(27)), list(range(0, 27, 3)), [0, 9, 12]],
        n_splits=3,
        sizes=[(5.0, 2, 4)],
    ),
    "bayes": Literal(bayes_params(), bayes_score, sizes=[(5.0, 2, 4)]),
    "multimetric": Literal(
        svc_params(), two_scores, refit="accuracy", sizes=[(5.0, 2, 4)]
    ),
    "failing": Literal(forest_params(40), failing_score, sizes=[(5.0, 2, 4)]),
    "running": Literal(
        forest_params(40),
        forest_score,
        finished=83,
        end=None,
        sizes=[(-1.0, 1, 2), (60.0, 2, 4), (300.0, 1, 2), (380.0, 2, 4)],
    ),
    "stopped": Literal(
        forest_params(40),
        forest_score,
        finished=57,
        end=RunState.STOPPED,
        sizes=[(5.0, 2, 4)],
    ),
}
