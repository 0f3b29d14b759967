"""Kills a part of a running halving search at a random moment, and goes on.

Each case has a seed of its own, its name.
"""

from __future__ import annotations

import os
import random
import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold

from dask_hpsearch import AsyncHalvingSearchCV, DaskSearchCV, SearchRun
from dask_hpsearch.exceptions import ClientClosedError
from dask_hpsearch.journal.events import AskEvent
from dask_hpsearch.slots.plugin import slot_pids
from tests.estimators import flowers
from tests.processes import wait_until
from tests.runs.deployment import Deployment, deployed
from tests.runs.kills import driver_of, fit_in_thread, kill, places, store_at
from tests.strategies.halving.learners import Fit, Learner, fits_of

if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path


X, y = flowers(150)
N_CANDIDATES, N_SPLITS = 27, 2
FIT_S = 0.05
UNFLUSHED = 2 * round(2.0 / FIT_S)  # fits of two slots in two seconds
# By the data that a fit sees: its split.
SPLITS = {
    zlib.crc32(X[train].tobytes()): split
    for split, (train, _) in enumerate(StratifiedKFold(N_SPLITS).split(X, y))
}


@dataclass
class Case:
    """One search, where it runs, and when it is disturbed."""

    folder: Path
    where: Deployment
    store: str
    chance: random.Random

    def __post_init__(self) -> None:
        self.log = self.folder / "fits.log"
        learner = Learner(seconds=FIT_S, log=str(self.log), client=os.getpid())
        self.search = AsyncHalvingSearchCV(
            learner,
            {"number": list(range(40))},
            n_candidates=N_CANDIDATES,
            resource="max_iter",
            max_resources=27,
            cv=N_SPLITS,
            random_state=0,
        )

    def submit(self) -> SearchRun:
        own = DaskSearchCV(self.search, client=self.where.client, store=self.store)
        return own.submit(X, y)

    def fit(self) -> tuple[SearchRun, Future[DaskSearchCV]]:
        """Fit in a thread of this process."""
        own = DaskSearchCV(self.search, client=self.where.client, store=self.store)
        return fit_in_thread(own, X, y)

    def wait_for_the_moment(self) -> None:
        """Wait until some fits have ended, up to most of them."""
        number = self.chance.randrange(4, 60)
        wait_until(lambda: len(fits_of(self.log)) >= number)

    def check(
        self,
        run: SearchRun,
        result: Any,
        before: list[tuple[int, int, dict[str, Any]]],
        shown: set[Fit],
        *,
        at_most: int = UNFLUSHED,
    ) -> None:
        """Assert that decisions were kept, and that shown fits did not run again.

        Parameters
        ----------
        run : SearchRun
        result : object
            The fitted search.
        before : list of (rung, place, params)
            Promotions that the journal had.
        shown : set of Fit
            What it had as finished.
        at_most : int
            Fits that may have run again.
        """
        results = result.cv_results_
        assert promotions_of(run)[: len(before)] == before
        for rung, place, params in before:
            on_rung = np.flatnonzero(results["iter"] == rung)
            assert results["params"][on_rung[place]] == params
        fits = {
            fit: times for fit, times in fits_of(self.log).items() if fit[1] in SPLITS
        }
        again = {fit for fit, times in fits.items() if times > 1}
        assert not again & shown
        assert sum(fits.values()) - len(fits) <= at_most
        steps = {(before, after) for _, _, before, after in fits}
        assert steps == {(0, 1), (1, 3), (3, 9), (9, 27)}
        assert len(fits) == N_SPLITS * len(results["params"])
        assert result.best_params_["max_iter"] == 27
        for row, params in enumerate(results["params"]):
            model = Learner(**params).fit(X, y)
            for split, (_, test) in enumerate(StratifiedKFold(N_SPLITS).split(X, y)):
                score = results[f"split{split}_test_score"][row]
                assert score == model.score(X[test], y[test])


def promotions_of(run: SearchRun) -> list[tuple[int, int, dict[str, Any]]]:
    """Return the promotions of a run's journal in order: rung, place, parameters."""
    events = [one for one in run._reader.events() if isinstance(one, AskEvent)]
    return [
        (one.call, one.candidate, one.params)
        for one in sorted(events, key=lambda one: one.time)
    ]


def shown_by(run: SearchRun) -> set[Fit]:
    """Fits that a run shows as finished."""
    resources = {0: 0, 1: 1, 3: 3, 9: 9}
    lower = dict(zip((1, 3, 9, 27), resources, strict=True))
    content_of = {split: data for data, split in SPLITS.items()}
    return {
        (int(row["param_number"]), content_of[split], lower[int(n)], int(n))
        for _, row in run.trials().iterrows()
        for n in [row["n_resources"]]
        for split in range(N_SPLITS)
        if np.isfinite(row.get(f"split{split}_test_score", np.nan))
    }


@pytest.fixture(params=places())
def place(
    request: pytest.FixtureRequest, gcs_bucket: str, tmp_path: Path
) -> tuple[str, int]:
    """A store, and the number of a moment."""
    _, place, moment = request.param
    return store_at(place, tmp_path, gcs_bucket), moment


@pytest.fixture
def case(
    request: pytest.FixtureRequest,
    place: tuple[str, int],
    where: Deployment,
    tmp_path: Path,
) -> Case:
    """A search whose moment the seed decides."""
    store, _ = place
    return Case(tmp_path, where, store, random.Random(request.node.name))


def test_killing_a_slot_changes_nothing(case: Case) -> None:
    """The fit that it ran is tried once more, and no other."""
    run, found = case.fit()
    case.wait_for_the_moment()
    before, shown = promotions_of(run), shown_by(run)
    (slots,) = case.where.client.run(slot_pids).values()

    kill(case.chance.choice(slots))

    case.check(run, found.result(60).search_, before, shown, at_most=1)


def test_killing_a_worker_changes_nothing(case: Case) -> None:
    """Its fits run again elsewhere, from the models that they began with."""
    run, found = case.fit()
    case.wait_for_the_moment()
    before, shown = promotions_of(run), shown_by(run)

    kill(case.where.worker_pid())

    case.check(run, found.result(60).search_, before, shown)


def test_killing_the_driver_interrupts_the_run(case: Case) -> None:
    """Who attaches with a client goes on where the journal ends."""
    run = case.submit()
    case.wait_for_the_moment()
    time.sleep(case.chance.random())
    before, shown = promotions_of(run), shown_by(run)

    kill(driver_of(run))
    wait_until(lambda: run.state == "interrupted")
    again = SearchRun.attach(run.url, case.where.client)

    case.check(run, again.result(60), before, shown)


def test_losing_the_scheduler_interrupts_the_run(
    request: pytest.FixtureRequest,
    place: tuple[str, int],
    where: Deployment,
    tmp_path: Path,
) -> None:
    """With another scheduler it goes on."""
    store, moment = place
    with deployed(tmp_path) as first:
        case = Case(tmp_path, first, store, random.Random(request.node.name))
        run, found = case.fit() if moment % 2 else (case.submit(), None)
        case.wait_for_the_moment()
        before, shown = promotions_of(run), shown_by(run)

        kill(first.scheduler.pid)
        wait_until(lambda: run.state.has_ended)

    assert run.state == "interrupted"
    if found is not None:
        with pytest.raises(ClientClosedError):
            found.result()
    again = SearchRun.attach(run.url, where.client)
    case.check(run, again.result(60), before, shown)
