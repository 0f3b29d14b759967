"""Kills a part of a running search that Optuna steers, and goes on.

An OptunaSearchCV, and a BayesSearchCV with a sampler of Optuna; each with a slot, the worker,
the scheduler and the driver, on a disk and in a bucket. The moment is a seed's, the name of
the case.
"""

from __future__ import annotations

import os
import random
import signal
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from optuna.pruners import MedianPruner
from sklearn.model_selection import StratifiedKFold
from skopt import BayesSearchCV

from dask_hpsearch import DaskSearchCV, SearchRun
from dask_hpsearch.journal.events import AskEvent, FitEvent, StateEvent, TellEvent
from dask_hpsearch.slots.plugin import slot_pids
from tests.estimators import Deed, flowers, seen
from tests.processes import wait_until
from tests.runs.deployment import Deployment, deployed
from tests.strategies.optuna.searches import NUMBERS, optuna_search, study_with

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.gcs.proxy import Proxy

X, y = flowers()
N_TRIALS, N_SPLITS, FIT_S = 40, 3, 0.04
UNFLUSHED_S = 2.0
SPLITS = StratifiedKFold(N_SPLITS)
# The last moments take minutes.
MOMENTS = [
    ("file", 0),
    ("gs", 0),
    *(
        pytest.param((kind, moment), marks=pytest.mark.slow)
        for kind, moments in (("file", range(1, 7)), ("gs", range(1, 5)))
        for moment in moments
    ),
]


@dataclass
class Case:
    """One search, where it runs, and when it is disturbed."""

    kind: str
    folder: Path
    where: Deployment
    store: str
    chance: random.Random
    n_trials: int = N_TRIALS

    def __post_init__(self) -> None:
        self.log = str(self.folder / "fits.log")
        deed = Deed(log=self.log, seconds=FIT_S, client=os.getpid())
        options: dict[str, Any] = {"cv": SPLITS, "random_state": 0, "refit": False}
        if self.kind == "optuna":
            study = study_with(pruner=MedianPruner(n_startup_trials=4))
            options |= {"n_trials": self.n_trials, "study": study}
            self.search = optuna_search(deed, NUMBERS, **options)
            sampler = None
        else:
            space = {"number": (0, 70)}
            self.search = BayesSearchCV(deed, space, n_iter=self.n_trials, **options)
            sampler = "tpe"
        self.ours = DaskSearchCV(
            self.search, client=self.where.client, store=self.store, sampler=sampler
        )

    def submit(self) -> SearchRun:
        return self.ours.submit(X, y)

    def wait_for_the_moment(self) -> None:
        """Wait until some fits have ended, up to most of them."""
        number = self.chance.randrange(5, 3 * self.n_trials // 2)
        wait_until(lambda: len(seen(self.log, "end")) >= number)

    def check(self, run: SearchRun, before: list[Any], killed_at: float) -> None:
        """Assert that what the journal had before is in the result, and was not repeated.

        Parameters
        ----------
        run : SearchRun
            Goes on, or has gone on.
        before : list of Event
            Those of the journal when a part was killed.
        killed_at : float
        """
        result = run.result(90)
        events = run._reader.events()
        asked = {
            one.candidate: one.params for one in events if isinstance(one, AskEvent)
        }
        assert sorted(asked) == list(range(self.n_trials))
        for one in before:
            if isinstance(one, AskEvent):
                assert asked[one.candidate] == one.params
        fits = Counter(
            (one.candidate, one.split) for one in events if isinstance(one, FitEvent)
        )
        assert max(fits.values()) == 1
        begun_later = Counter(
            entry["number"]
            for entry in seen(self.log, "start")
            if entry["t"] > killed_at
        )
        known = {
            (one.candidate, one.split) for one in before if isinstance(one, FitEvent)
        }
        unknown = Counter(
            asked[candidate]["number"] for candidate, split in fits.keys() - known
        )
        flushed = Counter(
            entry["number"]
            for entry in seen(self.log, "end")
            if killed_at - UNFLUSHED_S < entry["t"]
        )
        # Each fit that began later was missing from the journal, or was just ending.
        assert all(
            begun_later[number] <= unknown[number] + flushed[number] + N_SPLITS
            for number in begun_later
        )
        assert all(unknown[number] for number in begun_later)
        if self.kind == "optuna":
            self._check_trials(result, before)
        else:
            assert len(result.cv_results_["params"]) == self.n_trials
            assert len(result.optimizer_results_[0].x_iters) == self.n_trials

    def _check_trials(self, result: Any, before: list[Any]) -> None:
        states = [trial.state.name for trial in result.trials_]
        assert len(states) == self.n_trials
        assert set(states) <= {"COMPLETE", "PRUNED"}
        for one in before:
            if isinstance(one, TellEvent):
                assert one.trial == states[one.candidate]
                assert one.value == result.trials_[one.candidate].value


def driver_of(run: SearchRun) -> int:
    """Return the process of a run's driver."""
    states = [one for one in run._reader.events() if isinstance(one, StateEvent)]
    return states[-1].process.pid


def kill(pid: int) -> float:
    """Kill a process; return when."""
    os.kill(pid, signal.SIGKILL)
    return time.time()


@pytest.fixture(scope="module")
def where(gcs: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A cluster whose slots and worker may be killed: they come again."""
    with deployed(tmp_path_factory.mktemp("dask")) as deployment:
        yield deployment


@pytest.fixture(params=MOMENTS, ids=lambda place: f"{place[0]}-{place[1]}")
def store(request: pytest.FixtureRequest, gcs_bucket: str, tmp_path: Path) -> str:
    """A store, at one of its moments."""
    kind, _ = request.param
    in_bucket = f"gs://{gcs_bucket}/{uuid.uuid4().hex}"
    return in_bucket if kind == "gs" else str(tmp_path / "store")


@pytest.fixture(params=["optuna", "sampler"])
def case(
    request: pytest.FixtureRequest, store: str, where: Deployment, tmp_path: Path
) -> Case:
    """A search whose moment the seed decides."""
    chance = random.Random(request.node.name)
    return Case(request.param, tmp_path, where, store, chance)


def test_killing_a_slot_changes_nothing(case: Case) -> None:
    """The fit that it ran is tried once more."""
    run = case.submit()
    case.wait_for_the_moment()
    before = run._reader.events()
    (slots,) = case.where.client.run(slot_pids).values()

    killed_at = kill(case.chance.choice(slots))

    case.check(run, before, killed_at)


def test_killing_a_worker_changes_nothing(case: Case) -> None:
    """Its fits run again elsewhere."""
    run = case.submit()
    case.wait_for_the_moment()
    before = run._reader.events()

    killed_at = kill(case.where.worker_pid())

    case.check(run, before, killed_at)


def test_killing_the_driver_interrupts_the_run(case: Case) -> None:
    """Its next driver goes on where the journal ends."""
    run = case.submit()
    case.wait_for_the_moment()

    killed_at = kill(driver_of(run))
    wait_until(lambda: run.state == "interrupted")
    before = run._reader.events()
    again = SearchRun.attach(run.url, case.where.client)

    case.check(again, before, killed_at)


def test_losing_the_scheduler_interrupts_the_run(
    request: pytest.FixtureRequest, store: str, where: Deployment, tmp_path: Path
) -> None:
    """With another scheduler it goes on."""
    with deployed(tmp_path) as first:
        chance = random.Random(request.node.name)
        kind = chance.choice(["optuna", "sampler"])
        case = Case(kind, tmp_path, first, store, chance)
        run = case.submit()
        case.wait_for_the_moment()

        killed_at = kill(first.scheduler.pid)
        wait_until(lambda: run.state.has_ended)

    assert run.state == "interrupted"
    before = run._reader.events()
    again = SearchRun.attach(run.url, where.client)
    case.check(again, before, killed_at)


def test_killing_the_driver_leaves_each_trial_once_in_a_database(
    where: Deployment, tmp_path: Path
) -> None:
    """The next driver goes on with the trials that were running."""
    chance = random.Random(0)
    case = Case("optuna", tmp_path, where, str(tmp_path / "store"), chance, n_trials=10)
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    study = study_with(pruner=MedianPruner(n_startup_trials=2), storage=storage)
    case.search.set_params(study=study)
    run = case.submit()
    case.wait_for_the_moment()

    killed_at = kill(driver_of(run))
    wait_until(lambda: run.state == "interrupted")
    before = run._reader.events()
    case.check(SearchRun.attach(run.url, where.client), before, killed_at)

    trials = study.get_trials()
    assert len(trials) == case.n_trials
    assert {trial.state.name for trial in trials} <= {"COMPLETE", "PRUNED"}
