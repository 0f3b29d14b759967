"""A Dask cluster on this machine for searches."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import logging
import os
import pickle
import signal
import sys
from typing import TYPE_CHECKING, Any

import dask.config
from dask.system import CPU_COUNT
from dask.utils import parse_bytes
from distributed import Adaptive, Client, LocalCluster, Worker
from distributed.core import Status
from distributed.deploy.cluster import Cluster
from distributed.deploy.spec import ProcessInterface
from distributed.worker_memory import parse_memory_limit

from dask_hpsearch.clusters.local_worker import DRAIN, NOTICE
from dask_hpsearch.data.node_reader import DataReader
from dask_hpsearch.engine.cluster_features import ClusterFeatures
from dask_hpsearch.messages import THREADS_VARIABLE
from dask_hpsearch.slots.plugin import SlotsPlugin, share_memory
from dask_hpsearch.slots.slot import python_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_logger = logging.getLogger(__name__)
_END_TIMEOUT = 3.0
# On one machine, the overhead of Dask's processes slows down the fits. By default they check
# every 20 ms whether their event loop is late, and sample their threads every 10 ms.
_TICK = "500ms"
_WORKER_ENVIRONMENT = {
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": _TICK,
    "DASK_DISTRIBUTED__WORKER__MEMORY__MONITOR_INTERVAL": _TICK,
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
}
_RESTART_PAUSE = 0.5


def local_cluster(
    n_workers: int = 1,
    slots_per_worker: int | None = None,
    *,
    threads_per_slot: int = 1,
    dashboard_address: str | None = "127.0.0.1:0",
    memory_limit: str | float | None = "auto",
    **kwargs: Any,
) -> LocalCluster:
    """Start a Dask cluster on this machine: each worker runs fits in ``slots`` processes.

    One worker stands for a node; its slots share one copy of the data. The worker
    processes do not import the main module: a script needs no main guard.

    Parameters
    ----------
    n_workers : int
        Workers to start; ``cluster.scale(n)`` adds and removes some later.
    slots_per_worker : int, optional
        Fits that one worker runs at once. Default: the machine's cores shared among the
        first ``n_workers`` and their slots' threads. Workers that are added later have as
        many: with more of them there are more slots than cores.
    threads_per_slot : int
        Threads that one fit may use: those of BLAS, OpenMP and the like, and what
        ``n_jobs=-1`` inside a fit means. Variables that are set in this process's
        environment (``OMP_NUM_THREADS``, ``OMP_WAIT_POLICY``, …) are obeyed instead.
    dashboard_address : str, optional
        Where Dask's dashboard listens; default: a free port, for this machine only.
        None: no dashboard.
    memory_limit : str, float or None
        Memory of one worker in bytes ("4 GiB"), or a share of the machine's; every slot
        gets an equal part of it. "auto": the machine's memory (of a container, its limit)
        shared among the workers; shared anew when there are more or fewer of them, for
        fits that begin after that. None: no limit.
    **kwargs
        Passed on to `distributed.LocalCluster`, which passes some on to its workers.

    Returns
    -------
    LocalCluster
        A context manager; ``get_client()``, ``scale()``, ``adapt()`` as Dask has them.

    Raises
    ------
    ValueError
        If a number is not positive.
    TypeError
        If there is no such option.

    Examples
    --------
    >>> from dask_hpsearch import local_cluster
    >>> with local_cluster(n_workers=1, slots_per_worker=2) as cluster:
    ...     with cluster.get_client() as client:
    ...         client.submit(sum, [1, 2]).result()
    3
    """
    least = {"n_workers": 0, "slots_per_worker": 1, "threads_per_slot": 1}
    given: list[Any] = [n_workers, slots_per_worker, threads_per_slot]
    for (name, lowest), value in zip(least.items(), given, strict=True):
        if name == "slots_per_worker" and value is None:
            continue
        if not isinstance(value, int) or value < lowest:
            msg = f"{name} must be a positive integer, got {value!r}"
            raise ValueError(msg)
    _refuse_unknown(kwargs)
    if slots_per_worker is None:
        cores = CPU_COUNT // threads_per_slot
        slots_per_worker = max(1, cores // max(1, n_workers))
    limit = parse_memory_limit(memory_limit, 1, max(1, n_workers), logger=_logger)
    if dashboard_address is None:
        # The scheduler serves HTTP all the same: on a free port, without the dashboard.
        dashboard_address = "127.0.0.1:0"
        kwargs["scheduler_kwargs"] = {"dashboard": False} | (
            kwargs.get("scheduler_kwargs") or {}
        )
    quiet = {
        "distributed.admin.tick.interval": _TICK,
        "distributed.worker.profile.enabled": False,  # of the scheduler's loop, too
    }
    with dask.config.set(quiet):
        cluster = _LocalCluster(
            n_workers=n_workers,
            threads_per_worker=slots_per_worker,
            worker_class=LocalWorker,
            protocol=kwargs.pop("protocol", "tcp://"),
            dashboard_address=dashboard_address,
            memory_limit=limit,
            threads_per_slot=threads_per_slot,
            **kwargs,
        )
    if memory_limit == "auto" and limit is not None:
        cluster.shared_bytes = limit * max(1, n_workers)
    _prepare_slots(cluster)
    return cluster


def _refuse_unknown(options: Iterable[str]) -> None:
    """Raise before a worker would fail in a process of its own, by its options."""
    classes = (one for one in (LocalCluster, *Worker.__mro__) if one is not object)
    known = {name for one in classes for name in inspect.signature(one).parameters} - {
        "kwargs",
        "worker_kwargs",
        "threads_per_worker",
        "worker_class",
    }
    unknown = [name for name in options if name not in known]
    if unknown:
        msg = (
            f"local_cluster has no option {', '.join(map(repr, unknown))}: it has n_workers, "
            "slots_per_worker, threads_per_slot, memory_limit, dashboard_address, and the "
            "options of distributed.LocalCluster and distributed.Worker"
        )
        raise TypeError(msg)


def _prepare_slots(cluster: LocalCluster) -> None:
    """Start slots on workers as they join, so that they are ready for the first search."""
    try:
        with Client(cluster, set_as_default=False) as client:
            plugin = SlotsPlugin.for_cluster_of(client, DataReader())
            client.register_plugin(plugin, name=SlotsPlugin.name)
    except BaseException:
        cluster.close()
        raise


class _LocalCluster(LocalCluster, ClusterFeatures):
    """Keeps a lost worker until it comes back.

    Attributes
    ----------
    shared_bytes : int or None
        Memory that all of its workers share; None: each has its own.

    Notes
    -----
    A `SpecCluster` drops a worker that has not come back 15 seconds after it was lost
    (``distributed.deploy.lost-worker-timeout``). `LocalWorker` restarts its process.
    """

    shared_bytes: int | None = None

    def __init__(self, **options: Any) -> None:
        self._sharing: set[asyncio.Future[None]] = set()
        super().__init__(**options)  # type: ignore[no-untyped-call]

    def adapt(self, *args: Any, **options: Any) -> Any:
        """Let Dask scale the cluster; workers that are removed drain first."""
        if not args:
            options.setdefault("Adaptive", _DrainingAdaptive)
        return super().adapt(*args, **options)

    def end(self) -> None:
        """Close it."""
        self.close()

    async def _close(self) -> None:
        for worker in [*self.workers.values()]:
            worker.hurry()  # one may be draining
        await super()._close()  # type: ignore[no-untyped-call]

    def _update_worker_status(self, op: str, msg: Any) -> None:
        Cluster._update_worker_status(self, op, msg)  # noqa: SLF001
        if self.shared_bytes is not None and self.status == Status.running:
            sharing = asyncio.ensure_future(self._share_memory(self.shared_bytes))
            self._sharing.add(sharing)
            sharing.add_done_callback(self._sharing.discard)

    async def _share_memory(self, nbytes: int) -> None:
        """Share the memory among the present and starting workers."""
        workers: dict[str, Any] = self.scheduler_info["workers"]
        scheduler: Any = self.scheduler
        limit = nbytes // max(1, len(workers), len(self.worker_spec))
        others = [
            address
            for address, one in workers.items()
            # A worker that leaves may be gone before the message arrives.
            if one["memory_limit"] != limit and one["name"] in self.worker_spec
        ]
        if not others:
            return
        for address in others:
            workers[address]["memory_limit"] = limit
            if address in scheduler.workers:
                scheduler.workers[address].memory_limit = limit
        message = {
            "op": "run",
            "function": pickle.dumps(share_memory),
            "kwargs": pickle.dumps({"nbytes": limit}),
        }
        with contextlib.suppress(Exception):  # the cluster may be closing
            await scheduler.broadcast(msg=message, workers=others, on_error="return")


class _DrainingAdaptive(Adaptive):
    """Lets the cluster end workers: the scheduler would close them at once."""

    async def scale_down(self, workers: Any) -> None:
        cluster: Any = self.cluster
        if workers:
            await cluster.scale_down(workers)


class LocalWorker(ProcessInterface):
    """One worker process of a `LocalCluster`, restarted if it dies.

    Parameters
    ----------
    scheduler : str
        Address of the scheduler.
    name : object
        The worker's name in the cluster.
    **options
        Options of `distributed.Worker`.
    """

    def __init__(self, scheduler: str, name: Any = None, **options: Any) -> None:
        super().__init__(scheduler=scheduler, name=name)  # type: ignore[no-untyped-call]
        self._scheduler = scheduler
        self._name = name
        self._threads_per_slot = options.pop("threads_per_slot", 1)
        self._options = options
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._leaving = False
        self._cluster: Callable[[], Any] = lambda: None  # set by a SpecCluster

    async def start(self) -> None:
        """Start the process, which registers with the scheduler."""
        await self._start_process()
        self._watcher = asyncio.ensure_future(self._restart_when_lost())
        await super().start()  # type: ignore[no-untyped-call]

    async def close(self, **_reasons: Any) -> None:
        """End the process, and its slots with it.

        If the cluster stays, fits of a second or two may end first, and results are handed
        over.
        """
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
        process, self._leaving = self._process, True
        if process is not None:
            stays = getattr(self._cluster(), "status", None) == Status.running
            await _end(process, drain=stays)
        self._process = None
        await super().close()  # type: ignore[no-untyped-call]

    def hurry(self) -> None:
        """End it at once, if it is closing."""
        if self._leaving and self._process is not None:
            _signal(self._process, signal.SIGTERM)

    async def _start_process(self) -> None:
        settings = {
            "scheduler": self._scheduler,
            "parent": os.getpid(),
            "log_level": int(self._options.get("silence_logs") or logging.INFO),
            "options": _worker_options(self._options) | {"name": self._name},
        }
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "dask_hpsearch.clusters.local_worker",
            json.dumps(settings),
            env=os.environ
            | _WORKER_ENVIRONMENT
            | {
                "PYTHONPATH": python_path(sys.path),
                THREADS_VARIABLE: str(self._threads_per_slot),
            },
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the client
        )

    async def _restart_when_lost(self) -> None:
        while self._process is not None:
            code = await self._process.wait()
            _logger.warning("local worker %s ended with code %s", self._name, code)
            await asyncio.sleep(_RESTART_PAUSE)
            await self._start_process()


async def _end(process: asyncio.subprocess.Process, *, drain: bool) -> None:
    _signal(process, DRAIN if drain else signal.SIGTERM)
    try:
        await asyncio.wait_for(
            process.wait(), _END_TIMEOUT + (NOTICE if drain else 0.0)
        )
    except TimeoutError:
        _signal(process, signal.SIGKILL)
        await process.wait()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def _worker_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that a worker in another process accepts."""
    omitted = {"security", "services", "silence_logs", "dashboard"}
    kept = {key: value for key, value in options.items() if key not in omitted}
    if isinstance(kept.get("memory_limit"), str):
        kept["memory_limit"] = parse_bytes(kept["memory_limit"])
    return {key: value for key, value in kept.items() if value is not None} | {
        "memory_limit": kept.get("memory_limit")
    }
