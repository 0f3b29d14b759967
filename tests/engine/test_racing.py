"""Which candidates a race drops, and in which order the others run."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dask_hpsearch.engine.policy import most_in_race
from dask_hpsearch.engine.racing import Race, mean_score
from dask_hpsearch.engine.tasks import TaskGroup
from dask_hpsearch.engine.waiting_tasks import WaitingTasks

if TYPE_CHECKING:
    import random


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A fit that waits."""

    candidate: int
    split: int
    n_splits: int
    parameters: Any
    steps_group: int | None = None
    deaths: int = 0


def fits(n_candidates: int, n_splits: int) -> list[Fit]:
    """Make the fits of candidates, in scikit-learn's order."""
    return [
        Fit(candidate, split, n_splits, {"number": candidate})
        for candidate in range(n_candidates)
        for split in range(n_splits)
    ]


def raced(*scores: tuple[int, float | None], n_splits: int = 3, **more: Any) -> Race:
    """Return a race with scores of candidates, each of its next split."""
    race = Race(n_splits, **more)
    splits: dict[int, int] = {}
    for candidate, score in scores:
        split = splits.setdefault(candidate, 0)
        race.add(candidate, split, score)
        splits[candidate] += 1
    return race


class Script:
    """A race whose fits end when a test says so."""

    def __init__(self, n_candidates: int, n_splits: int, *, slots: int = 1) -> None:
        self.race = Race(n_splits, n_candidates=n_candidates)
        self.waiting = WaitingTasks(self.race)
        self.slots = slots
        for fit in fits(n_candidates, n_splits):
            self.waiting.append(fit)

    def take(self) -> Fit:
        """Take the next fit."""
        fit: Fit = self.waiting.take(self.slots)
        return fit

    def end(self, fit: Fit, score: float) -> list[int]:
        """End a fit; return the candidates that are dropped for it."""
        self.waiting.took(fit, 1.0)
        self.race.add(fit.candidate, fit.split, score)
        beaten = self.race.beaten()
        for candidate in beaten:
            self.waiting.drop(candidate)
        return beaten

    def run(self, score: float) -> Fit:
        """Take the next fit and end it."""
        fit = self.take()
        self.end(fit, score)
        return fit


# --- the rule -------------------------------------------------------------------------


def test_a_candidate_below_the_worst_split_of_the_best_is_dropped() -> None:
    """Its mean over the finished splits counts."""
    race = raced((0, 0.9), (0, 0.8), (0, 0.85), (1, 0.79), (2, 0.80), (3, 0.81))

    assert race.beaten() == [1]
    assert race.dropped == {1}


def test_nothing_is_dropped_before_a_candidate_is_complete() -> None:
    """However bad it is."""
    race = raced((0, 0.9), (0, 0.9), (1, -7.0))

    assert race.beaten() == []


def test_a_new_best_drops_those_that_it_beats() -> None:
    """Also candidates that have had no result since."""
    race = raced((0, 0.5), (0, 0.5), (0, 0.5), (1, 0.6), (2, 0.8))
    before = race.beaten()
    for split in range(3):
        race.add(3, split, 0.7)

    assert before == []
    assert race.beaten() == [1]


def test_a_complete_candidate_is_never_dropped() -> None:
    """Its fits have run."""
    race = raced(*[(0, 0.1)] * 3, *[(1, 0.9)] * 3)

    assert race.beaten() == []


def test_scores_of_losses_count_as_scikit_learn_gives_them() -> None:
    """Greater is better: a negated error too."""
    race = raced((0, -2.0), (0, -3.0), (0, -1.0), (1, -3.5), (2, -2.5))

    assert race.beaten() == [1]


def test_a_failed_fit_beats_no_candidate_and_is_beaten_by_any() -> None:
    """With an ``error_score`` of NaN the mean is NaN, which is ranked last."""
    race = raced(*[(0, math.nan)] * 3, (1, 0.2), (2, None))
    before = race.beaten()
    for split in (1, 2):
        race.add(1, split, 0.2)

    assert before == []
    assert race.beaten() == [2]
    assert race.leads(1) is False


def test_a_failed_fit_with_a_score_counts_as_that_score() -> None:
    """It is dropped because of its mean, not because it has failed."""
    race = raced(*[(0, 0.5)] * 3, (1, 0.0), (1, 0.9), (2, 0.9), (2, 0.0))

    assert sorted(race.beaten()) == [1, 2]
    assert raced(*[(0, 0.4)] * 3, (1, 0.0), (1, 0.9)).beaten() == []  # a mean of 0.45


def test_drops_of_an_earlier_driver_stay() -> None:
    """They are not decided again, whatever the scores say."""
    race = raced(*[(0, 0.5)] * 3, (1, 0.9), (2, 0.1), n_candidates=3, dropped={1})

    assert race.beaten() == [2]
    assert race.dropped == {1, 2}
    assert race.is_over


def test_a_race_is_over_when_each_candidate_is_complete_or_dropped() -> None:
    """If all are complete there is nothing to leave out."""
    race = raced(*[(0, 0.5)] * 3, (1, 0.1), n_candidates=2)
    before = race.is_over
    race.beaten()

    assert not before
    assert race.is_over
    assert not raced(*[(0, 0.5)] * 3, *[(1, 0.5)] * 3, n_candidates=2).is_over


def test_a_dropped_candidate_whose_running_fits_end_is_complete() -> None:
    """All its results are there."""
    race = raced(*[(0, 0.5)] * 3, (1, 0.1), n_candidates=2)
    race.beaten()
    race.add(1, 1, 0.1)
    race.add(1, 2, 0.1)

    assert race.dropped == {1}
    assert not race.is_over


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=10), st.randoms())
def test_means_are_those_of_scikit_learn(
    scores: list[float], chance: random.Random
) -> None:
    """To the last digit, in whatever order fits end."""
    splits = list(enumerate(scores))
    chance.shuffle(splits)

    assert mean_score(dict(splits)) == np.average(np.array([scores]), axis=1)[0]


@given(
    table=st.lists(
        st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=12
    ),
    slots=st.integers(1, 5),
    chance=st.randoms(),
)
def test_any_race_keeps_a_candidate_and_decides_on_all(
    table: list[list[float]], slots: int, chance: random.Random
) -> None:
    """At least one is complete; dropped ones were beaten; no fit begins twice."""
    script = Script(len(table), 3, slots=slots)
    running: list[Fit] = []
    known: dict[int, list[float]] = {}
    n_begun = 0
    while script.waiting or running:
        while script.waiting and len(running) < slots:
            running.append(script.take())
            n_begun += 1
        fit = running.pop(chance.randrange(len(running)))
        score = table[fit.candidate][fit.split]
        known.setdefault(fit.candidate, []).append(score)
        complete = [one for one, scores in known.items() if len(scores) == 3]
        for beaten in script.end(fit, score):
            highest = max(sum(table[one]) for one in complete)
            best = [one for one in complete if sum(table[one]) == highest]
            worst = max(min(table[one]) for one in best)
            assert np.mean(known[beaten]) < worst

    assert n_begun == sum(map(len, known.values())) <= 3 * len(table)
    assert complete
    assert set(complete) | script.race.dropped == set(range(len(table)))


# --- the order ------------------------------------------------------------------------


def test_a_candidate_runs_one_split_at_a_time() -> None:
    """While others can use the slots: each slot has a candidate of its own."""
    script = Script(n_candidates=4, n_splits=3, slots=4)

    taken = [script.take() for _ in range(4)]

    assert sorted(fit.candidate for fit in taken) == [0, 1, 2, 3]
    assert {fit.split for fit in taken} == {0}


def test_the_best_so_far_goes_on_first() -> None:
    """A complete candidate is needed to drop others."""
    script = Script(n_candidates=6, n_splits=2, slots=1)
    first, second = script.take(), script.take()
    script.end(first, 0.3)
    script.end(second, 0.7)

    following = script.take()

    assert (following.candidate, following.split) == (second.candidate, 1)


def test_until_one_is_complete_the_best_of_all_goes_on_and_no_other() -> None:
    """The other slots look for a better one."""
    script = Script(n_candidates=12, n_splits=3, slots=2)
    first, second = script.take(), script.take()
    script.end(first, 0.3)
    script.end(second, 0.7)

    goes_on, new = script.take(), script.take()
    script.end(goes_on, 0.0)  # it has lost its lead
    script.end(new, 0.6)
    following = script.take()

    assert (goes_on.candidate, goes_on.split) == (second.candidate, 1)
    assert new.split == 0
    assert (following.candidate, following.split) == (new.candidate, 1)


def test_new_candidates_come_before_those_behind_the_best() -> None:
    """They may be better; those that are not beaten yet come at the end, the best first."""
    script = Script(n_candidates=12, n_splits=2, slots=1)
    best, other = script.take(), script.take()
    script.end(best, 0.7)
    script.end(other, 0.6)
    second = script.run(0.5)

    new = script.run(0.8)  # better than the best
    goes_on = script.run(0.1)
    following = [script.run(0.55) for _ in range(10)]

    assert (second.candidate, second.split) == (best.candidate, 1)
    assert new.split == 0
    assert (goes_on.candidate, goes_on.split) == (new.candidate, 1)
    assert [fit.split for fit in following] == [0] * 9 + [1]
    assert following[-1].candidate == other.candidate


def test_fits_that_share_steps_go_out_together_one_of_each_candidate() -> None:
    """Later splits of a group wait until the earlier ones have decided."""
    race = Race(2, n_candidates=3)
    waiting = WaitingTasks(race)
    for fit in fits(3, 2):
        waiting.append(replace(fit, steps_group=fit.split))
    first = waiting.next_task(4)

    batch = waiting.take_group(first, 10, math.inf)
    others = waiting.take_group(waiting.next_task(4), 10, math.inf)

    assert [(fit.candidate, fit.split) for fit in batch] == [(0, 0), (1, 0), (2, 0)]
    assert [(fit.candidate, fit.split) for fit in others] == [(0, 1)]
    assert len(waiting) == 2


def test_splits_run_side_by_side_in_slots_that_are_free() -> None:
    """Nothing else is left to run."""
    script = Script(n_candidates=1, n_splits=3, slots=4)
    waiting, group = script.waiting, TaskGroup(waiting=script.waiting)
    first = script.take()
    group.in_flight = 1

    free, full = group.may_begin(4), group.may_begin(1)
    others = [script.take() for _ in range(2)]

    assert (free, full) == (True, False)
    assert [fit.split for fit in (first, *others)] == [0, 1, 2]
    assert not waiting


def test_few_fits_wait_with_dask_in_a_race() -> None:
    """What has not begun can still be spared."""
    script = Script(n_candidates=100, n_splits=3, slots=8)
    group = TaskGroup(waiting=script.waiting)
    script.run(0.5)

    group.in_flight = most_in_race(8, 1.0)

    assert not group.may_begin(8)
    assert TaskGroup(waiting=WaitingTasks()).may_begin(8)


def test_slots_of_short_fits_have_a_next_batch() -> None:
    """A result takes a moment to travel."""
    assert most_in_race(8, None) == 8
    assert most_in_race(8, 60.0) == 9
    assert 9 < most_in_race(8, 0.001) <= 16


def test_fits_of_a_dropped_candidate_never_begin() -> None:
    """Neither those that wait, nor those that were put back or come later."""
    script = Script(n_candidates=2, n_splits=3, slots=2)
    good, bad = script.take(), script.take()
    script.waiting.appendleft(bad)
    script.end(good, 0.9)
    for split in (1, 2):
        script.race.add(good.candidate, split, 0.9)
    script.race.add(bad.candidate, 1, 0.1)

    beaten = script.race.beaten()
    dropped = script.waiting.drop(bad.candidate)

    assert beaten == [bad.candidate]
    assert sorted(fit.split for fit in dropped) == [0, 1, 2]
    assert bad in dropped
    assert len(script.waiting) == 2  # of the other candidate
    assert script.waiting.has_dropped(bad)
    assert not script.waiting.has_dropped(good)


def test_long_candidates_begin_in_time_one_split_after_the_other() -> None:
    """A candidate of long fits is not the last to begin, nor does it take all slots."""
    race = Race(3, n_candidates=30)
    waiting = WaitingTasks(race)
    seconds = {one: 10.0 if one == 29 else 1.0 for one in range(30)}
    for one in range(30):
        for split in range(3):
            waiting.append(Fit(one, split, 3, {"n": seconds[one]}))
    slots, now = 4, 0.0
    running: list[tuple[float, int, Fit]] = []
    begun: list[Fit] = []
    while waiting or running:
        while waiting and len(running) < slots and waiting.may_begin(4, len(running)):
            begun.append(waiting.take(slots))
            ends = now + seconds[begun[-1].candidate]
            heapq.heappush(running, (ends, len(begun), begun[-1]))
        now, _, fit = heapq.heappop(running)
        waiting.took(fit, seconds[fit.candidate])
        race.add(fit.candidate, fit.split, 0.5)  # nothing is dropped
        if waiting.can_learn:
            waiting.learn()

    places = [place for place, fit in enumerate(begun) if fit.candidate == 29]
    assert places[0] < 60
    assert len(begun) == 90
    assert now < 45.0  # 29 + 3 x 10 / 4 if it were perfect
