"""Fits that share a pipeline's first steps go where these are made."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dask_hpsearch.engine.step_groups import LONGEST_BATCH_S, StepGroups, group_size
from dask_hpsearch.engine.tasks import TaskGroup, TaskState
from dask_hpsearch.messages import DataRef, FitTask

REF = DataRef("digest", 1, "folder")


@dataclass
class Waiting:
    """A task that waits."""

    steps_group: int | None
    returns: int = 0
    deaths: int = 0


def queue(*groups: int | None) -> deque[Waiting]:
    """Return waiting tasks of these groups."""
    return deque(map(Waiting, groups))


def test_a_slot_begins_what_nobody_makes_now() -> None:
    """A group that is begun has to wait until its first fit has ended."""
    steps = StepGroups()
    assert steps.next_place(queue(0, 1)) == 0

    steps.begin(0)
    assert steps.next_place(queue(0, 0, 1)) == 2
    assert steps.next_place(queue(0, None)) == 1
    assert steps.next_place(queue(0, 0)) == 0

    steps.end(0, ran=True)
    steps.begin(0)
    assert steps.next_place(queue(0, 1)) == 0


def test_a_fit_that_came_back_makes_nothing() -> None:
    """Its group is begun anew."""
    steps = StepGroups()
    steps.begin(0)
    steps.end(0, ran=False)
    assert steps.next_place(queue(0, 1)) == 0

    steps.begin(0)
    assert steps.next_place(queue(0, 1)) == 1


@given(
    of_group=st.integers(1, 1000),
    others=st.integers(0, 10_000),
    slots=st.integers(0, 64),
    mean_s=st.none() | st.floats(0, 1e4),
)
def test_a_group_goes_out_in_equal_parts(
    of_group: int, others: int, slots: int, mean_s: float | None
) -> None:
    """No part takes more than a slot's share of what waits."""
    waiting = of_group + others

    size = group_size(of_group=of_group, waiting=waiting, slots=slots, mean_s=mean_s)

    assert 1 <= size <= of_group
    assert size == 1 or size * max(slots, 1) <= waiting
    assert size == 1 or size * (mean_s or 0) <= LONGEST_BATCH_S
    assert size <= 500


def group_of(n_groups: int, n_fits: int) -> TaskGroup:
    """Return waiting fits, in the order of candidates and splits."""
    group = TaskGroup()
    for number in range(n_groups * n_fits):
        task = FitTask(number, REF, REF, 0, 0, 1, 1, b"", 1, number % n_groups)
        group.waiting.append(TaskState(task, (), group, print))
    return group


@pytest.mark.parametrize(
    ("n_groups", "n_fits", "nodes"), [(9, 20, 2), (50, 20, 3), (15, 20, 2), (50, 10, 3)]
)
def test_few_nodes_make_what_a_group_shares(
    n_groups: int, n_fits: int, nodes: int
) -> None:
    """At most half of the groups are made twice; all fits go out once."""
    group, slots = group_of(n_groups, n_fits), 2 * nodes
    made, sent, loads = set(), [], Counter(dict.fromkeys(range(slots), 0))

    while group.waiting:
        batch = group.take_batch(slots, nodes=nodes)
        slot = min(loads, key=loads.__getitem__)
        loads[slot] += len(batch)
        made |= {(one.steps_group, slot % nodes) for one in batch}
        sent += [one.number for one in batch]

    assert sorted(sent) == list(range(n_groups * n_fits))
    assert len(made) <= 1.5 * n_groups
    assert max(loads.values()) <= 1.2 * n_groups * n_fits / slots


def test_on_one_node_fits_go_out_in_order() -> None:
    """Apart from those that would wait for the first of their group."""
    group = group_of(3, 3)

    sent = [group.take_batch(2)[0].number for _ in range(9)]

    assert sent == list(range(9))


def test_what_came_back_goes_alone() -> None:
    """A batch that was too long for its slot is not made anew."""
    group = group_of(1, 10)
    first = group.waiting.take(2)
    first.returns = 1
    group.waiting.appendleft(first)

    assert [one.number for one in group.take_batch(2, nodes=2)] == [0]
    assert len(group.take_batch(2, nodes=2)) > 1


def test_more_tasks_are_waited_for_if_there_are_several_nodes() -> None:
    """The first fits of a group come a moment before the others."""
    group = group_of(1, 1)

    assert group.lingers(2)
    assert not group.lingers(1)
    group.began -= 1
    assert not group.lingers(2)
