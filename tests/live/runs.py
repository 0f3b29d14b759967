"""Runs whose journals are written by hand, as far as a test wants them to have come."""

from __future__ import annotations

import math
import os
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sklearn.dummy import DummyClassifier
from sklearn.model_selection import RandomizedSearchCV

from dask_hpsearch.data import DataStore
from dask_hpsearch.journal.contents import split_events, to_lines
from dask_hpsearch.journal.events import (
    BestCandidate,
    CallEvent,
    ClusterUsage,
    DropEvent,
    FitEvent,
    HeartbeatEvent,
    StateEvent,
)
from dask_hpsearch.journal.run_state import RunState
from dask_hpsearch.journal.serialization import digest_of
from dask_hpsearch.runs.create import Work, create_run
from dask_hpsearch.runs.driver_process import describe_process
from dask_hpsearch.runs.run import SearchRun
from dask_hpsearch.security import signing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dask_hpsearch.journal.events import Event
    from dask_hpsearch.journal.folder import RunFolder
    from dask_hpsearch.stores import Store

N_SPLITS = 5


@dataclass
class WrittenRun:
    """A run with a journal that a test writes, event by event.

    The process of the test counts as its driver.
    """

    store: Store
    n_candidates: int = 40
    name: str | None = "churn"
    seconds: float = 0.4
    seed: int = 0
    began: float = field(default_factory=time.time)
    failing: frozenset[int] = frozenset()
    dropped: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        search = RandomizedSearchCV(
            DummyClassifier(), {"strategy": ["prior"]}, n_iter=1
        )
        with DataStore(self.store.local_path()) as data_store:
            self.folder: RunFolder = create_run(
                Work(search, [[0.0]], [0], {}),
                store=self.store,
                data_store=data_store,
                task_name=self.name,
                settings={},
            )
        self._written = 0
        self._random = random.Random(self.seed)
        self.params = [self._draw() for _ in range(self.n_candidates)]
        self.process = describe_process(f"driver-{self.seed}", os.getpid(), own=True)

    def _draw(self) -> dict[str, Any]:
        draw = self._random
        return {
            "histgradientboostingclassifier__learning_rate": round(
                10 ** draw.uniform(-3, 0), 5
            ),
            "histgradientboostingclassifier__max_leaf_nodes": draw.choice([15, 31, 63]),
            "histgradientboostingclassifier__l2_regularization": round(
                10 ** draw.uniform(-4, 1), 6
            ),
            "standardscaler__with_mean": draw.random() > 0.5,
        }

    @property
    def run(self) -> SearchRun:
        """A new handle on it."""
        return SearchRun(self.folder)

    def score(self, candidate: int, split: int) -> float:
        """Return a score that has an optimum."""
        values = list(self.params[candidate].values())
        rate, leaves = math.log10(values[0]), values[1]
        noise = random.Random(1000 * candidate + split).gauss(0, 0.004)
        bonus = 0.004 * (leaves == 31) - 0.003 * abs(math.log10(values[2]) + 1)
        return 0.955 - 0.03 * (rate + 1.2) ** 2 + bonus + noise

    def events(self, n_candidates: int, first: int = 0) -> list[Event]:
        """Return the events of some candidates, one second apart at most."""
        events: list[Event] = []
        for candidate in range(first, first + n_candidates):
            ends = self.began + (candidate + 1) * self.seconds
            digest = digest_of(self.params[candidate])
            n_splits = 2 if candidate in self.dropped else N_SPLITS
            for split in range(n_splits):
                failed = candidate in self.failing
                score = math.nan if failed else self.score(candidate, split)
                events.append(
                    FitEvent(
                        generation=0,
                        time=ends - 0.01 * (N_SPLITS - split),
                        call=0,
                        candidate=candidate,
                        split=split,
                        digest=digest,
                        result={
                            "test_scores": score,
                            "fit_time": 0.8 * self.seconds,
                            "score_time": 0.1 * self.seconds,
                            "fit_error": "ValueError: no" if failed else None,
                        },
                    )
                )
            if candidate in self.dropped:
                events.append(
                    DropEvent(
                        generation=0,
                        time=ends,
                        call=0,
                        candidate=candidate,
                        digest=digest,
                    )
                )
        return events

    def begin(self, **usage: Any) -> WrittenRun:
        """Write that a driver runs, and its candidates."""
        call = CallEvent(
            generation=0,
            time=self.began,
            call=0,
            n_splits=N_SPLITS,
            params=self.params,
            extra={},
        )
        self.write([self._state(RunState.RUNNING), call])
        if usage:
            self.beat(**usage)
        return self

    def beat(self, *, cost_usd: float | None = None, **usage: Any) -> None:
        """Write a heartbeat."""
        sizes = {"workers": 2, "slots": 8, "running": 7} | usage
        event = HeartbeatEvent(
            generation=0,
            time=time.time(),
            usage=ClusterUsage(**sizes),
            cost_usd=cost_usd,
        )
        self.write([event])

    def finish_candidates(self, n_candidates: int, first: int = 0) -> None:
        """Write the fits of some candidates."""
        self.write(self.events(n_candidates, first))

    def end(self, state: RunState = RunState.FINISHED, **more: Any) -> None:
        """Write how the driver ended."""
        best = None
        if state.has_result:
            snapshot = self.run.progress()
            params = snapshot.best_params
            best = BestCandidate(
                score=snapshot.best_score,
                params=None if params is None else dict(params),
            )
        self.write([self._state(state, best=best, **more)])

    def _state(self, state: RunState, **more: Any) -> StateEvent:
        return StateEvent(
            generation=0,
            time=self.began if state == RunState.RUNNING else time.time(),
            state=state,
            process=self.process,
            **more,
        )

    def write(self, events: Sequence[Event]) -> None:
        """Append events, fits as columns, as a driver does."""
        name = f"journal/{self.seed:012x}-{self._written:06d}"
        self._written += 1
        plain, columns = split_events(list(events))
        content = b"\n".join([*to_lines(plain), *columns])
        folder = self.folder
        sealed = signing.seal(folder.signing_key(), folder.run_id, name, content)
        folder.store.create(name, sealed)
