"""Follows the logs of a cluster's pods."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from dask_hpsearch.clusters.kubernetes.api import connected
from dask_hpsearch.clusters.kubernetes.driver_job import COMPONENT, RUN_LABEL
from dask_hpsearch.clusters.kubernetes.manifests import CLUSTER_LABEL, COMPONENT_LABEL
from dask_hpsearch.exceptions import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

    from dask_hpsearch.clusters.kubernetes.api import KubernetesApi

Manifest = dict[str, Any]
_LOOK_EVERY_S = 1.0
# Each needs an open response of the API server; logs of further pods are read at intervals.
_MAX_FOLLOWED = 48
_READ_EVERY_S = 20.0
_LAST_LINES_TIMEOUT_S = 1.0
_logger = logging.getLogger(__name__)


class PodLogs:
    """Passes on the lines that a cluster's pods write, in its own thread.

    Parameters
    ----------
    cluster, run_id : str
        Logs of the drivers of other runs are not read.
    connection : dict
        Of Kubernetes, as `api.connected` takes it.
    add_line : callable
        Called with the pod ("worker NAME"), the time, and the line.
    since : mapping
        Time of the last known line, by pod.
    """

    def __init__(
        self,
        cluster: str,
        run_id: str,
        connection: dict[str, Any],
        add_line: Callable[[str, str, str], None],
        *,
        since: Mapping[str, str],
    ) -> None:
        self._labels = f"{CLUSTER_LABEL}={cluster}"
        self._run_id = run_id
        self._connection = connection
        self._add_line = add_line
        self._since = dict(since)
        self._read_at: dict[str, float] = {}
        self._reading: dict[str, asyncio.Task[None]] = {}
        self._over: set[str] = set()
        self._end = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="dask-hpsearch-pod-logs", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Read the last lines, and end."""
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._follow())
        except Exception as error:  # noqa: BLE001 (a search does not depend on logs)
            _logger.warning("the logs of pods are not stored: %s", error)

    async def _follow(self) -> None:
        async with connected(**self._connection) as api:
            warned = False
            while not self._end.is_set():
                try:
                    for pod in await api.list("Pod", self._labels):
                        self._read_if_due(api, pod)
                except ClusterError as error:
                    level = logging.DEBUG if warned else logging.WARNING
                    _logger.log(level, "the logs of pods cannot be read now: %s", error)
                    warned = True
                await asyncio.to_thread(self._end.wait, _LOOK_EVERY_S)
            await self._read_last_lines()

    async def _read_last_lines(self) -> None:
        tasks = list(self._reading.values())
        if tasks:
            await asyncio.wait(tasks, timeout=_LAST_LINES_TIMEOUT_S)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _read_if_due(self, api: KubernetesApi, pod: Manifest) -> None:
        """Start to read a pod's log, unless that is under way or done."""
        labels, name = pod["metadata"].get("labels", {}), pod["metadata"]["name"]
        part = labels.get(COMPONENT_LABEL, "pod")
        state = _container_state(pod)
        foreign = part == COMPONENT and labels.get(RUN_LABEL) != self._run_id
        busy = name in self._reading and not self._reading[name].done()
        if state == "running":
            self._over.discard(name)
        if state is None or foreign or busy or name in self._over:
            return
        follow = sum(not one.done() for one in self._reading.values()) < _MAX_FOLLOWED
        waited = time.monotonic() - self._read_at.get(name, 0.0)
        if state == "terminated":
            self._over.add(name)
        elif not follow and waited < _READ_EVERY_S:
            return
        self._read_at[name] = time.monotonic()
        reading = self._read(api, name, f"{part} {name}", follow=follow)
        self._reading[name] = asyncio.ensure_future(reading)

    async def _read(
        self, api: KubernetesApi, pod: str, source: str, *, follow: bool
    ) -> None:
        since = self._since.get(source)
        try:
            async for moment, line in api.log_lines(pod, since=since, follow=follow):
                # Kubernetes starts at a whole second: some lines come again.
                if since is None or moment > since:
                    self._since[source] = moment
                    self._add_line(source, moment, line)
        except Exception as error:  # noqa: BLE001 (the pod or the connection ends)
            _logger.debug("the log of %s ended: %r", pod, error)


def _container_state(pod: Manifest) -> str | None:
    """Return "running" or "terminated"; None if the pod's container has not started."""
    for container in pod.get("status", {}).get("containerStatuses", []):
        for state in ("running", "terminated"):
            if state in container.get("state", {}):
                return state
    return None
