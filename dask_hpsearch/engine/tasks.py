"""Tasks on their way through the engine, and the groups that are cancelled together."""

from __future__ import annotations

import uuid
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from dask_hpsearch.engine.demand import slots_wanted
from dask_hpsearch.engine.policy import Durations, batch_size, quiet_time_s
from dask_hpsearch.messages import Batch, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from distributed import Future

    from dask_hpsearch.exceptions import HPSearchError
    from dask_hpsearch.messages import DataRef, Task

_LEAST_HOLD_S = 1.0
GIB = 2**30


@dataclass(slots=True)
class Group:
    """The tasks of one joblib call: what is cancelled together.

    Attributes
    ----------
    most_running : int or None
        Batches that may be with Dask at once (joblib's ``n_jobs``); None: no limit.
    """

    most_running: int | None = None
    name: str = field(default_factory=lambda: uuid.uuid4().hex[:16])
    waiting: deque[Job] = field(default_factory=deque)
    in_flight: int = 0
    durations: Durations = field(default_factory=Durations)
    cancelled: bool = False

    def wants(self) -> int:
        """Return how many further slots its waiting jobs are worth."""
        wanted = slots_wanted(len(self.waiting), self.durations.mean_s)
        if self.most_running is None:
            return wanted
        return min(wanted, max(self.most_running - self.in_flight, 0))

    def take_batch(self, slots: int) -> list[Job]:
        """Take the jobs of the next batch; one whose process was killed goes alone."""
        size = batch_size(
            waiting=len(self.waiting), slots=slots, mean_s=self.durations.mean_s
        )
        jobs = [self.waiting.popleft()]
        while len(jobs) < size and self.waiting:
            if jobs[0].deaths or self.waiting[0].deaths:
                break
            jobs.append(self.waiting.popleft())
        return jobs

    def batch_of(
        self, jobs: list[Job], number: int, *, topic: str, fit_timeout_s: float | None
    ) -> Batch:
        """Put some of its jobs together as they go to a worker."""
        mean_s = self.durations.mean_s or 0.0
        return Batch(
            group=self.name,
            topic=topic,
            tasks=tuple(job.task for job in jobs),
            data=tuple(dict.fromkeys(ref for job in jobs for ref in job.data)),
            fit_timeout_s=fit_timeout_s,
            hold_s=max(_LEAST_HOLD_S, 2 * len(jobs) * mean_s),
            quiet_s=quiet_time_s(len(jobs), mean_s),
            number=number,
        )


@dataclass(slots=True, eq=False)
class Job:
    """A task, what it needs, and who waits for its outcome.

    Attributes
    ----------
    returns : int
        How often it came back without having run to its end.
    deaths : int
        How often its process was killed.
    """

    task: Task
    data: tuple[DataRef, ...]
    group: Group
    done: Callable[[Outcome | HPSearchError], None]
    returns: int = 0
    deaths: int = 0
    resolved: bool = False


@dataclass(slots=True, eq=False)
class InFlightBatch:
    """A batch that Dask has.

    Attributes
    ----------
    open : set of int
        Jobs whose outcome is not known yet.
    """

    group: Group
    open: set[int]
    future: Future[bytes]


def tried_twice(outcome: Outcome) -> Outcome:
    """Say of a fit that did not end by itself that it was tried twice."""
    if not outcome.message:
        return outcome
    return replace(outcome, message=f"{outcome.message}; it was tried twice")


def crash_outcome(report: Mapping[str, Any]) -> Outcome:
    """Make a fit's outcome of what its worker's successor found in the same pod."""
    gib = report["nbytes"] / GIB
    if "evicted" in report:
        message = (
            f"{report['evicted']}; it had written {gib:.2f} GiB there, most of all fits"
        )
        return Outcome(report["crashed"], "disk", message=message)
    message = (
        f"the container of its worker {report['name']} ended while it used "
        f"{gib:.2f} GiB of memory, more than any other fit there: for "
        "lack of memory, most likely"
    )
    return Outcome(report["crashed"], "memory", message=message)
