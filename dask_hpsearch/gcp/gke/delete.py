"""Deletes managed GKE clusters, and waits until they are gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.cloud import container_v1 as v1

from dask_hpsearch.concurrency import Deadline
from dask_hpsearch.exceptions import (
    CloudTimeoutError,
    ForeignResourceError,
    OperationFailedError,
)
from dask_hpsearch.gcp.gke import labels as gke_labels
from dask_hpsearch.gcp.gke import requests
from dask_hpsearch.gcp.gke.api import check_managed

if TYPE_CHECKING:
    from collections.abc import Callable

    from dask_hpsearch.gcp.gke.api import GKEApi

_STOPPING = v1.Cluster.Status.STOPPING


def delete(api: GKEApi, path: str) -> bool:
    """Delete a managed GKE cluster; return False if there is none.

    Raises
    ------
    ForeignResourceError, CloudError
    """
    found = api.get(path)
    if found is None:
        return False
    check_managed(path, found)
    foreign = _foreign_pools(found)
    if foreign:
        for pool in found.node_pools:
            if requests.is_managed_pool(pool):
                api.delete_node_pool(path, pool.name)
        raise _foreign_pools_left(path, foreign)
    _delete_until_gone(api, path, found, found)
    return True


def delete_unused(api: GKEApi, path: str, is_in_use: Callable[[], bool]) -> bool:
    """Delete a managed GKE cluster, unless it is in use, or claimed meanwhile.

    A claim is a label, and GKE does one operation at a time with a cluster: a claim that
    is set after the check shows as another fingerprint, or the cluster is busy with it.
    If the deletion comes first, the claim is refused.

    Returns
    -------
    bool
        Whether it is gone.
    """
    deadline = Deadline(api.timeouts.delete, api.clock.now)
    while True:
        seen = api.get(path)
        if seen is None or is_in_use():
            return seen is None
        found = api.get(path)
        if found is not None and found.label_fingerprint == seen.label_fingerprint:
            check_managed(path, found)
            if _foreign_pools(found):
                return delete(api, path)
            if found.status == _STOPPING or api.try_delete_cluster(path):
                _delete_until_gone(api, path, found, api.get(path))
                return True
        if deadline.expired:
            raise _still_there(path, seen)
        api.clock.sleep(api.timeouts.poll_interval)


def _delete_until_gone(
    api: GKEApi, path: str, first: v1.Cluster, found: v1.Cluster | None
) -> None:
    """Delete a GKE cluster as long as it is the first one, not a later one of its name."""
    creation = first.resource_labels.get(gke_labels.CREATION)
    deadline, failures = Deadline(api.timeouts.delete, api.clock.now), 0
    while found is not None and gke_labels.is_managed(found.resource_labels):
        if found.resource_labels.get(gke_labels.CREATION) != creation:
            return
        if deadline.expired:
            raise _still_there(path, found)
        if found.status != _STOPPING:
            try:
                api.delete_cluster(path)
            except OperationFailedError:
                failures += 1
                if failures > 1:
                    raise
        else:
            api.clock.sleep(api.timeouts.poll_interval)
        found = api.get(path)


def _foreign_pools(found: v1.Cluster) -> list[str]:
    return [one.name for one in found.node_pools if not requests.is_managed_pool(one)]


def _still_there(path: str, found: v1.Cluster) -> CloudTimeoutError:
    return CloudTimeoutError(
        f"{path} is still there ({found.status.name}): delete it again with "
        "dask-hpsearch down, or check it in the Google Cloud console"
    )


def _foreign_pools_left(path: str, pools: list[str]) -> ForeignResourceError:
    name, location = path.rpartition("/")[2], path.split("/")[3]
    return ForeignResourceError(
        f"the GKE cluster {name!r} has node pools that were not created by dask-hpsearch "
        f"and will not be modified: {', '.join(pools)}. Its other node pools were deleted; "
        "the GKE cluster itself remains, and its fee is still charged. To delete it: gcloud "
        f"container clusters delete {name} --location={location}"
    )
