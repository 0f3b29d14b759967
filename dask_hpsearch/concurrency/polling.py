"""Polls a condition until it holds or a deadline passes."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Clock:
    """The current time, and a way to wait; tests replace both.

    Attributes
    ----------
    now : callable
        Returns seconds since the epoch.
    sleep : callable
        Waits for some seconds.
    """

    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep


class Deadline:
    """The end of a time-out that begins now.

    Parameters
    ----------
    timeout : float or None
        Seconds; None: it never ends.
    now : callable
        Returns seconds; only differences matter.
    """

    def __init__(
        self, timeout: float | None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._now = now
        self._end = math.inf if timeout is None else now() + timeout

    @property
    def remaining(self) -> float:
        """Seconds until the end; negative after it."""
        return self._end - self._now()

    @property
    def expired(self) -> bool:
        """Whether the end is past."""
        return self.remaining < 0


def poll_until(
    check: Callable[[], T],
    done: Callable[[T], object],
    *,
    timeout: float | None,
    interval: float,
    on_timeout: Callable[[T], BaseException] | None = None,
    clock: Clock | None = None,
) -> T:
    """Call a function until its result satisfies a condition.

    Parameters
    ----------
    check : callable
        Called at least once; its exceptions pass through.
    done : callable
        Given each result; whether it is final.
    timeout : float or None
        Seconds; None: no limit.
    interval : float
        Seconds between two calls.
    on_timeout : callable, optional
        Given the last result, returns the exception to raise after the time-out;
        default: the last result is returned.
    clock : Clock, optional
        Default: the monotonic clock of this machine.

    Returns
    -------
    object
        The last result of ``check``.
    """
    clock = clock or Clock(time.monotonic)
    deadline = Deadline(timeout, clock.now)
    while not done(result := check()):
        remaining = deadline.remaining
        if remaining <= 0:
            if on_timeout is None:
                break
            raise on_timeout(result)
        clock.sleep(min(interval, remaining))
    return result


async def poll_until_async(
    check: Callable[[], Awaitable[T]],
    done: Callable[[T], object],
    *,
    timeout: float | None,
    interval: float,
    on_timeout: Callable[[T], BaseException] | None = None,
) -> T:
    """Await a function until its result satisfies a condition; as `poll_until`."""
    deadline = Deadline(timeout)
    while not done(result := await check()):
        remaining = deadline.remaining
        if remaining <= 0:
            if on_timeout is None:
                break
            raise on_timeout(result)
        await asyncio.sleep(min(interval, remaining))
    return result
