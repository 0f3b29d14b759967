"""Tasks on their way through the engine, and the groups that are cancelled together."""

from __future__ import annotations

import math
import time
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from dask_hpsearch.engine.demand import slots_wanted
from dask_hpsearch.engine.policy import Durations, batch_size, quiet_time_s
from dask_hpsearch.engine.step_groups import LONGEST_BATCH_S, StepGroups, group_size
from dask_hpsearch.engine.waiting_tasks import WaitingTasks
from dask_hpsearch.messages import Batch, FitTask, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from distributed import Future

    from dask_hpsearch.exceptions import HPSearchError
    from dask_hpsearch.messages import DataRef, Task

_LEAST_HOLD_S = 1.0
_LINGER_S = 0.25
_ROUNDING = 1.001
GIB = 2**30


@dataclass(slots=True)
class TaskGroup:
    """The tasks of one joblib call, which are cancelled together.

    Attributes
    ----------
    most_running : int or None
        Batches that may be with Dask at once (joblib's ``n_jobs``); None: no limit.
    unfinished : int or None
        Tasks of the call that have not ended, those not yet submitted included; None: it
        is not known.
    """

    most_running: int | None = None
    unfinished: int | None = None
    name: str = field(default_factory=lambda: uuid.uuid4().hex[:16])
    waiting: WaitingTasks = field(default_factory=WaitingTasks)
    in_flight: int = 0
    steps: StepGroups = field(default_factory=StepGroups)
    cancelled: bool = False
    began: float = field(default_factory=time.monotonic)
    _with_steps: Durations = field(default_factory=Durations)

    def wants(self) -> int:
        """Return how many further slots its waiting tasks are worth."""
        waiting, total_s = len(self.waiting), self.waiting.total_s()
        mean_s = None if total_s is None else total_s / max(waiting, 1)
        wanted = slots_wanted(waiting, mean_s)
        if self.most_running is None:
            return wanted
        return min(wanted, max(self.most_running - self.in_flight, 0))

    def may_begin(self, slots: int) -> bool:
        """Whether another batch of it may go to Dask."""
        if self.most_running is not None and self.in_flight >= self.most_running:
            return False
        return self.waiting.may_begin(slots, self.in_flight)

    def lingers(self, nodes: int) -> bool:
        """Whether to wait for more tasks, that can go to one node with the first."""
        if nodes <= 1 or not self.waiting:
            return False
        if next(iter(self.waiting)).steps_group is None:
            return False
        return time.monotonic() < self.began + _LINGER_S

    def take_batch(self, slots: int, *, nodes: int = 1) -> list[TaskState]:
        """Take the tasks of the next batch; one whose process was killed goes alone."""
        tasks = self._take_step_group(slots) if nodes > 1 else []
        tasks = tasks or self._take_tasks(slots, nodes)
        for one in tasks:
            self.steps.begin(one.steps_group)
        return tasks

    def _take_step_group(self, slots: int) -> list[TaskState]:
        """Take tasks that share a pipeline's first steps, if the next one does."""
        waiting = self.waiting
        first = waiting.next_task(slots)
        if first.steps_group is None or waiting.returned:
            return []
        size = group_size(
            of_group=waiting.n_in_group(first.steps_group),
            waiting=len(waiting),
            slots=slots,
            mean_s=waiting.durations.mean_s,
        )
        share_s = (waiting.total_s() or math.inf) / max(slots, 1)
        most_s = min(_ROUNDING * share_s, LONGEST_BATCH_S)
        return waiting.take_group(first, size, most_s)

    def _take_tasks(self, slots: int, nodes: int) -> list[TaskState]:
        waiting, n_waiting = self.waiting, len(self.waiting)
        total_s = waiting.total_s()
        tasks = [waiting.take(slots, self.steps)]
        made: set[int | None] = set()
        seconds = self._expected_s(tasks[0], made)
        while waiting and seconds is not None and not tasks[0].deaths:
            if not waiting.has_free_candidate:
                break
            following = waiting.next_task(slots)
            of_group = nodes > 1 and following.steps_group is not None
            if following.deaths if waiting.returned else of_group:
                break
            seconds += self._expected_s(following, made) or 0.0
            size = batch_size(
                waiting=n_waiting,
                slots=slots,
                mean_s=seconds / (len(tasks) + 1),
                total_s=total_s,
                target_s=waiting.target_batch_s,
            )
            if len(tasks) >= size:
                break
            tasks.append(waiting.take(slots))
        return tasks

    def ended(self) -> None:
        """Note that a task of the call has ended, or that its result was known."""
        if self.unfinished is not None:
            self.unfinished -= 1

    def took(self, task: TaskState, seconds: float) -> None:
        """Note how long a task took: it may have made what others share."""
        is_typical = self.steps.is_made(task.steps_group)
        self.waiting.took(task, seconds, is_typical=is_typical)
        if not is_typical:
            self._with_steps.add(seconds)

    def _expected_s(self, task: TaskState, made: set[int | None]) -> float | None:
        """Return the expected seconds of a task of a batch.

        Parameters
        ----------
        task : TaskState
        made : set of int
            Groups whose shared steps earlier tasks of the batch make; its own is added.
        """
        seconds, group = self.waiting.expected_s(task), task.steps_group
        if seconds is None or group in made or self.steps.is_made(group):
            return seconds
        made.add(group)
        return max(seconds, self._with_steps.mean_s or 0.0)

    def batch_of(
        self,
        tasks: list[TaskState],
        number: int,
        *,
        topic: str,
        fit_timeout_s: float | None,
        later: int | None = None,
    ) -> Batch:
        """Put some of its tasks together as they go to a worker."""
        made: set[int | None] = set()
        seconds = sum(self._expected_s(one, made) or 0.0 for one in tasks)
        least = _LEAST_HOLD_S if len(tasks) == 1 or seconds else LONGEST_BATCH_S
        return Batch(
            group=self.name,
            topic=topic,
            tasks=tuple(one.task for one in tasks),
            data=tuple(dict.fromkeys(ref for one in tasks for ref in one.data)),
            fit_timeout_s=fit_timeout_s,
            hold_s=max(least, 2 * seconds),
            quiet_s=quiet_time_s(len(tasks), seconds / len(tasks)),
            number=number,
            later=later,
        )


@dataclass(slots=True, eq=False)
class TaskState:
    """A task, the data that it needs, and the function that takes its outcome.

    Attributes
    ----------
    parameters : mapping of str to object, optional
        Of the candidate that it fits.
    returns : int
        How often it came back without having run to its end.
    deaths : int
        How often its process was killed.
    """

    task: Task
    data: tuple[DataRef, ...]
    group: TaskGroup
    done: Callable[[Outcome | HPSearchError], None]
    parameters: Mapping[str, Any] | None = None
    returns: int = 0
    deaths: int = 0
    resolved: bool = False

    @property
    def number(self) -> int:
        """The task's number within its engine."""
        return self.task.number

    @property
    def steps_group(self) -> int | None:
        """The number of the fits with which it shares a pipeline's first steps."""
        return self.task.steps_group if isinstance(self.task, FitTask) else None

    @property
    def candidate(self) -> int | None:
        """Ordinal of the candidate, if it is a fit of a search."""
        return self.task.candidate if isinstance(self.task, FitTask) else None

    @property
    def n_splits(self) -> int | None:
        """How many fits its candidate has."""
        return self.task.n_splits if isinstance(self.task, FitTask) else None


@dataclass(slots=True, eq=False)
class InFlightBatch:
    """A batch that was submitted to Dask.

    Attributes
    ----------
    open : set of int
        Numbers of the tasks whose outcome is not known yet.
    """

    group: TaskGroup
    open: set[int]
    future: Future[bytes]


def tried_twice(outcome: Outcome) -> Outcome:
    """Add to the message of a fit that was ended that it was tried twice."""
    if not outcome.message:
        return outcome
    return replace(outcome, message=f"{outcome.message}; it was tried twice")


def crash_outcome(report: Mapping[str, Any]) -> Outcome:
    """Make a fit's outcome of the report on its worker's end."""
    gib = report["nbytes"] / GIB
    if "evicted" in report:
        message = (
            f"{report['evicted']}; the fit had written {gib:.2f} GiB there, more than "
            "any other"
        )
        return Outcome(report["crashed"], "disk", message=message)
    message = (
        f"the container of its worker {report['name']} ended, probably for lack of "
        f"memory, while the fit used {gib:.2f} GiB, more than any other fit there"
    )
    return Outcome(report["crashed"], "memory", message=message)
