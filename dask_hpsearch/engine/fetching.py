"""Gets what Dask tasks returned, without a thread that waits for it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Callable

    from distributed import Client, Future

    Fetched = concurrent.futures.Future[bytes]


def when_ended(future: Future[bytes], then: Callable[[], None]) -> None:
    """Call a function once a Dask task has ended, in whatever way.

    Parameters
    ----------
    future : Future
    then : callable
        Called in a thread of Dask's.
    """
    future.add_done_callback(lambda _: then())


def when_fetched(
    client: Client, future: Future[bytes], then: Callable[[Fetched], None]
) -> None:
    """Call a function with an ended Dask task's result once it is here.

    ``Future.result`` would block its thread while a result that was lost with its worker
    is computed again: for as long as the cluster has no worker.

    Parameters
    ----------
    client : Client
    future : Future
        Of a task that returns bytes.
    then : callable
        Called in the client's event loop with a finished future of the result.
    """
    loop: Any = client.loop
    with contextlib.suppress(RuntimeError):  # the client is closed
        fetched = asyncio.run_coroutine_threadsafe(
            _gather(client, future), loop.asyncio_loop
        )
        fetched.add_done_callback(then)


async def _gather(client: Client, future: Future[bytes]) -> bytes:
    payload: bytes = await client.gather(future, asynchronous=True)
    return payload
