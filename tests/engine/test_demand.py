"""What engines tell of the work that waits."""

from __future__ import annotations

import pytest

from dask_hpsearch.engine import demand


@pytest.mark.parametrize(
    ("waiting", "mean_s", "slots"),
    [
        (0, None, 0),
        (0, 1.0, 0),
        (3, None, 3),
        (1000, None, 8),  # until the first have ended
        (1000, 0.005, 1),
        (1000, 1.0, 200),
        (20, 600.0, 20),
    ],
)
def test_slots_are_wanted_for_seconds_of_work(
    waiting: int, mean_s: float | None, slots: int
) -> None:
    """Not for what is over before they have started, and no more than tasks."""
    assert demand.slots_wanted(waiting, mean_s) == slots


def test_the_last_word_of_every_engine_counts() -> None:
    """Two engines; an old word of one, and a third that is gone."""
    events = [
        (50.0, demand.message("gone", 100)),
        (95.0, demand.message("one", 30)),
        (97.0, demand.message("other", 4)),
        (99.0, demand.message("one", 10)),
    ]

    assert demand.total(events, now=100.0) == 14
    assert demand.total(events, now=108.5) == 10
    assert demand.total([], now=100.0) == 0
