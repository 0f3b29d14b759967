"""Tasks on their way through the engine, and the groups that are cancelled together."""

from __future__ import annotations

import uuid
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from dask_hpsearch.engine.policy import Durations

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Future

    from dask_hpsearch.errors import HPSearchError
    from dask_hpsearch.trials import DataRef, Outcome, Task


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

    def take(self, size: int) -> list[Job]:
        """Take the jobs of the next batch; one whose process was killed goes alone."""
        jobs = [self.waiting.popleft()]
        while len(jobs) < size and self.waiting:
            if jobs[0].deaths or self.waiting[0].deaths:
                break
            jobs.append(self.waiting.popleft())
        return jobs


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
class Flight:
    """A batch that Dask has.

    Attributes
    ----------
    open : set of int
        Jobs whose outcome is not known yet.
    """

    group: Group
    open: set[int]
    future: Future[bytes]


def told_twice(outcome: Outcome) -> Outcome:
    """Say of a fit that did not end by itself that it was tried twice."""
    if not outcome.message:
        return outcome
    return replace(outcome, message=f"{outcome.message}; it was tried twice")
