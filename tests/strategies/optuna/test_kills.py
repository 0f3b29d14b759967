"""Kills a part of a running search of Optuna's at a random moment, and goes on.

Each case has a seed of its own, its name. Most are slow; one of each part and kind of
search always runs.
"""

from __future__ import annotations

import os
import random
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from optuna.distributions import FloatDistribution
from optuna.pruners import MedianPruner
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import StratifiedKFold
from skopt import BayesSearchCV
from skopt.space import Real

from dask_hpsearch import DaskSearchCV, SearchRun
from dask_hpsearch.exceptions import ClientClosedError
from dask_hpsearch.journal.events import AskEvent
from dask_hpsearch.slots.plugin import slot_pids
from tests.estimators import Deed, flowers, seen
from tests.processes import wait_until
from tests.runs.deployment import Deployment, deployed
from tests.runs.kills import (
    driver_of,
    fit_in_thread,
    kill,
    kill_driver,
    places,
    store_at,
)
from tests.strategies.optuna.searches import optuna_search, study_with

if TYPE_CHECKING:
    from collections.abc import Iterable
    from concurrent.futures import Future
    from pathlib import Path


X, y = flowers()
N_TRIALS, N_SPLITS = 24, 2
FIT_S = 0.3
UNFLUSHED_S = 2.0
ALL_FITS = N_TRIALS * N_SPLITS
FOLDS = list(StratifiedKFold(N_SPLITS).split(X, y))
# By the data that a fit sees: its split.
SPLITS = {
    zlib.crc32(X[train].tobytes()): split for split, (train, _) in enumerate(FOLDS)
}
KINDS = ("splits", "steps", "sampler")

Fit = tuple[float, int]


class SlowSGD(SGDClassifier):
    """Takes a while for each step."""

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> SlowSGD:
        time.sleep(FIT_S / 4)
        super().partial_fit(X, y, classes=classes)
        return self


def search_of(kind: str, log: str) -> Any:
    """Make a search of 24 candidates: a study, one that trains by steps, or skopt's."""
    options = {"cv": N_SPLITS, "random_state": 0, "refit": False}
    deed = Deed(log=log, seconds=FIT_S, client=os.getpid())
    if kind == "sampler":
        space = {"number": Real(0, 70)}
        return BayesSearchCV(deed, space, n_iter=N_TRIALS, **options)
    if kind == "splits":
        return optuna_search(
            deed, {"number": FloatDistribution(0, 70)}, n_trials=N_TRIALS, **options
        )
    study = study_with(pruner=MedianPruner(n_startup_trials=4))
    return optuna_search(
        SlowSGD(random_state=0),
        {"alpha": FloatDistribution(1e-8, 1e3, log=True)},
        n_trials=N_TRIALS,
        study=study,
        enable_pruning=True,
        max_iter=4,
        **options,
    )


@dataclass(frozen=True, slots=True)
class Known:
    """What a run's journal knows: candidates in order, and the scores of their splits."""

    numbers: list[float]
    scores: dict[Fit, float]


def known_of(run: SearchRun) -> Known:
    """Read a run's journal."""
    asks = [one for one in run._reader.events() if isinstance(one, AskEvent)]
    asks.sort(key=lambda one: one.candidate)
    table = run.trials()
    scores = {}
    for row in table.to_dict("records"):
        (number,) = (row[name] for name in row if name.startswith("param_"))
        for split in range(N_SPLITS):
            score = row.get(f"split{split}_test_score", np.nan)
            if np.isfinite(score):
                scores[number, split] = score
    return Known([only(one.params) for one in asks], scores)


def only(params: dict[str, Any]) -> float:
    """Return the value of the only parameter."""
    (value,) = params.values()
    return float(value)


@dataclass
class Case:
    """One search, where it runs, and when it is disturbed."""

    kind: str
    log: str
    where: Deployment
    store: str
    chance: random.Random
    search: Any = field(init=False)

    def __post_init__(self) -> None:
        self.search = search_of(self.kind, self.log)

    def _own(self) -> DaskSearchCV:
        sampler = "tpe" if self.kind == "sampler" else None
        return DaskSearchCV(
            self.search, client=self.where.client, store=self.store, sampler=sampler
        )

    def submit(self) -> SearchRun:
        """Fit in a driver's process."""
        return self._own().submit(X, y)

    def fit(self) -> tuple[SearchRun, Future[DaskSearchCV]]:
        """Fit in a thread of this process."""
        return fit_in_thread(self._own(), X, y)

    def wait_for_the_moment(self, run: SearchRun) -> Known:
        """Wait until up to half of the candidates were asked for; return what is known."""
        number = self.chance.randrange(1, N_TRIALS // 2)
        wait_until(lambda: len(known_of(run).numbers) >= number)
        time.sleep(self.chance.uniform(0, FIT_S))
        return known_of(run)

    def check(
        self, result: Any, before: Known, killed_at: float, *, at_most: int = ALL_FITS
    ) -> None:
        """Assert that the search is whole, keeps what was known, and what ran again.

        Parameters
        ----------
        result : object
            The fitted search.
        before : Known
            What the run showed before.
        killed_at : float
        at_most : int
            Fits that may have run again.
        """
        numbers, scores = candidates_of(result)
        assert len(set(numbers)) == len(numbers) == N_TRIALS
        assert set(before.numbers) <= set(numbers)
        assert before.scores.items() <= scores.items()
        if self.kind == "steps":
            states = [trial.state.name for trial in result.study_.trials]
            assert set(states) <= {"COMPLETE", "PRUNED"}
            return
        for number in numbers:
            model = Deed(number)
            for split, (train, test) in enumerate(FOLDS):
                score = model.fit(X[train], y[train]).score(X[test], y[test])
                assert scores[number, split] == score
        begun = Counter(fits_of(seen(self.log, "start")))
        assert set(begun) == {(one, i) for one in numbers for i in range(N_SPLITS)}
        again = {fit for fit, times in begun.items() if times > 1}
        assert len(again) <= at_most
        ended = fits_of(
            one for one in seen(self.log, "end") if one["t"] < killed_at - UNFLUSHED_S
        )
        assert not again & {*before.scores, *ended}


def candidates_of(result: Any) -> tuple[list[float], dict[Fit, float]]:
    """Return the candidates of a fitted search in order, and the scores of their splits."""
    if isinstance(result, BayesSearchCV):
        found = result.cv_results_
        rows = [
            (only(params), {name: found[name][row] for name in found})
            for row, params in enumerate(found["params"])
        ]
    else:
        rows = [(only(trial.params), trial.user_attrs) for trial in result.trials_]
    scores = {
        (number, split): row[f"split{split}_test_score"]
        for number, row in rows
        for split in range(N_SPLITS)
        if f"split{split}_test_score" in row
    }
    return [number for number, _ in rows], scores


def fits_of(entries: Iterable[dict[str, Any]]) -> list[Fit]:
    """Candidate and split of every entry."""
    return [(entry["number"], SPLITS[entry["data"]]) for entry in entries]


@pytest.fixture(params=places(KINDS))
def place(
    request: pytest.FixtureRequest, gcs_bucket: str, tmp_path: Path
) -> tuple[str, str]:
    """A kind of search and a store."""
    kind, where, _ = request.param
    return kind, store_at(where, tmp_path, gcs_bucket)


@pytest.fixture
def case(
    request: pytest.FixtureRequest,
    place: tuple[str, str],
    where: Deployment,
    tmp_path: Path,
) -> Case:
    """A search whose moment the seed decides."""
    kind, store = place
    log = str(tmp_path / "fits.log")
    return Case(kind, log, where, store, random.Random(request.node.name))


def test_killing_a_slot_changes_nothing(case: Case) -> None:
    """The fit that it ran is tried once more, and no other."""
    run, found = case.fit()
    before = case.wait_for_the_moment(run)
    (slots,) = case.where.client.run(slot_pids).values()

    killed_at = kill(case.chance.choice(slots))

    case.check(found.result(60).search_, before, killed_at, at_most=1)


def test_killing_a_worker_changes_nothing(case: Case) -> None:
    """Its fits run again elsewhere."""
    run, found = case.fit()
    before = case.wait_for_the_moment(run)

    killed_at = kill(case.where.worker_pid())

    case.check(found.result(60).search_, before, killed_at)


def test_killing_the_driver_interrupts_the_run(case: Case) -> None:
    """Who attaches with a client goes on where the journal ends."""
    run = case.submit()
    before = case.wait_for_the_moment(run)

    killed_at = kill(driver_of(run))
    wait_until(lambda: run.state == "interrupted")
    again = SearchRun.attach(run.url, case.where.client)

    case.check(again.result(60), before, killed_at)


def test_losing_the_scheduler_interrupts_the_run(
    request: pytest.FixtureRequest,
    place: tuple[str, str],
    where: Deployment,
    tmp_path: Path,
) -> None:
    """With another scheduler it goes on."""
    kind, store = place
    chance = random.Random(request.node.name)
    with deployed(tmp_path) as first:
        case = Case(kind, str(tmp_path / "fits.log"), first, store, chance)
        run, found = case.fit() if chance.random() < 1 / 2 else (case.submit(), None)
        before = case.wait_for_the_moment(run)

        killed_at = kill(first.scheduler.pid)
        wait_until(lambda: run.state.has_ended)

    assert run.state == "interrupted"
    if found is not None:
        with pytest.raises(ClientClosedError):
            found.result()
    again = SearchRun.attach(run.url, where.client)
    case.check(again.result(60), before, killed_at)


def test_killing_the_driver_leaves_each_trial_once_in_a_database(
    where: Deployment, tmp_path: Path
) -> None:
    """The next driver goes on with the trials that were running, and repeats no other."""
    log = str(tmp_path / "fits.log")
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    chance = random.Random(0)
    case = Case("splits", log, where, str(tmp_path / "store"), chance)
    pruner = MedianPruner(n_startup_trials=2)
    study = study_with(pruner=pruner, storage=storage)
    case.search.set_params(study=study)
    run = case.submit()
    for _ in range(2):
        before = case.wait_for_the_moment(run)
        # At the moment when the database has a trial, the journal may lack what it has.
        n_ended = len(ended_in(study))
        wait_until(lambda n=n_ended: len(ended_in(study)) > n)

        kill_driver(run)
        run.resume(where.client)

    result = run.result(60)
    trials = study.get_trials()
    assert len(result.trials_) == len(trials) == N_TRIALS
    assert {one.state.name for one in trials} <= {"COMPLETE", "PRUNED"}
    numbers = [only(one.params) for one in trials]
    assert set(before.numbers) <= set(numbers)
    assert len(set(numbers)) == N_TRIALS


def ended_in(study: Any) -> list[Any]:
    """Return the trials of a study that have ended."""
    return [one for one in study.get_trials() if one.state.is_finished()]
