"""Ports of this machine that are forwarded to a pod."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket

from kr8s.asyncio.objects import Pod

from dask_hpsearch.clusters.kubernetes.port_forward import forward_port


def test_a_port_that_a_connection_has_is_not_taken() -> None:
    """Nobody listens there, and so it seems to be free."""

    async def forward() -> tuple[int, int]:
        pod = Pod({"metadata": {"name": "some", "namespace": "some"}})
        with socket.socket() as connection:
            random.seed(0)
            async with pod.portforward(8786, "auto") as taken:
                pass
            connection.bind(("127.0.0.1", taken))
            random.seed(0)
            async with contextlib.AsyncExitStack() as stack:
                forward = await forward_port(pod, 8786, stack)
                socket.create_connection(("127.0.0.1", forward.local_port)).close()
            return taken, forward.local_port

    state = random.getstate()
    try:
        taken, port = asyncio.run(forward())
    finally:
        random.setstate(state)

    assert port != taken
