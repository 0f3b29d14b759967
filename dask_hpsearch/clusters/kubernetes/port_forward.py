"""Forwards ports of this machine to a pod, through Kubernetes' API server.

The cluster has no ports that are open to the outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import threading
from typing import TYPE_CHECKING, Any

from dask_hpsearch.clusters.kubernetes import api as kubernetes_api
from dask_hpsearch.clusters.kubernetes import manifests
from dask_hpsearch.clusters.kubernetes.tunnel import TunnelEntry
from dask_hpsearch.exceptions import ClusterUnreachableError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AsyncExitStack
    from typing import Self

    from dask_hpsearch.clusters.kubernetes.api import KubernetesApi

_START_TIMEOUT = 20.0
_PORT_TRIES = 20
_logger = logging.getLogger(__name__)


class PortForward:
    """Forwards ports of this machine's loopback to a service's pod, in its own thread.

    Each connection looks up the pod again, which may have been replaced. Streams to the
    scheduler's tunnel survive the connections that carry them.

    Parameters
    ----------
    service : str
        Service of the pod.
    ports : sequence of int
        Ports in the pod.
    where : dict
        Namespace, kubeconfig and context, as `kubernetes_api.connect` takes them.
    """

    def __init__(
        self, service: str, ports: Sequence[int], where: dict[str, Any]
    ) -> None:
        self._service = service
        self._ports = tuple(ports)
        self._where = where
        self._local: dict[int, int] = {}
        self._error: BaseException | None = None
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self._thread = threading.Thread(
            target=self._run, name=f"dask-hpsearch-forward-{service}", daemon=True
        )

    def start(self) -> Self:
        """Listen; returns when connections are accepted.

        Raises
        ------
        ClusterUnreachableError
            If the forward cannot be set up.
        """
        self._thread.start()
        if not self._started.wait(_START_TIMEOUT) or self._error is not None:
            self.close()
            msg = f"cannot forward a port to {self._service}: {self._error!r}"
            raise ClusterUnreachableError(msg) from self._error
        return self

    def port(self, port: int) -> int:
        """Return the port of this machine for a port of the pod."""
        return self._local[port]

    @property
    def is_alive(self) -> bool:
        """Whether its ports are open."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Close its ports and connections."""
        if self._loop is not None and self._end is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(_START_TIMEOUT)

    def _run(self) -> None:
        try:
            asyncio.run(self._forward())
        except BaseException as error:  # noqa: BLE001 (raised by start)
            self._error = error
            _logger.debug("the forward to %s ended: %r", self._service, error)
        finally:
            self._started.set()

    async def _forward(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(_log_error)
        self._end = asyncio.Event()
        async with kubernetes_api.connected(**self._where) as api:
            await self._serve(api, self._end)

    async def _serve(self, api: KubernetesApi, end: asyncio.Event) -> None:
        from kr8s.asyncio.objects import Service

        service = await Service.get(
            self._service, namespace=api.namespace, api=api.connection
        )
        async with contextlib.AsyncExitStack() as stack:
            forwards = [
                await forward_port(service, port, stack) for port in self._ports
            ]
            for port, forward in zip(self._ports, forwards, strict=True):
                self._local[port] = forward.local_port
            await self._serve_until(end, forwards)
        await asyncio.sleep(0)  # closes the sockets

    async def _serve_until(self, end: asyncio.Event, forwards: list[Any]) -> None:
        entry = None
        if manifests.TUNNEL_PORT in self._local:
            carrier = self._local[manifests.TUNNEL_PORT]
            entry = await TunnelEntry(carrier).start()
            self._local[manifests.TUNNEL_PORT] = entry.port
        self._started.set()
        await end.wait()
        if entry is not None:
            await entry.close()
        for forward in forwards:
            for server in forward.servers:
                server.close()
        # kr8s does not end the tasks of its connections.
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def forward_port(service: Any, port: int, stack: AsyncExitStack) -> Any:
    """Listen on a port of loopback that leads to a port of a service's pod.

    kr8s takes a random port on which nobody listens. It may be that of a connection: then it
    cannot listen there, and its own ``start`` hides that.

    Parameters
    ----------
    service : kr8s.asyncio.objects.Service or kr8s.asyncio.objects.Pod
    port : int
    stack : AsyncExitStack
        Ends the forward.

    Returns
    -------
    kr8s.asyncio.portforward.PortForward
        Its ``local_port`` is open.
    """
    failures = 0
    while True:
        forward = service.portforward(port, "auto")
        try:
            await stack.enter_async_context(forward)
        except OSError as error:
            failures += 1
            if error.errno != errno.EADDRINUSE or failures == _PORT_TRIES:
                raise
        else:
            return forward


def _log_error(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log a failed connection; its client sees it closed."""
    _logger.debug("a forwarded connection ended: %s", context.get("exception"))
