"""Polling: what it returns, when it gives up, and what it raises then."""

from __future__ import annotations

import asyncio

import pytest

from dask_hpsearch.concurrency import Deadline, poll_until, poll_until_async
from tests.fakes.clock import FakeClock


def test_polling_returns_the_first_result_that_is_done() -> None:
    """No call comes after it, and no time passes."""
    results = iter([0, 1, 2, 3])
    time = FakeClock(start=0.0)

    found = poll_until(
        lambda: next(results),
        lambda number: number == 2,
        timeout=60,
        interval=5,
        clock=time.clock,
    )

    assert found == 2
    assert next(results) == 3
    assert time.now() == 10


def test_a_timeout_raises_the_error_of_the_last_result() -> None:
    """The error can name the state in which the resource is stuck."""
    time = FakeClock(start=0.0)

    with pytest.raises(TimeoutError, match="still PROVISIONING"):
        poll_until(
            lambda: "PROVISIONING",
            lambda state: state == "RUNNING",
            timeout=60,
            interval=5,
            on_timeout=lambda state: TimeoutError(f"still {state}"),
            clock=time.clock,
        )

    assert time.now() == 60


def test_without_an_error_a_timeout_returns_the_last_result() -> None:
    """The caller decides what an unfinished state means."""
    time = FakeClock()

    found = poll_until(
        lambda: "busy", lambda _: False, timeout=1, interval=1, clock=time.clock
    )

    assert found == "busy"


def test_the_condition_is_checked_at_least_once() -> None:
    """Even if there is no time left."""
    assert poll_until(lambda: "done", bool, timeout=0, interval=1) == "done"


def test_an_error_of_the_check_passes_through() -> None:
    """It is not repeated."""
    calls = []

    def check() -> bool:
        calls.append(1)
        raise LookupError

    with pytest.raises(LookupError):
        poll_until(check, bool, timeout=None, interval=1)

    assert calls == [1]


def test_the_async_form_does_the_same() -> None:
    """First result that is done; then an error after the time-out."""
    results = iter([False, True, False])

    async def check() -> bool:
        return next(results)

    assert asyncio.run(poll_until_async(check, bool, timeout=60, interval=0))
    with pytest.raises(TimeoutError):
        asyncio.run(
            poll_until_async(
                check,
                bool,
                timeout=-1,
                interval=0,
                on_timeout=lambda _: TimeoutError(),
            )
        )


def test_the_async_form_can_return_the_last_result() -> None:
    """As the sync one."""

    async def check() -> str:
        return "busy"

    found = asyncio.run(
        poll_until_async(check, lambda _: False, timeout=-1, interval=0)
    )

    assert found == "busy"


def test_a_deadline_without_timeout_never_expires() -> None:
    """What remains is infinite."""
    deadline = Deadline(None)

    assert not deadline.expired
    assert deadline.remaining == float("inf")


def test_a_deadline_counts_down() -> None:
    """It expires after its seconds, not before."""
    time = FakeClock(start=0.0)
    deadline = Deadline(10, time.now)

    time.sleep(10)
    assert not deadline.expired
    time.sleep(1)

    assert deadline.expired
    assert deadline.remaining == -1
