"""Kills a part of a running Hyperband search at a random moment, and goes on.

Each case has a seed of its own, its name. Most are slow; one of each part, in a folder and in a
bucket, always runs.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from dask_ml.model_selection import HyperbandSearchCV

from dask_hpsearch import DaskSearchCV, SearchRun
from dask_hpsearch.exceptions import ClientClosedError
from dask_hpsearch.slots.plugin import slot_pids
from dask_hpsearch.stores import open_store
from tests.processes import wait_until
from tests.runs.deployment import SLOTS, Deployment, deployed
from tests.runs.kills import driver_of, fit_in_thread, kill, places, store_at
from tests.strategies.incremental.models import Curve, begun_in, calls_in
from tests.strategies.incremental.oracle import (
    fitted_by_dask_ml,
    in_blocks,
    outcome_of,
)

if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path


RNG = np.random.default_rng(1)
DATA = in_blocks(RNG.normal(size=(120, 3)), RNG.integers(0, 2, 120), 30)
SPACE = {"level": RNG.uniform(0.3, 1, 50), "speed": RNG.uniform(0.1, 5, 50)}
N_CALLS = 28
CALL_S = (
    0.4  # each call is a task, and few enough end in a second to be written at once
)
# For so long an outcome is on its way, and its state and its event are being written, on a busy
# machine: calls that had ended before that are not repeated.
UNWRITTEN_S = 2.0


def hyperband(log: str | None = None, seconds: float = 0.0) -> Any:
    """Make a search of 28 calls of partial_fit."""
    model = Curve(log=log, seconds=seconds)
    return HyperbandSearchCV(model, SPACE, max_iter=4, aggressiveness=2, random_state=0)


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    """What an undisturbed search says."""
    return outcome_of(fitted_by_dask_ml(hyperband(), *DATA))


@dataclass
class Case:
    """One search, where it runs, and when it is disturbed."""

    where: Deployment
    store: str
    log: Path
    chance: random.Random
    search: Any = field(init=False)

    def __post_init__(self) -> None:
        self.search = hyperband(str(self.log), CALL_S)

    def _own(self) -> DaskSearchCV:
        return DaskSearchCV(self.search, client=self.where.client, store=self.store)

    def submit(self) -> SearchRun:
        """Fit in a driver's process."""
        return self._own().submit(*DATA)

    def fit(self) -> tuple[SearchRun, Future[DaskSearchCV]]:
        """Fit in a thread of this process."""
        return fit_in_thread(self._own(), *DATA)

    def wait_for_the_moment(self) -> None:
        """Wait until some calls have begun, up to most of them, and a little longer."""
        number = self.chance.randrange(1, N_CALLS - 3)
        wait_until(lambda: sum(calls_in(self.log).values()) >= number)
        time.sleep(self.chance.uniform(0, CALL_S))

    def check(
        self,
        result: Any,
        expected: dict[str, Any],
        killed_at: float,
        *,
        at_most: int | None = None,
    ) -> None:
        """Assert that the result is that of an undisturbed search, and what ran again.

        Parameters
        ----------
        result : object
            The fitted search.
        expected : dict
            What an undisturbed one says.
        killed_at : float
        at_most : int, optional
            Calls that may have run again.
        """
        found = outcome_of(result)
        for outcome in (found, expected):  # the log is a parameter of the models
            outcome["own attributes"] = None
        assert found == expected
        begun = begun_in(self.log)
        assert len(begun) == N_CALLS
        again = [times[0] for times in begun.values() if len(times) > 1]
        assert sum(map(len, begun.values())) == N_CALLS + len(again)
        assert len(again) <= (N_CALLS if at_most is None else at_most)
        assert all(one > killed_at - CALL_S - UNWRITTEN_S for one in again)
        left = [one.name for one in open_store(self.store).list("")]
        assert not [name for name in left if "/models/" in name]


@pytest.fixture(params=places())
def place(
    request: pytest.FixtureRequest, gcs_bucket: str, tmp_path: Path
) -> tuple[str, random.Random]:
    """A store, and what decides the moment."""
    _, place, _ = request.param
    store = store_at(place, tmp_path, gcs_bucket)
    return store, random.Random(request.node.name)


@pytest.fixture
def case(place: tuple[str, random.Random], where: Deployment, tmp_path: Path) -> Case:
    """A search whose moment the seed decides."""
    return Case(where, place[0], tmp_path / "calls.log", place[1])


def test_killing_a_slot_repeats_one_call(case: Case, expected: dict[str, Any]) -> None:
    """From the model's last state; no other model notices."""
    _, found = case.fit()
    case.wait_for_the_moment()
    (slots,) = case.where.client.run(slot_pids).values()

    killed_at = kill(case.chance.choice(slots))

    case.check(found.result(60).search_, expected, killed_at, at_most=1)


def test_killing_a_worker_repeats_its_calls(
    case: Case, expected: dict[str, Any]
) -> None:
    """One for each of its slots, and those whose outcomes had not left it yet."""
    _, found = case.fit()
    case.wait_for_the_moment()

    killed_at = kill(case.where.worker_pid())

    case.check(found.result(60).search_, expected, killed_at, at_most=2 * SLOTS)


def test_killing_the_driver_repeats_its_last_calls(
    case: Case, expected: dict[str, Any]
) -> None:
    """Who attaches with a client goes on from the states that the journal names."""
    run = case.submit()
    case.wait_for_the_moment()

    killed_at = kill(driver_of(run))
    wait_until(lambda: run.state == "interrupted")
    again = SearchRun.attach(run.url, case.where.client)

    case.check(again.result(60), expected, killed_at)


def test_losing_the_scheduler_repeats_the_last_calls(
    place: tuple[str, random.Random],
    where: Deployment,
    tmp_path: Path,
    expected: dict[str, Any],
) -> None:
    """With another scheduler it goes on."""
    with deployed(tmp_path) as first:
        case = Case(first, place[0], tmp_path / "calls.log", place[1])
        run, found = case.fit()
        case.wait_for_the_moment()

        killed_at = kill(first.scheduler.pid)
        wait_until(lambda: run.state.has_ended)

    assert run.state == "interrupted"
    with pytest.raises(ClientClosedError):
        found.result()
    again = SearchRun.attach(run.url, where.client)
    case.check(again.result(60), expected, killed_at)
