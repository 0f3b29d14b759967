"""Ends the cluster of a search."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dask_hpsearch.data.collections import current_client
from dask_hpsearch.engine.cluster_features import features_of

if TYPE_CHECKING:
    from distributed import Client


def end_cluster(client: Client | None) -> None:
    """End the cluster of a client, or of the current client.

    Without a client there is nothing to do: the search has closed its own local cluster,
    as it does where that is not to be kept.
    """
    client = client or current_client()
    if client is None:
        return
    if client.cluster is None:
        client.shutdown()
    else:
        features_of(client).end()
