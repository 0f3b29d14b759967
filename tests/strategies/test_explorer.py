from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dask_hpsearch.strategies.explorer import model_wait_s, wanted_fits
from tests.strategies.memory import KilledError, Run, explore

LINE = [(0.0, 1.0)]
N = 14


def peak(params: dict[str, Any], split: int = 0) -> float:
    """Best at 0.3."""
    return -((params["x0"] - 0.3) ** 2) - split


def test_every_candidate_is_asked_evaluated_and_told_once() -> None:
    """Without a disturbance there is one of each, and the optimizer knows them all."""
    run = Run()

    (space,), _ = explore(run, [(LINE, N)], peak, n_splits=2)

    assert sorted(run.asks) == list(range(N))
    assert Counter(run.begun) == Counter((c, s) for c in range(N) for s in range(2))
    assert sorted(ordinal for ordinal, _, _ in run.tells) == list(range(N))
    assert len(space.optimizer.Xi) == N


def test_a_number_of_points_bounds_what_is_in_flight() -> None:
    """No more candidates than allowed are evaluated at once, whatever slots there are."""
    run = Run()

    _, slots = explore(run, [(LINE, N)], peak, slots=8, most_in_flight=2)

    assert slots.most_at_once == 2


def test_all_slots_are_used() -> None:
    """Each slot has a candidate of its own."""
    run = Run()

    _, slots = explore(run, [(LINE, 30)], peak, slots=8, seconds=lambda *_: 0.05)

    assert slots.most_at_once >= 8


def test_spaces_follow_one_another() -> None:
    """The next space begins while the last candidates of the one before still run."""
    run = Run()

    explore(run, [(LINE, 5), ([(2.0, 3.0), (0.0, 1.0)], 4)], peak)

    assert [run.asks[ordinal][0] for ordinal in range(9)] == [0] * 5 + [1] * 4
    assert all(len(run.asks[ordinal][1]) == 2 for ordinal in range(5, 9))


def test_a_callback_leaves_its_space_alone() -> None:
    """Stopped after three tells, a space asks no more; the next one has all of its own."""
    run = Run()

    spaces, _ = explore(
        run,
        [(LINE, N), (LINE, 5)],
        peak,
        stops=lambda result: len(result.x_iters) == 3 and bool(run.asks),
    )

    told = Counter(space for _, space, _ in run.tells)
    assert told == {0: 3, 1: 3}
    assert all(space.stopped for space in spaces)


def test_failed_candidates_are_told_as_the_worst() -> None:
    """No model sees NaN; the search goes on."""
    run = Run()

    def some(params: dict[str, Any], split: int) -> float:
        return math.nan if params["x0"] > 0.5 else peak(params, split)

    (space,), _ = explore(run, [(LINE, N)], some)

    values = [value for _, _, value in run.tells]
    told = np.array(space.optimizer.yi)
    failed = np.isnan(values)
    assert failed.any()
    assert np.isfinite(told).all()
    for place in np.flatnonzero(failed):
        assert told[place] >= told[:place][~failed[:place]].max(initial=-np.inf)


def test_an_error_ends_the_exploration() -> None:
    """What a fit raised comes out, and the other fits are not waited for."""
    with pytest.raises(ArithmeticError):
        explore(Run(), [(LINE, N)], peak, fails=ArithmeticError("no fit"))


@pytest.mark.parametrize("kill_after", range(1, N))
def test_killed_anywhere_it_asks_the_same_and_repeats_nothing(kill_after: int) -> None:
    """A resumed search reads what was asked, and runs no finished evaluation again."""
    run = Run(kill_after=kill_after)
    with pytest.raises(KilledError):
        explore(run, [(LINE, 9), (LINE, N - 9)], peak, n_splits=2)
    asks, finished = dict(run.asks), set(run.results)
    run.begun.clear()
    run.tells.clear()
    run.kill_after = None

    explore(run, [(LINE, 9), (LINE, N - 9)], peak, n_splits=2)

    assert {ordinal: run.asks[ordinal] for ordinal in asks} == asks
    assert not finished & set(run.begun)
    assert len(run.asks) == N
    assert sorted(ordinal for ordinal, _, _ in run.tells) == list(range(N))


@given(slots=st.integers(1, 1000), mean_s=st.none() | st.floats(0, 100))
def test_one_fit_a_slot_and_few_more(slots: int, mean_s: float | None) -> None:
    """No slot is left out, and points are not asked long before they run."""
    wanted = wanted_fits(slots, mean_s)

    assert slots <= wanted <= 2 * slots
    if mean_s is not None and mean_s > 10:
        assert wanted <= slots + 1


@given(mean_s=st.none() | st.floats(0, 1e6))
def test_the_wait_for_a_model_is_a_small_share_of_a_fit(mean_s: float | None) -> None:
    """A slot that waits for a model does so for an eighth of a fit's time."""
    assert 0 <= model_wait_s(mean_s) <= 0.12 * (mean_s or 0.0)
    assert model_wait_s(None) == 0
