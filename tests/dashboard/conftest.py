"""A dashboard that serves while a test asks it."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dask_hpsearch.dashboard.server import DashboardServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dask_hpsearch.dashboard.known_runs import KnownRuns


@contextmanager
def serving(known: KnownRuns) -> Iterator[DashboardServer]:
    """Serve from a thread until the context ends."""
    started = threading.Event()
    found: list[DashboardServer] = []
    ends: list[Callable[[], None]] = []

    async def serve() -> None:
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with DashboardServer(known) as server:
            found.append(server)
            ends.append(lambda: loop.call_soon_threadsafe(over.set) and None)
            started.set()
            await over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert started.wait(30)
        yield found[0]
    finally:
        for end in ends:
            end()
        thread.join(30)
