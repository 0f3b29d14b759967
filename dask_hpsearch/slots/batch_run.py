"""The state of a batch that a slot runs: waiting tasks, outcomes, causes of death."""

from __future__ import annotations

import contextlib
import pickle
import signal
import socket
import time
from collections import deque
from typing import TYPE_CHECKING

from dask_hpsearch.concurrency import Clock
from dask_hpsearch.messages import (
    BATCH_DONE,
    SLOT_DONE,
    STOP_SIGN,
    TASK_BEGINS,
    TASK_DEFERRED,
    Batch,
    Outcome,
    Status,
    Task,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dask_hpsearch.exceptions import HPSearchError
    from dask_hpsearch.slots.slot import Slot

_EARLY_REPORT_S = 0.5
_FIRST_LOOK = 0.125  # of the time that a batch was predicted to take
_QUIET_PART = 0.8
_LEAST_REST_S = 0.005
GIB = 2**30


class BatchRun:
    """One batch on its way through slots: the waiting tasks and the known outcomes."""

    def __init__(self, batch: Batch, report: Callable[[list[bytes]], None]) -> None:
        self.waiting: deque[Task] = deque(batch.tasks)
        self.outcomes: list[bytes] = []
        self._batch = batch
        self._report = report
        self._reported = 0
        self._started = time.monotonic()
        self._task_started = self._started
        self._stopped = False
        self._blameless = False

    def follow(self, slot: Slot) -> None:
        """Take a slot's answers until it has run the tasks that it was sent."""
        self._stopped = self._blameless = False
        self._begin_task(slot)
        rests = Rests(self._batch.quiet_s)
        rests.begin()
        while True:
            rest_s = rests.next_s(len(self.waiting))
            try:
                answer = slot.receive(0 if rest_s else self._next_check_s(slot))
            except TimeoutError:
                rests.rest(rest_s) if rest_s else self._check(slot)
                continue
            rests.n_answers += 1
            if answer in (BATCH_DONE, SLOT_DONE):
                slot.leaves = answer == SLOT_DONE
                break
            if answer in (TASK_BEGINS, TASK_DEFERRED):
                if answer == TASK_DEFERRED:
                    self.waiting.rotate(-1)
                self._begin_task(slot)
                continue
            self.waiting.popleft()  # a slot answers in order
            self.outcomes.append(answer)
            # If the slot was ended just as its task ended, the next task is not to blame.
            self._blameless = slot.ended_for is not None
            self._begin_task(slot)
        if self._stopped:  # other slots have the rest by now
            self.give_back_all()

    def note_death(self, slot: Slot | None, *, excused: bool) -> None:
        """Note the slot's death as the running task's outcome, unless it is excused."""
        if slot is None or excused or not self.waiting:
            return None
        code = slot.exit_code()
        if slot.ended_for == "cancelled" or (code is None and slot.is_lost):
            return self.give_back_all()
        status, message = _cause_of_death(slot, code, self._batch.fit_timeout_s)
        seconds = time.monotonic() - self._task_started
        if not self._blameless:
            self._note(
                Outcome(
                    self.waiting[0].number, status, message=message, seconds=seconds
                )
            )
        if self._stopped:  # other slots have the rest by now
            self.give_back_all()
        return None

    def give_back_all(self) -> None:
        """Give back the tasks that have not run."""
        while self.waiting:
            self._note(Outcome(self.waiting[0].number, "returned"))

    def _begin_task(self, slot: Slot) -> None:
        self._task_started = time.monotonic()
        slot.peak_bytes = 0
        if self.waiting:
            slot.task = self._batch.topic, self.waiting[0].number

    def _note(self, outcome: Outcome) -> None:
        """Note the outcome of the first waiting task, whose slot cannot report it."""
        self.waiting.popleft()
        self.outcomes.append(outcome.to_bytes())

    def _next_check_s(self, slot: Slot) -> float:
        limit = self._batch.fit_timeout_s
        if limit is None or slot.ended_for is not None:
            return _EARLY_REPORT_S
        left = self._task_started + limit - time.monotonic()
        return max(0.0, min(left, _EARLY_REPORT_S))

    def _check(self, slot: Slot) -> None:
        """End a task that runs too long; report outcomes and give back waiting tasks."""
        now = time.monotonic()
        limit = self._batch.fit_timeout_s
        if limit is not None and now - self._task_started >= limit:
            slot.end("timeout")
        if self._reported < len(self.outcomes):
            self._report(self.outcomes[self._reported :])
            self._reported = len(self.outcomes)
        held = now - self._started < self._batch.hold_s
        if len(self.waiting) > 1 and not held and not self._stopped:
            self._stopped = True  # other slots can run what waits here
            slot.send(STOP_SIGN)
            later = list(self.waiting)[1:]
            self._report(
                [Outcome(task.number, "returned").to_bytes() for task in later]
            )


class Rests:
    """How long not to look at a slot, whose short fits report hundreds of times a second.

    The fits' times are first known from a prediction, then from those that have ended. After
    a rest without an answer, the fit that runs is watched as any other.

    Parameters
    ----------
    quiet_s : float
        Predicted time in which there is nothing to do but to gather answers.
    clock : Clock, optional

    Attributes
    ----------
    n_answers : int
        Answers so far.
    """

    def __init__(self, quiet_s: float, clock: Clock | None = None) -> None:
        self._clock = clock or Clock(now=time.monotonic)
        self._began = self._clock.now()
        self._quiet_s = quiet_s
        self._n_at_rest: int | None = None
        self.n_answers = 0

    def begin(self) -> None:
        """Rest before the first look."""
        self._clock.sleep(self._quiet_s * _FIRST_LOOK)

    def next_s(self, n_waiting: int) -> float:
        """Return how long to rest if no answer is there; 0 to wait for the next one."""
        if not self._quiet_s or self._n_at_rest == self.n_answers:
            return 0.0
        passed_s = self._clock.now() - self._began
        if self.n_answers:
            left_s = _QUIET_PART * n_waiting * passed_s / self.n_answers
            # The first fits may be slower: they make steps that the others share.
            left_s = min(left_s, passed_s / 4, _EARLY_REPORT_S)
        else:
            left_s = min(self._quiet_s - passed_s, passed_s)
        return left_s if left_s >= _LEAST_REST_S else 0.0

    def rest(self, seconds: float) -> None:
        """Rest for some time."""
        self._clock.sleep(seconds)
        self._n_at_rest = self.n_answers


def _cause_of_death(
    slot: Slot, code: int | None, fit_timeout_s: float | None
) -> tuple[Status, str]:
    """Return why a slot's process ended: a status, and the cause in words."""
    peak = f"{slot.peak_bytes / GIB:.2f} GiB"
    if slot.ended_for == "memory":
        return "memory", f"it used {peak} of memory, more than its slot's share"
    if slot.ended_for == "disk":
        return "disk", slot.cause
    if slot.ended_for == "timeout":
        return "timeout", f"it ran longer than fit_timeout={fit_timeout_s:g} s"
    if code is None:
        slot.end("disconnected")
        return "exited", "it closed the connection between its process and the worker"
    with contextlib.suppress(ValueError):
        if code < 0:
            name = signal.Signals(-code).name
            return "killed", (
                f"its process was killed by {name} (last memory seen: {peak})"
            )
    return "exited", f"its process ended with exit code {code} (last memory: {peak})"


def without_data(tasks: Iterable[Task], error: HPSearchError) -> list[bytes]:
    """Return the outcomes of tasks whose data did not reach the worker."""
    error.add_note(f"(on the worker at {socket.gethostname()})")
    payload, message = pickle.dumps(error, protocol=5), str(error)
    return [
        Outcome(one.number, "no data", payload, message).to_bytes() for one in tasks
    ]
