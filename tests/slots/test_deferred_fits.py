"""A slot that needs what another slot makes runs something else meanwhile."""

from __future__ import annotations

import collections
import threading
from dataclasses import dataclass, field
from multiprocessing import Pipe
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from dask_hpsearch.localfs.node_cache import Claim
from dask_hpsearch.messages import (
    BATCH_DONE,
    STOP_SIGN,
    TASK_BEGINS,
    TASK_DEFERRED,
    Batch,
    CallTask,
    Outcome,
    decode_outcomes,
    encode_outcomes,
)
from dask_hpsearch.slots.batch_run import BatchRun
from dask_hpsearch.slots.evaluate import _run_all
from dask_hpsearch.slots.node_files import NodeFolder
from dask_hpsearch.slots.node_steps import NodeSteps
from dask_hpsearch.slots.snapshots import snapshot_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NEEDS_A_STEP = (0, 2)
KEY = "steps-a"


def task(number: int) -> CallTask:
    """Return a task of this number."""
    return CallTask(number, b"", ())


@pytest.fixture
def node(tmp_path: Path) -> NodeSteps:
    """Return the steps of a search, none yet."""
    return NodeSteps.open(NodeFolder(tmp_path / "cache", None, "search", "code"))


@dataclass
class Made:
    """Another slot, which makes a step until it is told to end."""

    node: NodeSteps
    claim: Claim

    def end(self) -> None:
        """Keep the step."""
        snapshot = snapshot_of(np.ones(3), "step", given=None)
        assert snapshot is not None
        with self.claim:
            self.node.keep(self.claim, snapshot)


@pytest.fixture
def made(node: NodeSteps) -> Made:
    """Have another slot make the step."""
    other = NodeSteps.open(node.place)
    claim = other.recall(KEY)
    assert isinstance(claim, Claim)
    return Made(other, claim)


def preparing(node: NodeSteps, ran: list[int]) -> Callable[..., Callable[[], Any]]:
    """Return what prepares tasks some of which need the step."""

    def prepare(one: CallTask, *, may_wait: bool) -> Callable[[], Any]:
        def run() -> int:
            if one.number in NEEDS_A_STEP and may_wait:
                assert isinstance(node.recall(KEY), tuple)
            ran.append(one.number)
            return one.number

        return run

    return prepare


def numbers(answers: list[bytes]) -> list[Any]:
    """Return the numbers of answers that are outcomes, and all others as they are."""
    plain = (TASK_DEFERRED, TASK_BEGINS)
    return [
        one if one in plain else decode_outcomes(encode_outcomes([one]))[0].number
        for one in answers
    ]


def test_what_needs_no_step_runs_first(node: NodeSteps, made: Made) -> None:
    """The others wait until the step is made, and begin then."""
    ran: list[int] = []
    ours, theirs = Pipe()
    answers = []
    with ours, theirs:
        tasks = tuple(map(task, range(4)))
        for answer in _run_all(tasks, preparing(node, ran), ours, node):
            answers.append(answer)
            if len(answers) == 4:
                made.end()

    assert ran == [1, 3, 0, 2]
    assert numbers(answers) == [
        *(TASK_DEFERRED, 1, TASK_DEFERRED, 3),
        *(TASK_BEGINS, 0, TASK_BEGINS, 2),
    ]


def test_a_slot_that_waits_gives_back_what_it_has(node: NodeSteps, made: Made) -> None:
    """Once its worker says so: others may begin it."""
    ran: list[int] = []
    ours, theirs = Pipe()
    with ours, theirs:
        answers = _run_all((task(0),), preparing(node, ran), ours, node)
        assert next(answers) == TASK_DEFERRED
        theirs.send(STOP_SIGN)
        rest = list(answers)

    made.claim.close()
    assert rest[0] == TASK_BEGINS
    outcomes = decode_outcomes(encode_outcomes(rest[1:]))
    assert [(one.number, one.status) for one in outcomes] == [(0, "returned")]
    assert not ran


def test_a_fit_is_deferred_only_so_often(node: NodeSteps, made: Made) -> None:
    """If others make the step again and again, it is fitted here."""
    ran: list[int] = []
    ours, theirs = Pipe()
    with ours, theirs:
        answers = _run_all((task(0),), preparing(node, ran), ours, node)
        found = [next(answers)]
        for _ in range(2):
            threading.Timer(0.05, made.claim.close).start()
            found.append(next(answers))
            claim = made.node.recall(KEY)
            assert isinstance(claim, Claim)
            made.claim = claim
            found.append(next(answers))

    made.claim.close()
    assert numbers(found) == [
        *(TASK_DEFERRED, TASK_BEGINS),
        *(TASK_DEFERRED, TASK_BEGINS),
        0,
    ]
    assert ran == [0]


@dataclass(eq=False)
class Slot:
    """A slot that answers what it is given, and ends then.

    Attributes
    ----------
    answers : deque of bytes
    """

    answers: collections.deque[bytes]
    task: tuple[str, int] = ("", -1)
    peak_bytes: int = 0
    ended_for: str | None = None
    leaves: bool = False
    is_lost: bool = False
    tasks: list[int] = field(default_factory=list)

    def receive(self, timeout_s: float) -> bytes:
        """Return the next answer."""
        del timeout_s
        self.tasks.append(self.task[1])
        if not self.answers:
            raise EOFError
        return self.answers.popleft()

    def exit_code(self) -> int:
        """Return a killed process's."""
        return -9


def followed(*answers: bytes) -> tuple[BatchRun, Slot]:
    """Follow a slot that runs three tasks, until its end."""
    batch = Batch("group", "topic", tuple(map(task, range(3))), (), None, 10.0)
    run = BatchRun(batch, lambda _: None)
    slot: Any = Slot(collections.deque(answers))
    try:
        run.follow(slot)
    except EOFError:
        run.note_death(slot, excused=False)
    return run, slot


def ended(number: int) -> bytes:
    """Return the outcome of a task."""
    return Outcome(number, "ok").to_bytes()


def test_a_worker_knows_which_fit_runs() -> None:
    """A deferred one comes last."""
    run, slot = followed(
        TASK_DEFERRED, ended(1), ended(2), TASK_BEGINS, ended(0), BATCH_DONE
    )

    assert slot.tasks == [0, 1, 2, 0, 0, 0]
    assert not run.waiting


def test_a_death_is_that_of_the_fit_that_ran() -> None:
    """Not of the one that was deferred."""
    run, _ = followed(TASK_DEFERRED, TASK_DEFERRED, ended(2))

    outcome = decode_outcomes(encode_outcomes(run.outcomes))[-1]
    assert (outcome.number, outcome.status) == (0, "killed")
    assert [one.number for one in run.waiting] == [1]
