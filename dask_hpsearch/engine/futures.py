"""Results of Dask tasks without a thread that waits, and tasks taken back from Dask."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

from dask_hpsearch.slots.plugin import end_task

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Callable

    from distributed import Client, Future

    Fetched = concurrent.futures.Future[bytes]

_logger = logging.getLogger(__name__)


def when_ended(future: Future[bytes], then: Callable[[], None]) -> None:
    """Call a function once a Dask task has ended, with a result or an error.

    Parameters
    ----------
    future : Future
    then : callable
        Called in one of Dask's threads.
    """
    future.add_done_callback(lambda _: then())


def when_fetched(
    client: Client, future: Future[bytes], then: Callable[[Fetched], None]
) -> None:
    """Fetch the result of an ended Dask task, and call a function with it.

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


def take_back(client: Client, future: Future[bytes], topic: str, number: int) -> None:
    """Take a batch back from Dask, and end one of its tasks if it runs already.

    Parameters
    ----------
    client : Client
    future : Future
        The batch's.
    topic : str
    number : int
        The task's, within the engine of the topic.
    """
    try:
        client.cancel([future])
        client.run(end_task, topic, number, on_error="ignore")
    except Exception as error:  # noqa: BLE001 (a lost client is reported elsewhere)
        _logger.debug("a batch could not be taken back: %r", error)


async def _gather(client: Client, future: Future[bytes]) -> bytes:
    payload: bytes = await client.gather(future, asynchronous=True)
    return payload
