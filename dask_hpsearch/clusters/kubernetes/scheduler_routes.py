"""What a scheduler in a pod answers over HTTP: the three questions of the Dask operator.

Dask's own routes also tell tasks, workers and addresses to whoever asks, without a password
(https://github.com/dask/distributed/issues/6407). These tell three numbers, and whom to let
go.
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

_LEAVING = "dask-hpsearch-leaving"  # when workers were chosen to leave, by name
_JSON = "application/json"
# Until a worker that was chosen has heard of it, and is paused. If it never hears, because
# our answer was lost, the operator asks again after a minute, and it may be chosen again.
_CHOSEN_FOR_S = 30.0
_STILL_RUNS_S = 5.0  # one that was told to end is paused by then: this one was not told
_CLOSING = (Status.closing_gracefully, Status.closing)
_MAY_COME_BACK_S = 60.0


@dataclass(frozen=True, slots=True, order=True)
class Load:
    """What a worker has: those with little can leave at little cost."""

    processing: int
    nbytes: int
    address: str
    name: str


def choose_leaving(loads: Iterable[Load], n: int) -> list[Load]:
    """Choose the workers that leave when a cluster becomes smaller."""
    return sorted(loads)[: max(n, 0)]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A worker that may leave.

    Attributes
    ----------
    load : Load
    closing : bool
        Whether it leaves by itself, or because a client has asked it to: its pod would
        begin it again.
    chosen_for : float
        Seconds since it was chosen last.
    """

    load: Load
    closing: bool
    chosen_for: float = math.inf


def who_leaves(candidates: Iterable[Candidate], n: int) -> list[Load]:
    """Choose so many workers, if there are so many.

    The operator asks once and removes the workers that it is given: fewer than it asked
    for would leave the cluster too large. So workers that were chosen for an earlier request
    and still run count if there are no others.
    """
    known = list(candidates)
    fresh = [one for one in known if one.chosen_for >= _CHOSEN_FOR_S]
    closing = [one.load for one in fresh if one.closing]
    running = [one.load for one in fresh if not one.closing]
    again = [
        one.load
        for one in known
        if not one.closing and _STILL_RUNS_S <= one.chosen_for < _CHOSEN_FOR_S
    ]
    chosen: list[Load] = []
    for group in (closing, running, again):
        chosen += choose_leaving(group, n - len(chosen))
    return chosen


class GoneWorkers(SchedulerPlugin):
    """Remembers workers that are gone, and may be about to begin again in their pods."""

    name = "dask-hpsearch-gone-workers"

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._gone: dict[str, float] = {}

    def names(self, now: float) -> list[str]:
        """Name those that went a moment ago, and have not come back."""
        self._gone = {
            name: since
            for name, since in self._gone.items()
            if now - since < _MAY_COME_BACK_S
        }
        return list(self._gone)

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """Take note of one that comes, perhaps again."""
        name = self._known[worker] = str(scheduler.workers[worker].name)
        self._gone.pop(name, None)

    def remove_worker(self, scheduler: Scheduler, worker: str, **kwargs: Any) -> None:
        """Remember one that goes."""
        del scheduler, kwargs
        name = self._known.pop(worker, None)
        if name is not None:
            self._gone[name] = time.monotonic()


def wanted_workers(tasks: int, slots_per_worker: int) -> int:
    """Return how many workers would take up all that is to be done now."""
    return math.ceil(tasks / max(slots_per_worker, 1))


class RetireWorkersHandler(RequestHandler):
    """Names the workers that leave; they drain as their pods are told to end."""

    def post(self) -> None:
        """Answer with the chosen ones, by address."""
        scheduler: Any = self.server
        asked = json.loads(self.request.body or b"{}")
        now = time.monotonic()
        chosen_at: dict[str, float] = scheduler.extensions.setdefault(_LEAVING, {})
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
        chosen = who_leaves(candidates, int(asked.get("n") or 0))
        chosen_at |= {load.name: now for load in chosen}
        self.set_header("Content-Type", _JSON)
        self.write(json.dumps({load.address: {"name": load.name} for load in chosen}))


class AdaptiveTargetHandler(RequestHandler):
    """Tells how many workers there is work for."""

    def get(self) -> None:
        """Answer with their number."""
        slots = int(os.environ.get(SLOTS_VARIABLE, "1"))
        scheduler: Any = self.server
        announced = demand.total(scheduler.get_events(demand.TOPIC), time.time())
        tasks = unfinished_tasks(scheduler) + announced
        self.set_header("Content-Type", _JSON)
        self.write(json.dumps({"workers": wanted_workers(tasks, slots)}))


class CheckIdleHandler(RequestHandler):
    """Tells since when there has been nothing to do."""

    def get(self) -> None:
        """Answer with a time, or with 0 if there is something to do."""
        scheduler: Any = self.server
        self.set_header("Content-Type", _JSON)
        self.write(json.dumps({"idle_since": scheduler.check_idle() or 0}))


def unfinished_tasks(scheduler: Scheduler) -> int:
    """Count what runs, waits for a slot, or waits for a first worker."""
    processing = sum(len(ws.processing) for ws in scheduler.workers.values())
    return processing + len(scheduler.queued) + len(scheduler.unrunnable)


routes: list[tuple[str, type[RequestHandler], dict[str, Any]]] = [
    ("/api/v1/retire_workers", RetireWorkersHandler, {}),
    ("/api/v1/adaptive_target", AdaptiveTargetHandler, {}),
    ("/api/v1/check_idle", CheckIdleHandler, {}),
]
