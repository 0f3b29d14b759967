"""The engine's demands on a Dask client, and the errors when they are not met."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from distributed.comm.core import CommClosedError

from dask_hpsearch.data.node_reader import DataReader
from dask_hpsearch.exceptions import (
    ClientClosedError,
    HPSearchError,
    NoWorkersError,
    WorkersLackPackageError,
)
from dask_hpsearch.slots.plugin import SlotsPlugin

if TYPE_CHECKING:
    from distributed import Client, Future

    from dask_hpsearch.engine.cluster_features import ClusterFeatures

_logger = logging.getLogger(__name__)


def why_no_workers(
    cluster: ClusterFeatures, *, permanent: bool = False
) -> HPSearchError | None:
    """Ask a cluster what keeps workers from running; None if it does not answer.

    Parameters
    ----------
    cluster : ClusterFeatures
    permanent : bool
        Whether to ask only for what does not pass by itself.
    """
    try:
        return cluster.why_no_workers(permanent=permanent)
    except Exception as unknown:  # noqa: BLE001 (the search has an error of its own)
        _logger.debug("the cluster cannot say why it has no workers: %r", unknown)
        return None


def no_workers(timeout_s: float, cluster: ClusterFeatures) -> HPSearchError:
    """Make the error of a cluster without workers, with the reason that it gives."""
    reason = why_no_workers(cluster)
    waited = f"no Dask worker within {timeout_s:g} s"
    longer = f"If workers need longer to start, raise worker_timeout={timeout_s:g} of DaskSearchCV"
    if isinstance(reason, NoWorkersError) and reason.lasts:
        return NoWorkersError(f"{waited}: {reason}", lasts=True)
    if reason is not None:
        return type(reason)(f"{waited}: {reason}. {longer}")
    return NoWorkersError(
        f"{waited}: start workers, for example with cluster.scale(2). {longer}"
    )


def dashboard_link(client: Client) -> str:
    """Return the URL of Dask's dashboard; "" if the client does not know it."""
    try:
        return str(client.dashboard_link or "")
    except Exception as unknown:  # noqa: BLE001 (a link is missing, no more)
        _logger.debug("no link to Dask's dashboard: %r", unknown)
        return ""


def check_client(client: Client) -> None:
    """Refuse a client that cannot drive a search.

    Raises
    ------
    ClientClosedError
        If it is closed or asynchronous.
    """
    if client.status != "running":
        msg = f"the Dask client is {client.status}: connect a new Client"
        raise ClientClosedError(msg)
    if client.asynchronous:
        msg = "the Dask client is asynchronous: connect one with asynchronous=False"
        raise ClientClosedError(msg)


def register_slots(client: Client) -> None:
    """Give slots to all workers, present and future.

    Raises
    ------
    WorkersLackPackageError
        If the scheduler or a worker cannot import dask_hpsearch.
    """
    try:
        plugin = SlotsPlugin.for_cluster_of(client, DataReader())
        client.register_plugin(plugin, name=SlotsPlugin.name)
    except ModuleNotFoundError as error:
        msg = (
            f"the Dask scheduler or a worker cannot import {error.name}: install "
            "dask_hpsearch there, in the client's version"
        )
        raise WorkersLackPackageError(msg) from error


def reason_of(error: Exception, future: Future[Any], client: Client) -> HPSearchError:
    """Return the error of a batch that was not run.

    The loss of a worker is no such error: its batches run again.
    """
    lost = isinstance(error, CommClosedError)
    if lost or future.status == "cancelled" or client.status != "running":
        return ClientClosedError(
            "the connection to the Dask scheduler was lost during the search: check that "
            "the scheduler still runs, connect a new Client, and fit again"
        )
    failure = HPSearchError(
        f"a worker could not run its batch: {error!r}; see the worker's log"
    )
    failure.__cause__ = error
    return failure
