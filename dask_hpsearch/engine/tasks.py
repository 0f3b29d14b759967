"""Tasks on their way through the engine, and the groups that are cancelled together."""

from __future__ import annotations

import time
import uuid
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from dask_hpsearch.engine.demand import slots_wanted
from dask_hpsearch.engine.policy import Durations, batch_size, quiet_time_s
from dask_hpsearch.engine.step_groups import (
    LONGEST_BATCH_S,
    StepGroups,
    group_size,
    places_of_group,
)
from dask_hpsearch.messages import Batch, FitTask, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from distributed import Future

    from dask_hpsearch.exceptions import HPSearchError
    from dask_hpsearch.messages import DataRef, Task

_LEAST_HOLD_S = 1.0
_LINGER_S = 0.25
GIB = 2**30


@dataclass(slots=True)
class TaskGroup:
    """The tasks of one joblib call, which are cancelled together.

    Attributes
    ----------
    most_running : int or None
        Batches that may be with Dask at once (joblib's ``n_jobs``); None: no limit.
    """

    most_running: int | None = None
    name: str = field(default_factory=lambda: uuid.uuid4().hex[:16])
    waiting: deque[TaskState] = field(default_factory=deque)
    in_flight: int = 0
    durations: Durations = field(default_factory=Durations)
    steps: StepGroups = field(default_factory=StepGroups)
    cancelled: bool = False
    began: float = field(default_factory=time.monotonic)
    _measured: bool = False

    def wants(self) -> int:
        """Return how many further slots its waiting tasks are worth."""
        wanted = slots_wanted(len(self.waiting), self.durations.mean_s)
        if self.most_running is None:
            return wanted
        return min(wanted, max(self.most_running - self.in_flight, 0))

    def lingers(self, workers: int) -> bool:
        """Whether to wait for more tasks, that can go to one node with the first."""
        if workers <= 1 or not self.waiting or self.waiting[0].steps_group is None:
            return False
        return time.monotonic() < self.began + _LINGER_S

    def take_batch(self, slots: int, *, workers: int = 1) -> list[TaskState]:
        """Take the tasks of the next batch; one whose process was killed goes alone."""
        tasks = self._take_step_group(slots) if workers > 1 else []
        tasks = tasks or self._take_tasks(slots)
        for one in tasks:
            self.steps.begin(one.steps_group)
        return tasks

    def _take_step_group(self, slots: int) -> list[TaskState]:
        """Take tasks that share a pipeline's first steps, if the next one does."""
        first = self.waiting[0]
        if first.steps_group is None or first.returns or first.deaths:
            return []
        waiting: Any = self.waiting
        places = places_of_group(first.steps_group, waiting)
        size = group_size(
            of_group=len(places),
            waiting=len(self.waiting),
            slots=slots,
            mean_s=self.durations.mean_s,
        )
        tasks = [self.waiting[place] for place in places[:size]]
        for place in reversed(places[:size]):
            del self.waiting[place]
        return tasks

    def _take_tasks(self, slots: int) -> list[TaskState]:
        size = batch_size(
            waiting=len(self.waiting), slots=slots, mean_s=self.durations.mean_s
        )
        waiting: Any = self.waiting
        place = self.steps.next_place(waiting)
        tasks = [self.waiting[place]]
        del self.waiting[place]
        while len(tasks) < size and self.waiting:
            if tasks[0].deaths or self.waiting[0].deaths:
                break
            tasks.append(self.waiting.popleft())
        return tasks

    def took(self, task: TaskState, seconds: float) -> None:
        """Note how long a task took.

        One that made what others share took longer than they will: it does not count,
        unless nothing else is known.
        """
        is_like_others = self.steps.is_made(task.steps_group)
        if is_like_others and not self._measured:
            self._measured = True
            self.durations = Durations()
        if is_like_others or not self._measured:
            self.durations.add(seconds)

    def batch_of(
        self,
        tasks: list[TaskState],
        number: int,
        *,
        topic: str,
        fit_timeout_s: float | None,
    ) -> Batch:
        """Put some of its tasks together as they go to a worker."""
        mean_s = self.durations.mean_s or 0.0
        least = _LEAST_HOLD_S if len(tasks) == 1 or mean_s else LONGEST_BATCH_S
        return Batch(
            group=self.name,
            topic=topic,
            tasks=tuple(one.task for one in tasks),
            data=tuple(dict.fromkeys(ref for one in tasks for ref in one.data)),
            fit_timeout_s=fit_timeout_s,
            hold_s=max(least, 2 * len(tasks) * mean_s),
            quiet_s=quiet_time_s(len(tasks), mean_s),
            number=number,
        )


@dataclass(slots=True, eq=False)
class TaskState:
    """A task, the data that it needs, and the function that takes its outcome.

    Attributes
    ----------
    returns : int
        How often it came back without having run to its end.
    deaths : int
        How often its process was killed.
    """

    task: Task
    data: tuple[DataRef, ...]
    group: TaskGroup
    done: Callable[[Outcome | HPSearchError], None]
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
        f"memory, while the fit used {gib:.2f} GiB of it, more than any other fit there"
    )
    return Outcome(report["crashed"], "memory", message=message)
