"""Watches how many slots a client's workers have, and whether there are workers at all."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

from dask_hpsearch.engine import demand
from dask_hpsearch.engine.client import check_client, no_workers, why_no_workers
from dask_hpsearch.exceptions import ClientClosedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Client

    from dask_hpsearch.engine.cluster_features import ClusterFeatures

CHECK_S = 0.4
_ASK_EVERY_S = 2.0


class SlotWatch:
    """The slots of a client's workers, counted every few hundred milliseconds.

    Parameters
    ----------
    client : Client
    worker_timeout_s : float
        How long to wait for a first worker.
    on_slots : callable, optional
        Called with (workers, slots, running) as they change.
    cluster : ClusterFeatures
        Asked why there are no workers.

    Attributes
    ----------
    workers, slots, running : int
    nodes : int
        Machines, or pods, that the workers run on: the workers of one share its cache.
    """

    def __init__(
        self,
        client: Client,
        *,
        worker_timeout_s: float,
        on_slots: Callable[[int, int, int], None] | None,
        cluster: ClusterFeatures,
    ) -> None:
        self._cluster = cluster
        self.workers = self.nodes = self.slots = self.running = 0
        self._client = client
        self._worker_timeout_s = worker_timeout_s
        self._on_slots = on_slots
        self._counted_at = 0.0
        self._slotless_since = self._asked_at = time.monotonic()
        self._blocked_since: float | None = None
        self._saw_worker = False
        self._wanted, self._announced_at = 0, 0.0
        self.count()

    def is_due(self) -> bool:
        """Whether to count again."""
        return time.monotonic() - self._counted_at >= CHECK_S

    def count(self) -> None:
        """Ask the scheduler for its workers' slots.

        Raises
        ------
        ClientClosedError
            If the scheduler does not answer, or the connection is lost.
        """
        try:
            threads = self._threads()
        except ClientClosedError:
            raise
        except Exception as error:
            msg = (
                f"the Dask scheduler does not answer: {error!r}; check that it runs, and "
                "connect a new Client"
            )
            raise ClientClosedError(msg) from error
        self.workers, self.slots = len(threads), sum(threads.values())
        self.nodes = len({address.rpartition(":")[0] for address in threads})
        self._saw_worker = self._saw_worker or self.slots > 0
        self._counted_at = time.monotonic()

    def _threads(self) -> dict[str, int]:
        """Return the threads of each worker.

        ``Client.nthreads`` would try for half a minute to reach a lost scheduler, even if
        the client knows already that it is lost.
        """
        loop: Any = self._client.loop
        scheduler: Any = self._client.scheduler
        asked = asyncio.run_coroutine_threadsafe(scheduler.ncores(), loop.asyncio_loop)
        while not asked.done():
            with contextlib.suppress(TimeoutError):
                asked.result(CHECK_S)
            if not asked.done():
                check_client(self._client)
        threads: dict[str, int] = asked.result()
        return threads

    def wait(self) -> None:
        """Wait until there is a slot; a cluster that scales by its tasks grows one.

        Raises
        ------
        NoWorkersError
            If there is none within the time-out.
        """
        if self.slots:
            return
        probe = self._client.submit(int, pure=False)
        try:
            probe.result(timeout=self._worker_timeout_s)
        except TimeoutError as error:
            raise no_workers(self._worker_timeout_s, self._cluster) from error
        self.count()

    def work_begins(self) -> None:
        """Start the wait for a first worker now."""
        self._slotless_since = time.monotonic()

    def check_for_workers(self) -> None:
        """Give up if no worker came in time, or if lost workers cannot come back.

        A cluster that has lost all its workers may get new ones: the search waits, unless
        the cluster gives a permanent reason why none runs for as long as the time-out.

        Raises
        ------
        NoWorkersError
        VersionSkewError
            If the cluster gives that as the reason.
        """
        now = time.monotonic()
        if self.slots:
            self._slotless_since = self._asked_at = now
            self._blocked_since = None
        elif self._saw_worker:
            if now - self._asked_at > _ASK_EVERY_S:
                self._asked_at = now
                self._look_into(now)
        elif now - self._slotless_since > self._worker_timeout_s:
            raise no_workers(self._worker_timeout_s, self._cluster)

    def _look_into(self, now: float) -> None:
        """Ask why no worker runs; raise once the reason has lasted for the time-out."""
        reason = why_no_workers(self._cluster, permanent=True)
        if reason is None:
            self._blocked_since = None
            return
        self._blocked_since = self._blocked_since or now
        if now - self._blocked_since >= self._worker_timeout_s:
            raise reason

    def want(self, engine: str, slots: int) -> None:
        """Announce to the scheduler, now and then, how many further slots could be used."""
        now = time.monotonic()
        if (
            now - self._announced_at < demand.ANNOUNCE_EVERY_S
            or slots == self._wanted == 0
        ):
            return
        self._wanted, self._announced_at = slots, now
        loop: Any = self._client.loop
        scheduler: Any = self._client.scheduler
        logged = scheduler.log_event(
            topic=demand.TOPIC, msg=demand.message(engine, slots)
        )
        asyncio.run_coroutine_threadsafe(logged, loop.asyncio_loop)

    def report(self, batches: int) -> None:
        """Call ``on_slots``, with the number of batches that Dask has."""
        self.running = min(batches, self.slots)
        if self._on_slots is not None:
            self._on_slots(self.workers, self.slots, self.running)
