"""Which candidate goes on, decided by a ladder of rungs alone."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dask_hpsearch.strategies.halving.ladder import Job, RungLadder

FAILED = math.nan


class Paper:
    """ASHA as its paper writes it: ``get_job`` looks at all rungs anew each time."""

    def __init__(self, n_candidates: int, n_rungs: int, factor: float) -> None:
        self.n_candidates, self.n_rungs, self.factor = n_candidates, n_rungs, factor
        self.scores: list[dict[int, float]] = [{} for _ in range(n_rungs)]
        self.promoted: list[set[int]] = [set() for _ in range(n_rungs)]
        self.n_begun = 0

    def get_job(self) -> Job | None:
        for rung in reversed(range(self.n_rungs - 1)):
            top = self.top_k(rung, int(len(self.scores[rung]) / self.factor))
            promotable = [one for one in top if one not in self.promoted[rung]]
            if promotable:
                self.promoted[rung].add(promotable[0])
                return Job(promotable[0], rung + 1)
        if self.n_begun < self.n_candidates:
            self.n_begun += 1
            return Job(self.n_begun - 1, 0)
        return None

    def top_k(self, rung: int, k: int) -> list[int]:
        known = [one for one in self.scores[rung].items() if not math.isnan(one[1])]
        ranked = sorted(known, key=lambda one: (-one[1], one[0]))
        return [candidate for candidate, _ in ranked[:k]]


def decided(
    ladder: RungLadder, paper: Paper, slots: int, scores: dict[Job, float], seed: int
) -> list[Job]:
    """Run all jobs of both, which end in a random order; return them."""
    chance = random.Random(seed)
    running: list[Job] = []
    begun: list[Job] = []
    while True:
        while len(running) < slots:
            job = ladder.next_job()
            expected = paper.get_job()
            if job is not None and expected is None:
                # Only the highest rung of an ended search is filled by other rules.
                assert not running
                return begun
            assert job == expected
            if job is None:
                break
            running.append(job)
            begun.append(job)
        if not running:
            return begun
        ended = running.pop(chance.randrange(len(running)))
        ladder.finished(ended, scores[ended])
        paper.scores[ended.rung][ended.candidate] = scores[ended]


@settings(max_examples=200)
@given(
    seed=st.integers(0, 10_000),
    n_candidates=st.integers(1, 40),
    slots=st.integers(1, 12),
    n_rungs=st.integers(1, 4),
    factor=st.sampled_from([2, 3, 4, 2.5]),
)
def test_decisions_are_those_of_the_paper(
    seed: int, n_candidates: int, slots: int, n_rungs: int, factor: float
) -> None:
    """Compared with a search through all rungs at each decision; equal scores, failures."""
    chance = random.Random(seed)
    values = [0.1, 0.2, 0.3, 0.5, 0.8, 1.0, FAILED]
    scores = {
        Job(candidate, rung): chance.choice(values)
        for candidate in range(n_candidates)
        for rung in range(n_rungs)
    }
    ladder = RungLadder(n_candidates, n_rungs=n_rungs, factor=factor)

    begun = decided(ladder, Paper(n_candidates, n_rungs, factor), slots, scores, seed)

    assert len(set(begun)) == len(begun)
    assert [one.candidate for one in begun if not one.rung] == list(range(n_candidates))


def run_out(ladder: RungLadder, score: dict[int, float]) -> list[Job]:
    """Run all jobs one by one; a candidate has the same score on each rung."""
    begun = []
    while (job := ladder.next_job()) is not None:
        begun.append(job)
        ladder.finished(job, score.get(job.candidate, FAILED))
    return begun


def test_a_candidate_is_promoted_before_all_have_begun() -> None:
    """As soon as a third of those that have finished is one."""
    ladder = RungLadder(9, n_rungs=2, factor=3)

    begun = run_out(ladder, {one: one / 10 for one in range(9)})

    assert begun[:4] == [Job(0, 0), Job(1, 0), Job(2, 0), Job(2, 1)]


def test_failed_candidates_are_never_promoted() -> None:
    """They count as finished, so that others of their rung are promoted."""
    ladder = RungLadder(9, n_rungs=3, factor=3)

    begun = run_out(ladder, {4: 0.5, 5: 0.6})

    assert {one.candidate for one in begun if one.rung} == {4, 5}


def test_nothing_is_promoted_if_all_fail() -> None:
    """And the search ends."""
    ladder = RungLadder(9, n_rungs=3, factor=3)

    assert run_out(ladder, {}) == [Job(one, 0) for one in range(9)]


@pytest.mark.parametrize("n_candidates", [1, 2, 5, 8])
def test_the_highest_rung_is_never_left_empty(n_candidates: int) -> None:
    """However few candidates there are, the best of them gets there."""
    ladder = RungLadder(n_candidates, n_rungs=3, factor=3)

    begun = run_out(ladder, {one: one / 10 for one in range(n_candidates)})

    assert begun[-1] == Job(n_candidates - 1, 2)


@given(seed=st.integers(0, 1000), killed_after=st.integers(0, 60))
def test_a_recalled_ladder_goes_on_where_it_was(seed: int, killed_after: int) -> None:
    """Recorded promotions and scores are enough; what had not finished begins first."""
    chance = random.Random(seed)
    scores = {Job(c, r): chance.random() for c in range(27) for r in range(3)}
    whole = RungLadder(27, n_rungs=3, factor=3)
    begun: list[Job] = []
    while (job := whole.next_job()) is not None:
        begun.append(job)
        whole.finished(job, scores[job])

    before = begun[:killed_after]
    unfinished = begun[killed_after : killed_after + 1]
    resumed = RungLadder(27, n_rungs=3, factor=3)
    for job in (*before, *(one for one in unfinished if one.rung)):
        resumed.recall(job)
    chance.shuffle(before)
    for job in before:
        resumed.finished(job, scores[job])
    after: list[Job] = []
    while (job := resumed.next_job()) is not None:
        after.append(job)
        resumed.finished(job, scores[job])

    assert after == begun[killed_after:]


def test_candidates_of_a_rung_are_kept_in_their_order() -> None:
    """In the order in which they came, which is that of ``cv_results_``."""
    ladder = RungLadder(6, n_rungs=2, factor=2)

    run_out(ladder, {0: 0.1, 1: 0.8, 2: 0.2, 3: 0.9, 4: 0.3, 5: 0.4})

    assert ladder.entered(0) == list(range(6))
    assert ladder.entered(1) == [1, 3, 5]
