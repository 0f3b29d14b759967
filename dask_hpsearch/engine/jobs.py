"""Tasks on their way through the engine, and the groups that are cancelled together."""

from __future__ import annotations

import uuid
from collections import deque
from dataclasses import dataclass, field
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


@dataclass(slots=True, eq=False)
class Job:
    """A task, what it needs, and who waits for its outcome."""

    task: Task
    data: tuple[DataRef, ...]
    group: Group
    done: Callable[[Outcome | HPSearchError], None]
    returns: int = 0
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
