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
from dask_hpsearch.engine.racing import MOST_ERRORS, Race, mean_score
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


# Complete candidates: the first split is hard, and scores vary by 0.01 beyond that.
GOOD = [
    [0.71, 0.90, 0.91, 0.89, 0.90],
    [0.70, 0.91, 0.89, 0.90, 0.89],
    [0.69, 0.89, 0.90, 0.91, 0.88],
]


def raced(*open_scores: list[float | None], **more: Any) -> Race:
    """Return a race of three complete candidates, and others with some scores."""
    race = Race(5, **more)
    for candidate, scores in enumerate([*GOOD, *open_scores]):
        for split, score in enumerate(scores):
            race.add(candidate, split, score)
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


def test_a_candidate_far_behind_what_its_splits_let_expect_is_dropped() -> None:
    """A hard split is hard for each: only what is left behind the others counts."""
    race = raced([0.50], [0.69], [0.71], [0.75])

    assert race.beaten() == [3]
    assert race.dropped == {3}


def test_a_good_score_on_an_easy_split_is_no_excuse() -> None:
    """It is above the mean of the best candidate, but below all on this split."""
    race = raced()
    race.add(3, 3, 0.87)
    close = race.beaten()
    race.add(4, 3, 0.80)

    assert close == []
    assert race.beaten() == [4]
    assert np.mean(GOOD[0]) > 0.86


def test_more_splits_decide_more() -> None:
    """The error of what is expected becomes smaller."""
    race = raced([0.67])
    once = race.beaten()
    for split, score in ((1, 0.86), (2, 0.86), (3, 0.86)):
        race.add(3, split, score)

    assert once == []
    assert race.beaten() == [3]


def test_nothing_is_dropped_before_enough_candidates_are_complete() -> None:
    """What one or two show of the noise is chance."""
    race = Race(5)
    for candidate, scores in enumerate(GOOD[:2]):
        for split, score in enumerate(scores):
            race.add(candidate, split, score)
    race.add(7, 0, 0.1)
    before = race.beaten()
    for split, score in enumerate(GOOD[2]):
        race.add(2, split, score)

    assert before == []
    assert race.beaten() == [7]


def test_bad_candidates_do_not_hide_the_noise_of_good_ones() -> None:
    """Scores may have no lower bound, and bad ones no use."""
    race = Race(5)
    bad = [[-1e6, -1e3, -1e5, -1e7, -10.0], [-5.0, -1e4, -1e2, -1e6, -1e5]]
    for candidate, scores in enumerate([*bad, *GOOD]):
        for split, score in enumerate(scores):
            race.add(candidate, split, score)
    race.add(5, 0, 0.5)
    race.add(6, 0, 0.7)

    assert race.beaten() == [5]


def test_candidates_with_the_same_scores_show_the_noise_once() -> None:
    """Parameters may have no effect: then all are one model."""
    race = Race(5)
    for candidate in range(6):
        for split, score in enumerate(GOOD[0]):
            race.add(candidate, split, score)
    race.add(7, 0, 0.70)

    assert race.beaten() == []


def test_a_complete_candidate_is_never_dropped() -> None:
    """Its fits have run."""
    race = raced([0.1] * 5)

    assert race.beaten() == []


def test_scores_of_losses_count_as_scikit_learn_gives_them() -> None:
    """Greater is better: a negated error too."""
    race = Race(5)
    for candidate, scores in enumerate(GOOD):
        for split, score in enumerate(scores):
            race.add(candidate, split, score - 3)
    race.add(3, 1, -2.5)
    race.add(4, 1, -2.1)

    assert race.beaten() == [3]


def test_a_failed_fit_beats_no_candidate_and_is_beaten_by_any() -> None:
    """With an ``error_score`` of NaN the mean is NaN, which is ranked last."""
    race = Race(2)
    race.add(0, 0, math.nan)
    race.add(0, 1, 0.9)
    race.add(1, 0, 0.2)
    race.add(2, 0, None)
    before = race.beaten()
    race.add(1, 1, 0.2)

    assert before == []
    assert race.beaten() == [2]


def test_a_failed_fit_with_a_score_counts_as_that_score() -> None:
    """It is dropped because of what its splits let expect, not because it has failed."""
    assert raced([0.0]).beaten() == [3]
    race = Race(2)
    race.add(0, 0, 0.2)
    race.add(0, 1, 0.2)
    race.add(1, 0, 0.0)
    assert race.beaten() == []


def test_drops_of_an_earlier_driver_stay() -> None:
    """They are not decided again, whatever the scores say."""
    race = raced([0.99], [0.1], n_candidates=5, dropped={3})

    assert race.beaten() == [4]
    assert race.dropped == {3, 4}
    assert race.is_over


def test_a_race_is_over_when_each_candidate_is_complete_or_dropped() -> None:
    """If all are complete there is nothing to leave out."""
    race = raced([0.1], n_candidates=4)
    before = race.is_over
    race.beaten()

    assert not before
    assert race.is_over
    assert not raced(n_candidates=3).is_over


def test_a_dropped_candidate_whose_running_fits_end_is_complete() -> None:
    """All its results are there."""
    race = raced([0.1], n_candidates=4)
    race.beaten()
    for split in range(1, 5):
        race.add(3, split, 0.1)

    assert race.dropped == {3}
    assert not race.is_over


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=10), st.randoms())
def test_means_are_those_of_scikit_learn(
    scores: list[float], chance: random.Random
) -> None:
    """To the last digit, in whatever order fits end."""
    splits = list(enumerate(scores))
    chance.shuffle(splits)

    assert mean_score(dict(splits)) == np.average(np.array([scores]), axis=1)[0]


def is_beaten(known: dict[int, float], complete: list[list[float]]) -> bool:
    """Decide by least squares on the better half of the complete candidates."""
    rows = sorted({(-mean_score(dict(enumerate(row))), tuple(row)) for row in complete})
    table = np.array([row for _, row in rows[: max(3, math.ceil(len(rows) / 2))]])
    n_rows, n_splits = table.shape
    deviations = table - table.mean(axis=1, keepdims=True)
    effects = deviations.mean(axis=0)
    degrees = (n_rows - 1) * (n_splits - 1)
    if degrees < 8:
        return False
    variance = ((deviations - effects) ** 2).sum() / degrees
    expected = np.mean([score - effects[split] for split, score in known.items()])
    error = math.sqrt(variance * (1 / len(known) - 1 / n_splits))
    best = max(np.mean(row) for row in complete)
    return bool(expected < best - MOST_ERRORS * error - 1e-12)


@given(
    table=st.lists(
        st.lists(st.integers(0, 50), min_size=5, max_size=5), min_size=1, max_size=16
    ),
    slots=st.integers(1, 5),
    chance=st.randoms(),
)
def test_any_race_keeps_a_candidate_and_decides_on_all(
    table: list[list[int]], slots: int, chance: random.Random
) -> None:
    """At least one is complete; dropped ones were beaten; no fit begins twice."""
    script = Script(len(table), 5, slots=slots)
    running: list[Fit] = []
    known: dict[int, dict[int, float]] = {}
    n_begun = 0
    while script.waiting or running:
        while script.waiting and len(running) < slots:
            running.append(script.take())
            n_begun += 1
        fit = running.pop(chance.randrange(len(running)))
        score = table[fit.candidate][fit.split] / 50
        known.setdefault(fit.candidate, {})[fit.split] = score
        beaten = script.end(fit, score)
        complete = [one for one, scores in known.items() if len(scores) == 5]
        rows = [[known[one][split] for split in range(5)] for one in complete]
        for one, scores in known.items():
            if one in beaten or len(scores) == 5 or one in script.race.dropped:
                continue
            assert not rows or not is_beaten(scores, rows)
        assert all(is_beaten_or_close(known[one], rows) for one in beaten)

    assert n_begun == sum(map(len, known.values())) <= 5 * len(table)
    assert complete
    assert set(complete) | script.race.dropped == set(range(len(table)))


def is_beaten_or_close(known: dict[int, float], rows: list[list[float]]) -> bool:
    """Whether a candidate is beaten, but for the last digits."""
    lower = {split: score - 1e-9 for split, score in known.items()}
    return is_beaten(lower, rows)


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
    script.race.add(bad.candidate, 1, None)

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
