"""A worker looks at a slot with short fits now and then, but in time for its end."""

from __future__ import annotations

import pytest

from dask_hpsearch.concurrency import Clock
from dask_hpsearch.slots.batch_run import Rests


class Time:
    """A time that passes as it is told to."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.clock = Clock(now=lambda: self.seconds, sleep=self.pass_)

    def pass_(self, seconds: float) -> None:
        """Let some time pass."""
        self.seconds += seconds


def end_noticed(fit_s: float, n_fits: int, quiet_s: float) -> tuple[float, int]:
    """Run fits; return when the worker sees the last answer, and how often it looks."""
    time = Time()
    rests = Rests(quiet_s, time.clock)
    rests.begin()
    looks = 0
    while rests.n_answers < n_fits:
        looks += 1
        ended = min(int(time.seconds / fit_s + 1e-9), n_fits)
        if ended > rests.n_answers:
            rests.n_answers = ended
            continue
        rest_s = rests.next_s(n_fits - rests.n_answers)
        if rest_s:
            rests.rest(rest_s)
        else:
            time.seconds = max(time.seconds, (rests.n_answers + 1) * fit_s)
    return time.seconds, looks


def test_a_batch_without_a_prediction_is_looked_at_all_the_time() -> None:
    """Nothing is known of its fits."""
    time = Time()
    rests = Rests(0.0, time.clock)

    rests.begin()

    assert time.seconds == 0
    assert rests.next_s(10) == 0


def test_fits_as_short_as_predicted_cost_few_looks() -> None:
    """Far fewer than there are fits."""
    _, looks = end_noticed(fit_s=0.003, n_fits=130, quiet_s=0.32)

    assert looks < 130 / 3


@pytest.mark.parametrize("quiet_s", [0.1, 0.4])
@pytest.mark.parametrize("n_fits", [4, 20])
def test_the_end_of_shorter_fits_is_noticed_early(quiet_s: float, n_fits: int) -> None:
    """A wrong prediction keeps the slot idle for a part of the predicted time only."""
    fit_s = 0.002

    noticed_s, _ = end_noticed(fit_s, n_fits, quiet_s)

    assert noticed_s <= n_fits * fit_s + quiet_s / 8 + fit_s


def test_a_slow_first_fit_says_little_of_the_others() -> None:
    """It may have made a step that the others share."""
    time = Time()
    rests = Rests(0.4, time.clock)
    time.seconds, rests.n_answers = 0.2, 1

    assert rests.next_s(50) <= 0.05


@pytest.mark.parametrize("n_answers", [0, 9])
def test_a_fit_that_hangs_is_watched(n_answers: int) -> None:
    """No rest follows a rest without an answer: limits are checked, results reported."""
    time = Time()
    rests = Rests(0.4, time.clock)
    time.seconds, rests.n_answers = 0.1, n_answers

    rests.rest(rests.next_s(8))

    assert rests.next_s(8) == 0
    time.seconds += 100
    assert rests.next_s(8) == 0
    rests.n_answers += 1
    time.seconds += 0.1
    assert rests.next_s(7) > 0
