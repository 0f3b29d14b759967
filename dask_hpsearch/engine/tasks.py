"""Tasks on their way through the engine, and the groups that are cancelled together."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from dask_hpsearch.engine.demand import slots_wanted
from dask_hpsearch.engine.policy import batch_size, quiet_time_s
from dask_hpsearch.engine.waiting_tasks import WaitingTasks
from dask_hpsearch.messages import Batch, FitTask, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from distributed import Future

    from dask_hpsearch.exceptions import HPSearchError
    from dask_hpsearch.messages import DataRef, Task

_LEAST_HOLD_S = 1.0
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
    waiting: WaitingTasks = field(default_factory=WaitingTasks)
    in_flight: int = 0
    cancelled: bool = False

    def wants(self) -> int:
        """Return how many further slots its waiting tasks are worth."""
        waiting, total_s = len(self.waiting), self.waiting.total_s()
        mean_s = None if total_s is None else total_s / max(waiting, 1)
        wanted = slots_wanted(waiting, mean_s)
        if self.most_running is None:
            return wanted
        return min(wanted, max(self.most_running - self.in_flight, 0))

    def take_batch(self, slots: int) -> list[TaskState]:
        """Take the tasks of the next batch; one whose process was killed goes alone."""
        waiting, n_waiting = self.waiting, len(self.waiting)
        tasks = [waiting.take(slots)]
        seconds = waiting.expected_s(tasks[0])
        while waiting and seconds is not None and not tasks[0].deaths:
            if waiting.returned and waiting.returned[0].deaths:
                break
            seconds += waiting.next_s(slots) or 0.0
            mean_s = seconds / (len(tasks) + 1)
            if len(tasks) >= batch_size(waiting=n_waiting, slots=slots, mean_s=mean_s):
                break
            tasks.append(waiting.take(slots))
        return tasks

    def batch_of(
        self,
        tasks: list[TaskState],
        number: int,
        *,
        topic: str,
        fit_timeout_s: float | None,
    ) -> Batch:
        """Put some of its tasks together as they go to a worker."""
        seconds = sum(self.waiting.expected_s(one) or 0.0 for one in tasks)
        return Batch(
            group=self.name,
            topic=topic,
            tasks=tuple(one.task for one in tasks),
            data=tuple(dict.fromkeys(ref for one in tasks for ref in one.data)),
            fit_timeout_s=fit_timeout_s,
            hold_s=max(_LEAST_HOLD_S, 2 * seconds),
            quiet_s=quiet_time_s(len(tasks), seconds / len(tasks)),
            number=number,
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
        f"memory, while the fit used {gib:.2f} GiB of it, more than any other fit there"
    )
    return Outcome(report["crashed"], "memory", message=message)
