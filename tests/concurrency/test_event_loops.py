"""Coroutines from ordinary code, and the other way round."""

from __future__ import annotations

import asyncio
import threading

import pytest

from dask_hpsearch.concurrency import run_coroutine, run_in_thread
from dask_hpsearch.exceptions import ClusterError


def test_a_coroutine_runs_where_a_loop_runs_already() -> None:
    """A notebook's cell is code inside an event loop."""

    async def answer() -> int:
        await asyncio.sleep(0)
        return 42

    async def cell() -> int:
        return run_coroutine(answer)

    assert asyncio.run(cell()) == 42


def test_an_error_of_a_coroutine_is_the_callers() -> None:
    """It comes out as it went in."""

    async def fail() -> None:
        msg = "no"
        raise ClusterError(msg)

    with pytest.raises(ClusterError, match="no"):
        run_coroutine(fail)


def test_a_function_runs_in_another_thread() -> None:
    """The event loop goes on meanwhile."""
    thread = asyncio.run(run_in_thread(threading.get_ident))

    assert thread != threading.get_ident()


def test_a_function_runs_here_if_no_thread_can_be_started() -> None:
    """An interpreter that shuts down starts no thread: the work is done all the same."""

    async def without_threads() -> int:
        executor = asyncio.get_running_loop()
        await executor.shutdown_default_executor()
        return await run_in_thread(threading.get_ident)

    assert asyncio.run(without_threads()) == threading.get_ident()


def test_a_runtime_error_of_the_function_passes_through() -> None:
    """It is not taken for the interpreter's end."""

    def fail() -> None:
        msg = "no"
        raise RuntimeError(msg)

    with pytest.raises(RuntimeError, match="no"):
        asyncio.run(run_in_thread(fail))
