"""Which of the waiting fits begins next."""

from __future__ import annotations

import heapq
import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from distributed import Client
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import DaskSearchCV, local_cluster
from dask_hpsearch.engine.tasks import TaskGroup
from dask_hpsearch.engine.waiting_tasks import WaitingTasks
from tests.estimators import Deed, flowers, seen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

X, y = flowers()


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A fit of a candidate, and the time that it will take."""

    candidate: int | None
    split: int = 0
    parameters: Any = None
    n_splits: int | None = 1
    seconds: float = 1.0
    deaths: int = 0
    steps_group: int | None = None


def fits(
    times: Sequence[float], *, n_splits: int, noise: Callable[[], float] = lambda: 1.0
) -> list[Fit]:
    """Make the fits of candidates whose times are in proportion to a parameter."""
    return [
        Fit(candidate, split, {"n": seconds}, n_splits, seconds * noise())
        for candidate, seconds in enumerate(times)
        for split in range(n_splits)
    ]


def waiting(tasks: Sequence[Fit]) -> WaitingTasks:
    """Queue tasks."""
    queue = WaitingTasks()
    for task in tasks:
        queue.append(task)
    return queue


def run(tasks: Sequence[Fit], slots: int) -> tuple[list[Fit], float]:
    """Run tasks on simulated slots, with one more a slot that was taken already.

    Returns
    -------
    list of Fit
        In the order in which they began.
    float
        When the last one ended.
    """
    queue = waiting(tasks)
    taken: list[Fit] = []
    running: list[tuple[float, int]] = []
    now, n_begun = 0.0, 0
    while queue or running:
        while queue and len(taken) - n_begun + len(running) < 2 * slots:
            taken.append(queue.take(slots))
        while n_begun < len(taken) and len(running) < slots:
            heapq.heappush(running, (now + taken[n_begun].seconds, n_begun))
            n_begun += 1
        now, place = heapq.heappop(running)
        queue.took(taken[place], taken[place].seconds)
        if queue.can_learn:
            queue.learn()
    return taken, now


def list_schedule_s(seconds: Sequence[float], slots: int) -> float:
    """Return when tasks end if each begins in its turn."""
    free = [0.0] * slots
    for one in seconds:
        heapq.heapreplace(free, free[0] + one)
    return max(free)


@given(
    times=st.lists(st.floats(0.001, 100), min_size=1, max_size=30),
    n_splits=st.integers(1, 4),
    slots=st.integers(1, 8),
)
def test_every_fit_begins_once(times: list[float], n_splits: int, slots: int) -> None:
    """Whatever is known, none is lost or begins twice."""
    tasks = fits(times, n_splits=n_splits)

    taken, _ = run(tasks, slots)

    assert sorted(map(id, taken)) == sorted(map(id, tasks))


@pytest.mark.parametrize("seed", range(20))
def test_long_fits_do_not_end_last(seed: int) -> None:
    """Nearly as if the times were known; first come, first served takes much longer."""
    rng = random.Random(seed)
    times = sorted(
        0.05 * 40 ** rng.random() for _ in range(30)
    )  # the longest come last
    tasks = fits(times, n_splits=3, noise=lambda: math.exp(rng.gauss(0, 0.1)))
    seconds = [task.seconds for task in tasks]

    _, ours = run(tasks, slots=8)

    bound = list_schedule_s(sorted(seconds, reverse=True), 8)
    assert ours <= 1.1 * bound
    assert list_schedule_s(seconds, 8) > 1.03 * ours


def test_other_splits_of_a_candidate_tell_its_time() -> None:
    """Parameters that say nothing are no hindrance."""
    times = [1.0] * 10 + [5.0]
    tasks = [
        Fit(candidate, split, {"seed": "same"}, 3, seconds)
        for candidate, seconds in enumerate(times)
        for split in range(3)
    ]
    queue = waiting(tasks)
    while True:
        task = queue.take(slots=1)
        queue.took(task, task.seconds)
        if task.candidate == 10:
            break

    assert queue.take(slots=1).candidate == 10


def test_nothing_known_is_first_come_first_served() -> None:
    """Parameters that are all the same give no other order; nor do calls without any."""
    same = [Fit(candidate, parameters={}) for candidate in range(50)]
    calls = [Fit(None) for _ in range(50)]

    assert run(calls, slots=2)[0] == calls
    taken, _ = run(same, slots=2)
    assert taken[-40:] == [one for one in same if one in taken[-40:]]


def test_the_first_fits_are_of_candidates_that_differ() -> None:
    """One split each, from all over the grid; then candidates are completed."""
    queue = waiting(fits([1.0] * 100, n_splits=5))

    first = [queue.take(slots=4) for _ in range(8)]

    assert {task.split for task in first} == {0}
    candidates = sorted(task.candidate for task in first)
    assert candidates[0] < 20
    assert candidates[-1] > 80
    following = [queue.take(slots=4) for _ in range(10)]
    assert len({task.candidate for task in following}) <= 4


def test_a_long_search_completes_candidates_in_their_order() -> None:
    """What is stopped early has complete candidates: long ones wait until they are due."""
    tasks = fits([1.0, 2.0] * 500, n_splits=3)

    taken, _ = run(tasks, slots=2)

    early = {task.candidate for task in taken[:300]}
    assert len(early) <= 110


def test_what_was_put_back_comes_next() -> None:
    """The last one that was put back first, however long others take."""
    queue = waiting(fits([1.0, 2.0], n_splits=1))
    one, other = Fit(7), Fit(8)

    queue.appendleft(one)
    queue.appendleft(other)

    assert [queue.take(1), queue.take(1)] == [other, one]
    assert len(queue) == 2


def test_the_total_is_what_waits() -> None:
    """Known times count as they are, others as the mean."""
    queue = waiting(fits([2.0, 4.0, 6.0], n_splits=3))
    assert queue.total_s() is None
    taken = [queue.take(slots=1) for _ in range(2)]
    for task in taken:
        queue.took(task, task.seconds)

    rest = [queue.expected_s(queue.take(slots=1)) for _ in range(len(queue) - 1)]

    assert queue.total_s() == pytest.approx(
        queue.expected_s(queue.take(slots=1)), rel=1e-6
    )
    assert all(rest)
    assert queue.total_s() == pytest.approx(0.0, abs=1e-6)


def test_nothing_is_left_of_a_group_that_is_cleared() -> None:
    """It may go on being used."""
    queue = waiting(fits([1.0] * 5, n_splits=2))
    queue.appendleft(queue.take(slots=1))

    queue.clear()

    assert not queue
    queue.append(Fit(3))
    assert queue.take(slots=1).candidate == 3


def test_batches_are_cut_by_predicted_time() -> None:
    """A fit of half a second goes alone, though most take a millisecond."""
    group: Any = TaskGroup()
    tasks = fits([0.001] * 300 + [0.5] * 10, n_splits=2)
    for task in tasks:
        group.waiting.append(task)
    for task in tasks[:40] + tasks[-10:]:
        group.waiting.took(task, task.seconds)
    assert group.waiting.can_learn
    group.waiting.learn()

    batches = []
    while group.waiting:
        batches.append(group.take_batch(slots=2))

    assert sum(map(len, batches)) == len(tasks)
    for batch in batches:
        long = [task for task in batch if task.seconds >= 0.5]
        assert len(long) <= 1
    assert max(map(len, batches)) > 20


@pytest.mark.parametrize("n_waiting", [2_000, 50_000])
def test_very_many_fits_take_no_longer_each(n_waiting: int) -> None:
    """Predictions look at a bounded part of what waits, and are due ever more seldom."""
    tasks = fits([1.0 + one % 7 for one in range(n_waiting // 2)], n_splits=2)
    queue = waiting(tasks)
    looked = 0
    while queue:
        task = queue.take(slots=2)
        queue.took(task, task.seconds)
        if queue.can_learn:
            looked += min(len(queue), 10_000)
            queue.learn()

    assert looked <= 40 * n_waiting


def test_a_search_begins_its_long_fits_in_time(tmp_path: Path) -> None:
    """On a real cluster: the longest candidate comes last, and does not begin last."""
    log = str(tmp_path / "fits.log")
    seconds = [0.04, 0.06, 0.08, 0.1, 0.12, 0.14, 0.16, 0.18, 0.2, 0.8]
    grids = [{"number": [n], "seconds": [one]} for n, one in enumerate(seconds)]
    search = GridSearchCV(Deed(log=log), grids, cv=4, refit=False)
    with (
        local_cluster(1, 2, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        found = DaskSearchCV(search, client=client, store=tmp_path).fit(X, y)

    began = [entry["number"] for entry in seen(log, "start")]
    assert sorted(began) == sorted(list(range(10)) * 4)
    assert 9 not in began[-4:]
    assert [one["seconds"] for one in found.cv_results_["params"]] == seconds
