"""The argument ``client=``: a client, a scheduler's address, or a cluster."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from distributed import Client
from distributed.deploy.cluster import Cluster

from dask_hpsearch.exceptions import ClientClosedError

if TYPE_CHECKING:
    from collections.abc import Iterator


def connect(client: Any) -> Client:
    """Return a client as it is; connect one to an address or a cluster.

    Raises
    ------
    TypeError
        If it is none of the three.
    ClientClosedError
        If nothing answers, or the cluster is closed or asynchronous.
    """
    if isinstance(client, Client):
        return client
    if isinstance(client, str) and client:
        return _connected_to(client)
    if not isinstance(client, type) and callable(getattr(client, "get_client", None)):
        return _client_of(client)
    hint = " (a class: give an instance)" if isinstance(client, type) else ""
    msg = (
        "client must be a distributed.Client, the address of a Dask scheduler such as "
        f"'tcp://10.0.0.1:8786', or a Dask cluster, got {client!r:.200}{hint}"
    )
    raise TypeError(msg)


@contextmanager
def connected(client: Any) -> Iterator[Client | None]:
    """Yield a client for the argument; close it afterwards if it was connected here."""
    if client is None:
        yield None
        return
    made = connect(client)
    try:
        yield made
    finally:
        if made is not client:
            made.close()


def _connected_to(address: str) -> Client:
    try:
        return Client(address, set_as_default=False)
    except (OSError, ValueError) as error:
        msg = (
            f"no Dask scheduler answers at {address!r}: {error}; check the address, and "
            "that the scheduler runs"
        )
        raise ClientClosedError(msg) from error


def _client_of(cluster: Any) -> Client:
    """Connect to a cluster by its own address and certificates."""
    if getattr(cluster, "asynchronous", False):
        msg = (
            f"the Dask cluster {cluster!r:.200} is asynchronous: make it with "
            "asynchronous=False"
        )
        raise ClientClosedError(msg)
    if not isinstance(cluster, Cluster):  # such as that of Dask Gateway
        made: Client = cluster.get_client()
        return made
    try:
        return Client(cluster, set_as_default=False)
    except RuntimeError as error:
        msg = f"the Dask cluster {cluster!r:.200} is closed: make a new one"
        raise ClientClosedError(msg) from error
