from __future__ import annotations

import os
import random
import signal
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from distributed import Client, LocalCluster
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import DaskSearchCV, local_cluster
from dask_hpsearch.exceptions import FitKilledError, FitMemoryError, FitTimeoutError
from dask_hpsearch.messages import (
    Batch,
    CallTask,
    Outcome,
    decode_outcomes,
    encode_outcomes,
)
from dask_hpsearch.slots.batch_run import BatchRun
from dask_hpsearch.slots.plugin import slot_pids
from dask_hpsearch.slots.slot import Forkserver
from tests.estimators import Deed, flowers, seen, times_begun
from tests.oracle.structure import difference
from tests.processes import is_alive, parent_of, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

X, y = flowers()
SPLITS = 2
FAULTS = {
    "kill": (FitKilledError, "its process was killed by SIGKILL"),
    "segv": (FitKilledError, "its process was killed by SIGSEGV"),
    "exit": (FitKilledError, "its process ended with exit code 3"),
    "memory": (FitMemoryError, "of memory, more than its slot's share"),
    "hang": (FitTimeoutError, "it ran longer than fit_timeout=2 s"),
}
# A process that dies by a signal may have been somebody else's victim.
TRIED_TWICE = ("kill", "segv")


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """One worker with two slots of half a GiB each."""
    with (
        local_cluster(1, 2, memory_limit="1GiB", dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture
def log(tmp_path: Path) -> str:
    """Where fits note what they do."""
    return str(tmp_path / "fits.log")


def grid(log: str, space: Any, **options: Any) -> GridSearchCV:
    """Make a search over deeds."""
    deed_options = {
        name: options.pop(name) for name in ("seconds", "gate") if name in options
    }
    deed = Deed(log=log, client=os.getpid(), **deed_options)
    return GridSearchCV(deed, space, cv=SPLITS, **options)


def plain(search: GridSearchCV) -> GridSearchCV:
    """Fit in this process, where every deed is harmless."""
    return search.fit(X, y)


@pytest.mark.parametrize("deed", FAULTS)
def test_a_fit_that_is_ended_fails_alone_and_by_name(
    deed: str, client: Client, log: str
) -> None:
    """Its score is error_score, the warning tells all; its neighbours run once.

    It runs once more only if its process was killed.
    """
    _, cause = FAULTS[deed]
    space = [{"number": [0, 1]}, {"number": [2], "deed": [deed]}, {"number": [3, 4]}]
    timeout = {"fit_timeout": 2} if deed == "hang" else {}

    with pytest.warns(FitFailedWarning) as caught:
        found = DaskSearchCV(
            grid(log, space, error_score=-1.0), client=client, **timeout
        ).fit(X, y)

    scores = (
        found.cv_results_["split0_test_score"],
        found.cv_results_["mean_test_score"],
    )
    expected = plain(grid(log, {"number": [0, 1, 3, 4]})).cv_results_
    assert [column[2] for column in scores] == [-1.0, -1.0]
    for column, name in zip(
        scores, ("split0_test_score", "mean_test_score"), strict=True
    ):
        np.testing.assert_array_equal(np.delete(column, 2), expected[name])
    message = "".join(str(warning.message) for warning in caught)
    assert f"{SPLITS} fits failed out of a total of {5 * SPLITS}" in message
    for split in range(SPLITS):
        assert (
            f"candidate 2 {{'deed': {deed!r}, 'number': 2}} on split {split}" in message
        )
    assert cause in message
    assert ("it was tried twice" in message) == (deed in TRIED_TWICE)
    begun = times_begun(log)
    assert {times for (number, *_), times in begun.items() if number != 2} == {1}
    times_tried = 2 if deed in TRIED_TWICE else 1
    assert {times for (number, *_), times in begun.items() if number == 2} == {
        times_tried
    }
    assert len(begun) == 5 * SPLITS


@pytest.mark.parametrize("deed", FAULTS)
def test_with_error_score_raise_the_search_raises(
    deed: str, client: Client, log: str
) -> None:
    """The error is of its kind, and names candidate, split and cause."""
    kind, cause = FAULTS[deed]
    space = [{"number": [0, 1]}, {"number": [2], "deed": [deed]}]
    timeout = {"fit_timeout": 2} if deed == "hang" else {}
    search = grid(log, space, error_score="raise")

    with pytest.raises(kind, match=r"candidate 2 .* on split [01] was ended") as caught:
        DaskSearchCV(search, client=client, **timeout).fit(X, y)

    assert cause in str(caught.value)
    assert client.submit(sum, [1, 2]).result() == 3


@pytest.mark.parametrize("seed", range(2))
def test_faults_among_many_short_fits_cost_only_themselves(
    seed: int, client: Client, log: str
) -> None:
    """Fits that travel in one batch with a fault run once, before it and behind it.

    A fit whose process is killed runs once more.
    """
    numbers = range(120)
    bad = random.Random(seed).sample(numbers, 6)
    space = [
        {"number": [number], "deed": [("kill", "raise")[number % 2]]}
        if number in bad
        else {"number": [number]}
        for number in numbers
    ]

    with pytest.warns(FitFailedWarning):
        found = DaskSearchCV(grid(log, space, error_score=-1.0), client=client).fit(
            X, y
        )

    failed = found.cv_results_["mean_test_score"] == -1.0
    assert np.flatnonzero(failed).tolist() == sorted(bad)
    expected = plain(grid(log, {"number": sorted(set(numbers) - set(bad))}))
    np.testing.assert_array_equal(
        found.cv_results_["mean_test_score"][~failed],
        expected.cv_results_["mean_test_score"],
    )
    for (_, deed, _), times in times_begun(log).items():
        assert times == (2 if deed == "kill" else 1)
    assert len(times_begun(log)) == len(numbers) * SPLITS


def test_when_every_fit_is_ended_the_search_fails_as_scikit_learn_says(
    client: Client, log: str
) -> None:
    """There is nothing to choose from."""
    search = grid(log, {"deed": ["kill", "exit"]})

    with pytest.raises(ValueError, match="All the 4 fits failed") as caught:
        DaskSearchCV(search, client=client).fit(X, y)

    assert "FitKilledError" in str(caught.value)


def test_a_slot_killed_from_outside_fails_no_fit(
    client: Client, log: str, tmp_path: Path
) -> None:
    """The kernel's memory killer does that: the fit runs once more, no other does."""
    gate = tmp_path / "gate"
    search = grid(log, {"number": range(4)}, gate=str(gate))
    killed: dict[str, Any] = {}

    def kill() -> None:
        wait_until(lambda: len(seen(log, "wait")) == 2)
        killed.update(seen(log, "wait")[0])
        os.kill(killed["pid"], signal.SIGKILL)
        wait_until(lambda: len(seen(log, "wait")) == 3)
        gate.touch()

    with helped_by(kill), without_warnings():
        found = DaskSearchCV(search, client=client).fit(X, y)

    expected = plain(grid(log, {"number": range(4)}))
    assert difference(expected.cv_results_, found.cv_results_) is None
    again = [fit for fit, times in times_begun(log).items() if times > 1]
    assert again == [(killed["number"], "fit", killed["data"])]


@pytest.mark.parametrize("seed", range(3))
def test_slots_killed_at_any_moment_change_nothing(
    seed: int, client: Client, log: str
) -> None:
    """Whatever a slot runs, among many short fits that travel together too."""
    chance = random.Random(seed)
    search = grid(log, {"number": range(150)}, seconds=0.005)

    def kill() -> None:
        for begin in (20, 100, 180):  # apart: a fit killed twice has failed
            moment = begin + chance.randrange(60)
            wait_until(lambda moment=moment: len(seen(log, "end")) >= moment)
            (slots,) = client.run(slot_pids).values()
            # One that was killed while idle is listed until it is needed.
            os.kill(chance.choice([*filter(is_alive, slots)]), signal.SIGKILL)

    with helped_by(kill), without_warnings():
        found = DaskSearchCV(search, client=client).fit(X, y)

    expected = plain(grid(log, {"number": range(150)}, seconds=0.005))
    assert difference(expected.cv_results_, found.cv_results_) is None
    again = {fit: times for fit, times in times_begun(log).items() if times > 1}
    assert len(again) <= 3
    assert set(again.values()) <= {2}


def test_losing_the_forkserver_fails_no_fit(
    client: Client, log: str, tmp_path: Path
) -> None:
    """It is the infrastructure's fault: what ran under it runs again, nothing else."""
    gate = tmp_path / "gate"
    search = grid(log, {"number": range(4)}, gate=str(gate))
    lost: list[dict[str, Any]] = []

    def kill() -> None:
        wait_until(lambda: len(seen(log, "wait")) == 2)
        lost.extend(seen(log, "wait"))
        os.kill(parent_of(lost[0]["pid"]), signal.SIGKILL)
        wait_until(lambda: not any(is_alive(entry["pid"]) for entry in lost))
        wait_until(lambda: len(seen(log, "wait")) == 4)
        gate.touch()

    with helped_by(kill), without_warnings():
        found = DaskSearchCV(search, client=client).fit(X, y)

    expected = plain(grid(log, {"number": range(4)}))
    assert difference(expected.cv_results_, found.cv_results_) is None
    again = {fit for fit, times in times_begun(log).items() if times > 1}
    assert again == {(entry["number"], "fit", entry["data"]) for entry in lost}


def test_a_forkserver_ends_at_once_while_it_imports() -> None:
    """It has no slots yet; whoever closes its worker need not wait for it."""
    forkserver = Forkserver(sys.path)

    forkserver.close()

    assert forkserver._process.returncode == -signal.SIGKILL


@pytest.fixture(scope="module", params=[1, 2])
def losing(request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    """A cluster whose workers may be killed: it starts them again."""
    with local_cluster(request.param, 2, dashboard_address=":0") as cluster:
        yield cluster


@pytest.mark.parametrize("seed", [0, 1, pytest.param(2, marks=pytest.mark.slow)])
def test_losing_a_worker_at_any_moment_changes_nothing(
    seed: int, losing: LocalCluster, log: str
) -> None:
    """The results equal an undisturbed run's, times apart, whenever it happens."""
    chance = random.Random(seed)
    moment = chance.randrange(1, 30)
    with Client(losing, set_as_default=False) as client, without_warnings():
        client.wait_for_workers(len(losing.worker_spec))

        def kill() -> None:
            pids = sorted(client.run(os.getpid).values())
            wait_until(lambda: len(seen(log, "start")) >= moment)
            os.kill(chance.choice(pids), signal.SIGKILL)

        with helped_by(kill):
            search = grid(log, {"number": range(20)}, seconds=0.05)
            found = DaskSearchCV(search, client=client).fit(X, y)

    expected = plain(grid(log, {"number": range(20)}, seconds=0.05))
    assert difference(expected, found.search_) is None
    begun_again = [times - 1 for times in times_begun(log).values() if times > 1]
    assert len(times_begun(log)) == 40
    assert sum(begun_again) < 40


def test_a_slot_ended_just_as_its_task_ended_blames_no_other() -> None:
    """The task behind it has not begun: it waits for another slot."""
    tasks = tuple(CallTask(number, b"", ()) for number in range(3))
    batch = Batch("group", "topic", tasks, (), fit_timeout_s=1.0, hold_s=60.0)
    run = BatchRun(batch, report=lambda _: None)
    slot: Any = LateEnd()

    with pytest.raises(EOFError):
        run.follow(slot)
    run.note_death(slot, excused=False)

    assert [one.number for one in decode_outcomes(encode_outcomes(run.outcomes))] == [0]
    assert [task.number for task in run.waiting] == [1, 2]


class LateEnd:
    """A slot that answers once, and was ended for its time meanwhile."""

    ended_for: str | None = None
    peak_bytes = 0

    def receive(self, _timeout_s: float | None) -> bytes:
        if self.ended_for is not None:
            raise EOFError
        self.ended_for = "timeout"
        return Outcome(0, "ok").to_bytes()

    def exit_code(self) -> int:
        return -signal.SIGKILL


class helped_by:  # noqa: N801 (reads as a sentence)
    """Run a function beside the block; its failure is the test's."""

    def __init__(self, function: Any) -> None:
        self._function = function
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._function()
        except BaseException as error:  # noqa: BLE001 (raised in the test's thread)
            self._error = error


def without_warnings() -> warnings.catch_warnings:
    """Let any warning of the block be an error."""
    return warnings.catch_warnings(action="error")


def test_a_fit_that_hangs_behind_many_short_ones_is_ended(client: Client) -> None:
    """Their worker looks at short fits now and then only, but never loses sight of one."""
    grid = [{"number": list(range(300))}, {"number": [300], "deed": ["hang"]}]
    own = Deed(client=os.getpid())
    search = GridSearchCV(own, grid, cv=2, refit=False, error_score=-1.0)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitFailedWarning)
        found = DaskSearchCV(search, client=client, fit_timeout=2).fit(X, y)

    scores = found.cv_results_["mean_test_score"]
    assert scores[300] == -1.0
    assert (scores[:300] >= 0).all()
