"""A worker looks at a slot with short fits now and then, but in time for its end."""

from __future__ import annotations

import pytest

from dask_hpsearch.slots.batch_run import Rests


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.seconds


def end_noticed(fit_s: float, n_fits: int, quiet_s: float) -> tuple[float, int]:
    """Run fits; return when the worker sees the last answer, and how often it looks."""
    clock = Clock()
    rests = Rests(quiet_s, clock)
    clock.seconds += rests.first_s
    looks = 0
    while rests.n_answers < n_fits:
        looks += 1
        ended = min(int(clock.seconds / fit_s + 1e-9), n_fits)
        rests.n_answers = max(rests.n_answers, ended)
        rest_s = rests.next_s(n_fits - rests.n_answers)
        next_end_s = (rests.n_answers + 1) * fit_s
        clock.seconds = clock.seconds + rest_s if rest_s else next_end_s
    return clock.seconds, looks


def test_a_batch_without_a_prediction_is_looked_at_all_the_time() -> None:
    """Nothing is known of its fits."""
    rests = Rests(0.0, Clock())

    assert rests.first_s == 0
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
    clock = Clock()
    rests = Rests(0.4, clock)
    clock.seconds, rests.n_answers = 0.2, 1

    assert rests.next_s(50) <= 0.05
