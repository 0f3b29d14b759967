"""The end of the cluster that a search has used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dask_hpsearch.data.collections import current_client
from dask_hpsearch.engine.cluster_features import features_of

if TYPE_CHECKING:
    from distributed import Client


def end_cluster(client: Client | None) -> None:
    """End the cluster of a client, or of the current one, whoever made it.

    A search without a client has had a local cluster of its own, which is closed already.
    """
    client = client or current_client()
    if client is None:
        return
    if client.cluster is None:
        client.shutdown()
    else:
        features_of(client).end()
