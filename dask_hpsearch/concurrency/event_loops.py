"""Calls coroutines from ordinary code, and ordinary functions from coroutines."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")


def run_coroutine(function: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine in a thread with an event loop of its own.

    Works where an event loop is running already, as in a notebook.

    Parameters
    ----------
    function : callable
        Makes the coroutine, which is cancelled if the caller is interrupted.
    """
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = []

    async def main() -> T:
        task = asyncio.ensure_future(function())
        running.append((asyncio.get_running_loop(), task))
        return await task

    with ThreadPoolExecutor(1, thread_name_prefix="dask-hpsearch-async") as threads:
        future = threads.submit(lambda: asyncio.run(main()))
        try:
            return future.result()
        except BaseException:
            if running and not future.done():  # interrupted
                loop, task = running[0]
                loop.call_soon_threadsafe(task.cancel)
            raise


async def run_in_thread(function: Callable[[], T]) -> T:
    """Run a function in a thread; in this one if the interpreter is shutting down."""
    try:
        return await asyncio.to_thread(function)
    except RuntimeError as error:
        if "shutdown" not in str(error):
            raise
        return function()
