"""HTTP routes of a scheduler in a pod: the three that the Dask operator needs.

Dask's own routes also return tasks, workers and addresses without authentication
(https://github.com/dask/distributed/issues/6407). These return three numbers, and the workers
to remove.
"""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distributed.core import Status
from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.http.utils import RequestHandler

from dask_hpsearch.clusters.kubernetes.manifests import SLOTS_VARIABLE
from dask_hpsearch.engine import demand

if TYPE_CHECKING:
    from collections.abc import Iterable

    from distributed import Scheduler

_CHOSEN = "dask-hpsearch-leaving"  # when workers were chosen for removal, by name
_JSON = "application/json"
# Until the pod of a chosen worker is terminated. If it is not, because the response was lost,
# the operator repeats its request after a minute, and the worker may be chosen again.
_CHOSEN_FOR = 30.0
_STILL_RUNS_AFTER = 5.0  # a worker that drains is paused by then
_CLOSING = (Status.closing_gracefully, Status.closing)
_MAY_RESTART_WITHIN = 60.0


@dataclass(frozen=True, slots=True, order=True)
class Load:
    """The load of a worker: the least loaded ones are removed first."""

    processing: int
    nbytes: int
    address: str
    name: str


def choose_leaving(loads: Iterable[Load], n: int) -> list[Load]:
    """Choose the workers that are removed when a cluster is scaled down."""
    return sorted(loads)[: max(n, 0)]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A worker that may be removed.

    Attributes
    ----------
    load : Load
    closing : bool
        Whether it is closing, by itself or on a client's request: its pod would restart
        it.
    chosen_for : float
        Seconds since it was chosen last.
    """

    load: Load
    closing: bool
    chosen_for: float = math.inf


def choose_retiring(candidates: Iterable[Candidate], n: int) -> list[Load]:
    """Choose ``n`` workers, or fewer if there are fewer.

    The operator sends one request and removes the workers in the response: with too few of
    them the cluster would stay too large. So workers that were chosen for an earlier request
    and still run are chosen again if there are no others.
    """
    known = list(candidates)
    fresh = [one for one in known if one.chosen_for >= _CHOSEN_FOR]
    closing = [one.load for one in fresh if one.closing]
    running = [one.load for one in fresh if not one.closing]
    again = [
        one.load
        for one in known
        if not one.closing and _STILL_RUNS_AFTER <= one.chosen_for < _CHOSEN_FOR
    ]
    chosen: list[Load] = []
    for group in (closing, running, again):
        chosen += choose_leaving(group, n - len(chosen))
    return chosen


class GoneWorkers(SchedulerPlugin):
    """Remembers workers that have left, and may restart in their pods."""

    name = "dask-hpsearch-gone-workers"

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._gone: dict[str, float] = {}

    def names(self, now: float) -> list[str]:
        """Return the names of those that left recently, and have not come back."""
        self._gone = {
            name: since
            for name, since in self._gone.items()
            if now - since < _MAY_RESTART_WITHIN
        }
        return list(self._gone)

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """Note a worker that joins, perhaps again."""
        name = self._known[worker] = str(scheduler.workers[worker].name)
        self._gone.pop(name, None)

    def remove_worker(self, scheduler: Scheduler, worker: str, **kwargs: Any) -> None:
        """Remember a worker that leaves."""
        del scheduler, kwargs
        name = self._known.pop(worker, None)
        if name is not None:
            self._gone[name] = time.monotonic()


def target_workers(tasks: int, slots_per_worker: int) -> int:
    """Return how many workers can run all unfinished tasks at once."""
    return math.ceil(tasks / max(slots_per_worker, 1))


class RetireWorkersHandler(RequestHandler):
    """Names the workers to remove; they drain when their pods are terminated."""

    def post(self) -> None:
        """Respond with the chosen workers, by address."""
        scheduler: Any = self.server
        request = json.loads(self.request.body or b"{}")
        now = time.monotonic()
        chosen_at: dict[str, float] = scheduler.extensions.setdefault(_CHOSEN, {})
        gone: GoneWorkers | None = scheduler.plugins.get(GoneWorkers.name)
        candidates = [
            Candidate(
                Load(len(ws.processing), ws.nbytes, ws.address, str(ws.name)),
                closing=ws.status in _CLOSING,
                chosen_for=now - chosen_at.get(str(ws.name), -math.inf),
            )
            for ws in scheduler.workers.values()
            if ws.status == Status.running or ws.status in _CLOSING
        ]
        lost = [] if gone is None else gone.names(now)
        candidates += [
            Candidate(Load(0, 0, f"gone://{name}", name), closing=True)
            for name in lost
            if name not in chosen_at
        ]
        chosen = choose_retiring(candidates, int(request.get("n") or 0))
        chosen_at |= {load.name: now for load in chosen}
        self.set_header("Content-Type", _JSON)
        self.write(json.dumps({load.address: {"name": load.name} for load in chosen}))


class AdaptiveTargetHandler(RequestHandler):
    """Returns for how many workers there is work."""

    def get(self) -> None:
        """Respond with their number."""
        slots = int(os.environ.get(SLOTS_VARIABLE, "1"))
        scheduler: Any = self.server
        announced = demand.total(scheduler.get_events(demand.TOPIC), time.time())
        tasks = unfinished_tasks(scheduler) + announced
        self.set_header("Content-Type", _JSON)
        self.write(json.dumps({"workers": target_workers(tasks, slots)}))


class CheckIdleHandler(RequestHandler):
    """Returns since when the scheduler has been idle."""

    def get(self) -> None:
        """Respond with a time, or with 0 if there is work."""
        scheduler: Any = self.server
        self.set_header("Content-Type", _JSON)
        self.write(json.dumps({"idle_since": scheduler.check_idle() or 0}))


def unfinished_tasks(scheduler: Scheduler) -> int:
    """Count tasks that run, or wait for a slot or a worker."""
    processing = sum(len(ws.processing) for ws in scheduler.workers.values())
    return processing + len(scheduler.queued) + len(scheduler.unrunnable)


routes: list[tuple[str, type[RequestHandler], dict[str, Any]]] = [
    ("/api/v1/retire_workers", RetireWorkersHandler, {}),
    ("/api/v1/adaptive_target", AdaptiveTargetHandler, {}),
    ("/api/v1/check_idle", CheckIdleHandler, {}),
]
