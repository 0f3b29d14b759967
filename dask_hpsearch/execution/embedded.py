"""The local cluster of a fit without a client, which the process keeps for its next fit."""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dask.config
from distributed import Client, utils
from distributed.core import Status

from dask_hpsearch.clusters.local import local_cluster
from dask_hpsearch.exceptions import HPSearchError
from dask_hpsearch.slots.own_cluster import own_schedulers
from dask_hpsearch.slots.plugin import release_slots

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from distributed import LocalCluster, Scheduler

IDLE_S = 600.0
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Embedded:
    """A local cluster with its client.

    Attributes
    ----------
    key : hashable
        The settings with which its workers were started.
    """

    key: Hashable
    cluster: LocalCluster
    client: Client

    def is_usable(self) -> bool:
        """Whether the cluster can run another fit."""
        running = self.cluster.status == Status.running
        return running and self.client.status == "running" and bool(self._workers())

    def _workers(self) -> Any:
        scheduler: Any = self.cluster.scheduler
        return scheduler.workers

    def release(self) -> None:
        """Free the memory that a fit has left in slots and in the scheduler."""
        self.client.run(release_slots)
        self.client.run_on_scheduler(_forget_events)

    def close(self) -> None:
        """End the cluster and its client."""
        with suppress(Exception):  # the scheduler may be gone
            self.client.close()
        self.cluster.close()


def _forget_events(dask_scheduler: Scheduler) -> None:
    """Drop the events of a search that has ended: its outcomes were sent as events."""
    dask_scheduler._broker.truncate()  # noqa: SLF001 (there is no public way)


class EmbeddedClusters:
    """The clusters of fits without a client: one idle cluster is kept.

    A cluster serves one fit at a time. Afterwards it waits for the next fit with the same
    number of slots and the same surroundings. Simultaneous fits have separate clusters.

    Parameters
    ----------
    idle_s : float
        How long a cluster is kept without a fit.
    """

    def __init__(self, idle_s: float = IDLE_S) -> None:
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._idle: _Embedded | None = None
        self._timer: threading.Timer | None = None
        self._in_use: set[_Embedded] = set()
        self._of_parent: list[_Embedded] = []
        os.register_at_fork(after_in_child=self._leave_to_parent)
        atexit.register(self.close)

    @contextmanager
    def client(self, slots: int | None, *, keep: bool = True) -> Iterator[Client]:
        """Yield the client of a local cluster with one worker.

        Parameters
        ----------
        slots : int or None
            Slots of the worker; None: as many as there are cores.
        keep : bool
            Whether to use a kept cluster, and to keep the cluster afterwards.
        """
        keep = keep and _may_keep()
        embedded = (self._take(slots) if keep else None) or _start(slots)
        usable = False
        self._in_use.add(embedded)
        try:
            yield embedded.client
            usable = True
        except HPSearchError:  # the cluster may have caused it
            raise
        except Exception:  # the user's code caused it, not the cluster
            usable = True
            raise
        finally:
            self._end_fit(embedded, keep=keep and usable)

    def close(self) -> None:
        """End the cluster that is kept."""
        embedded = self._take_idle()
        if embedded is not None:
            embedded.close()

    def _take(self, slots: int | None) -> _Embedded | None:
        """Take the kept cluster if it suits the fit; otherwise close it."""
        embedded = self._take_idle()
        if embedded is None:
            return None
        if embedded.key == _surroundings(slots) and embedded.is_usable():
            return embedded
        embedded.close()
        return None

    def _end_fit(self, embedded: _Embedded, *, keep: bool) -> None:
        """Keep or close a cluster; Ctrl-C in the meantime closes it too."""
        if embedded in self._of_parent:
            return
        self._in_use.discard(embedded)
        kept = False
        try:
            kept = keep and self._put_back(embedded)
        finally:
            if not kept:
                embedded.close()

    def _put_back(self, embedded: _Embedded) -> bool:
        """Keep a cluster whose fit has ended, instead of one that was kept before."""
        try:
            embedded.release()
        except Exception as error:  # noqa: BLE001 (it is closed then)
            _logger.debug(
                "closing the local cluster, which cannot be used again: %r", error
            )
            return False
        if not embedded.is_usable():
            return False
        with self._lock:
            earlier, self._idle = self._idle, embedded
            if self._timer is not None:
                self._timer.cancel()
            self._timer = threading.Timer(self._idle_s, self._end_idle, [embedded])
            self._timer.daemon = True
            self._timer.start()
        if earlier is not None:
            earlier.close()
        return True

    def _take_idle(self, only: _Embedded | None = None) -> _Embedded | None:
        with self._lock:
            if self._idle is None or only not in (None, self._idle):
                return None
            embedded, self._idle = self._idle, None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            return embedded

    def _end_idle(self, embedded: _Embedded) -> None:
        if self._take_idle(embedded) is not None:
            embedded.close()

    def _leave_to_parent(self) -> None:
        """Leave all clusters to the process that this one was forked from.

        Their threads do not exist here, and closing one would end it for the parent. The
        references to them stay, so that garbage collection does not close them.
        """
        self._lock = threading.Lock()
        idle = set() if self._idle is None else {self._idle}
        for embedded in idle | self._in_use:
            self._of_parent.append(embedded)
            _forget(embedded.cluster)
        self._in_use.clear()
        self._idle = self._timer = None
        _renew_offload_thread()


def _renew_offload_thread() -> None:
    """Replace Dask's thread for pickles: in a forked process it waits for ever."""
    with suppress(AttributeError):  # there is no public way
        own = type(utils._offload_executor)  # noqa: SLF001
        utils._offload_executor = own(  # noqa: SLF001
            max_workers=1, thread_name_prefix="Dask-Offload"
        )


def _forget(cluster: Any) -> None:
    """Keep Dask from closing a cluster, and removing its folder, as this process ends."""
    with suppress(AttributeError):  # there is no public way
        cluster._instances.discard(cluster)  # noqa: SLF001
        cluster.scheduler._workdir._finalizer.detach()  # noqa: SLF001


def _start(slots: int | None) -> _Embedded:
    cluster = local_cluster(slots_per_worker=slots, dashboard_address=None)
    try:
        client = Client(cluster, set_as_default=False)
    except BaseException:
        cluster.close()
        raise
    # The key has sys.path with the folder that the cluster's scheduler has put in front.
    return _Embedded(_surroundings(slots), cluster, client)


def _may_keep() -> bool:
    """Whether this is the user's own process, not one of a pool or of a slot.

    Processes that a fit starts end with the fit, and a pool may have many processes.
    """
    return multiprocessing.parent_process() is None and not own_schedulers()


def _surroundings(slots: int | None) -> Hashable:
    """Return the surroundings that a cluster's processes take over when they start."""
    try:
        folder: str | None = os.getcwd()  # noqa: PTH109 (Path.cwd does the same)
    except OSError:
        folder = None
    return (
        slots,
        folder,
        tuple(sys.path),
        tuple(sorted(os.environ.items())),
        repr(dask.config.config),
    )


embedded_clusters = EmbeddedClusters()
