"""The set-up that a driver's programs share: log lines, logs of pods, and the client."""

from __future__ import annotations

import logging
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

from distributed import Client

from dask_hpsearch.exceptions import ClientClosedError
from dask_hpsearch.runs.logs import StoredPodLogs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager, ExitStack

    from dask_hpsearch.journal.folder import RunFolder

_VERBOSE = ("distributed", "bokeh", "tornado", "httpx", "kr8s")


class FollowLogs(Protocol):
    """Follows the logs of a cluster's pods while its context lasts."""

    def __call__(
        self,
        run_id: str,
        add_line: Callable[[str, str, str], None],
        since: Mapping[str, str],
    ) -> AbstractContextManager[Any]:
        """Follow the logs of a run; ``since`` has the last time of each known log."""


def configure_logging() -> None:
    """Write log lines of this package, and warnings of others, to standard error."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    for name in _VERBOSE:
        logging.getLogger(name).setLevel(logging.WARNING)


@contextmanager
def storing_pod_logs(
    folder: RunFolder, follow: FollowLogs
) -> Iterator[Callable[[], None]]:
    """Store the logs of a cluster's pods in a run's folder while the context lasts.

    Yields
    ------
    callable
        Stores them now.
    """
    with (
        StoredPodLogs(folder.store) as stored,
        follow(folder.run_id, stored.add_line, stored.archive.last_times()),
    ):
        yield stored.write


def connect_client(
    address: str, security: Any, stack: ExitStack, **options: Any
) -> Client:
    """Connect to a scheduler; the stack closes the client.

    Raises
    ------
    ClientClosedError
        If the scheduler does not answer.
    """
    try:
        client = Client(address, security=security, set_as_default=False, **options)
    except OSError as error:
        msg = f"the Dask scheduler at {address} does not answer: {error}"
        raise ClientClosedError(msg) from error
    stack.callback(close_client, client)
    return client


def close_client(client: Client) -> None:
    """Close a client, whose scheduler may be lost."""
    with suppress(Exception):
        client.close()
