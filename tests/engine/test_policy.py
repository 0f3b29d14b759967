"""What the engine submits next."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dask_hpsearch.engine.policy import (
    LEAST_BATCH_S,
    TARGET_BATCH_S,
    Durations,
    batch_size,
    most_in_flight,
    quiet_time_s,
)


def test_a_slot_has_one_batch_running_and_one_waiting() -> None:
    """Twice the slots are in flight; a little, so that a cluster without any may grow."""
    assert most_in_flight(4) == 8
    assert most_in_flight(0) > 0


@given(
    waiting=st.integers(1, 10_000),
    slots=st.integers(0, 512),
    mean_s=st.none() | st.floats(0, 1e4),
)
def test_batches_leave_work_for_every_slot(
    waiting: int, slots: int, mean_s: float | None
) -> None:
    """More than its share of half the rest is in a batch only if it takes no time."""
    size = batch_size(waiting=waiting, slots=slots, mean_s=mean_s)

    assert 1 <= size <= waiting
    takes_no_time = size * (mean_s or 0) <= LEAST_BATCH_S
    assert size == 1 or takes_no_time or 2 * max(slots, 1) * (size - 1) < waiting


@given(mean_s=st.floats(1e-3, 1e4))
def test_batches_take_a_fraction_of_a_second(mean_s: float) -> None:
    """Long tasks go alone, short ones together."""
    size = batch_size(waiting=10**6, slots=2, mean_s=mean_s)

    assert size == 1 or size * mean_s <= TARGET_BATCH_S


def test_nothing_is_known_at_first() -> None:
    """Until a task has ended, each goes alone."""
    assert batch_size(waiting=1000, slots=2, mean_s=None) == 1


@given(seconds=st.lists(st.floats(0, 1e3), min_size=1, max_size=50))
def test_the_estimate_stays_within_what_was_seen(seconds: list[float]) -> None:
    """A smoothed mean lies between the extremes."""
    durations = Durations()
    for one in seconds:
        durations.add(one)

    assert durations.mean_s is not None
    assert min(seconds) - 1e-6 <= durations.mean_s <= max(seconds) + 1e-6


def test_a_lone_task_is_looked_at_at_once() -> None:
    """Only batches of short tasks are left alone for a while."""
    assert quiet_time_s(1, 0.1) == 0
    assert 0 < quiet_time_s(50, 0.003) < 50 * 0.003
