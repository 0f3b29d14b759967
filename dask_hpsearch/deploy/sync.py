"""Runs coroutines from ordinary code, also where an event loop runs already."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

T = TypeVar("T")


def run_apart(function: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine in an event loop and a thread of its own; a notebook has a loop.

    Parameters
    ----------
    function : callable
        Makes the coroutine. It is cancelled if the caller is interrupted.
    """
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = []

    async def noted() -> T:
        task = asyncio.ensure_future(function())
        running.append((asyncio.get_running_loop(), task))
        return await task

    with ThreadPoolExecutor(1, thread_name_prefix="dask-hpsearch-deploy") as threads:
        future = threads.submit(lambda: asyncio.run(noted()))
        try:
            return future.result()
        except BaseException:
            if running and not future.done():  # interrupted
                loop, task = running[0]
                loop.call_soon_threadsafe(task.cancel)
            raise
