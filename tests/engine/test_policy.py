"""What the engine submits next."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dask_hpsearch.engine.policy import (
    LEAST_BATCH_S,
    MOST_QUEUED_PER_SLOT,
    SCHEDULER_S,
    SCHEDULER_SHARE,
    TARGET_BATCH_S,
    Durations,
    batch_size,
    most_in_flight,
    most_queued,
    quiet_time_s,
)


@pytest.mark.parametrize("slots", [1, 4, 10_000])
def test_a_slot_has_one_batch_running_and_one_waiting(slots: int) -> None:
    """Slots whose fits take equally long end together: none then waits for the client."""
    assert most_in_flight(slots) == 2 * slots


def test_a_cluster_without_slots_gets_a_few_batches() -> None:
    """So that it grows."""
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


@given(slots=st.integers(1, 20_000), mean_s=st.floats(0.02, 1e3))
def test_the_scheduler_is_busy_for_half_the_time(slots: int, mean_s: float) -> None:
    """Batches grow with the number of slots, while there is enough to do."""
    size = batch_size(waiting=10**9, slots=slots, mean_s=mean_s)

    batches_per_s = slots / (size * mean_s)
    largest_batch = size == 500
    assert largest_batch or batches_per_s * SCHEDULER_S <= SCHEDULER_SHARE + 1e-9


@given(
    slots=st.integers(1, 100),
    waiting=st.integers(1, 10**6),
    mean_s=st.floats(1e-3, 1e3),
)
def test_few_slots_have_short_batches(slots: int, waiting: int, mean_s: float) -> None:
    """As short as if the scheduler took no time: it has few to look after."""
    size = batch_size(waiting=waiting, slots=slots, mean_s=mean_s)

    assert size == 1 or size * mean_s <= TARGET_BATCH_S


@given(slots=st.integers(1, 20_000), mean_s=st.floats(0.05, 100))
def test_batches_shrink_toward_the_end(slots: int, mean_s: float) -> None:
    """The last round has one fit in each batch, so that all slots end together."""
    sizes = [
        batch_size(waiting=rounds * slots, slots=slots, mean_s=mean_s)
        for rounds in range(1, 30)
    ]

    assert sizes == sorted(sizes)
    assert sizes[:2] == [1, 1]


@given(slots=st.integers(0, 50_000))
def test_waiting_fits_are_bounded(slots: int) -> None:
    """But every slot has some to come."""
    most = most_queued(slots, usual=20_000)

    assert most >= 10 * slots
    assert 20_000 <= most <= max(50_000, 10 * slots)
    assert most_queued(slots, usual=0) <= MOST_QUEUED_PER_SLOT * slots
