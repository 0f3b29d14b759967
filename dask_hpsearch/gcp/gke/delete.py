"""Deletes GKE clusters of ours, and waits until they are gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.cloud import container_v1 as v1

from dask_hpsearch.exceptions import (
    CloudTimeoutError,
    ForeignResourceError,
    OperationFailedError,
)
from dask_hpsearch.gcp.gke import labels as ours
from dask_hpsearch.gcp.gke import requests
from dask_hpsearch.gcp.gke.api import check_ours

if TYPE_CHECKING:
    from collections.abc import Callable

    from dask_hpsearch.gcp.gke.api import Changes, GKEReader

_STOPPING = v1.Cluster.Status.STOPPING


class Deletion:
    """Deletes the clusters of one project.

    Parameters
    ----------
    looker : GKEReader
    changes : Changes
    """

    def __init__(self, looker: GKEReader, changes: Changes) -> None:
        self._looker, self._changes = looker, changes
        self._clock, self._limits = looker.follower.clock, looker.follower.limits

    def run(self, path: str) -> bool:
        """Delete a cluster; False if there was none.

        Raises
        ------
        ForeignResourceError, CloudError
        """
        found = self._looker.get(path)
        if found is None:
            return False
        check_ours(path, found)
        foreign = _foreign_pools(found)
        if foreign:
            for pool in found.node_pools:
                if requests.is_our_pool(pool):
                    self._changes.delete_pool(path, pool.name)
            raise _not_alone(path, foreign)
        self._until_gone(path, found, found)
        return True

    def run_unless(self, path: str, is_in_use: Callable[[], bool]) -> bool:
        """Delete a cluster, unless it is in use, or claimed meanwhile.

        A claim is a label, and GKE does one thing at a time with a cluster: a claim that
        comes after the look shows as another fingerprint, or the cluster is busy with it.
        If the deletion comes first, the claim is refused.
        """
        until = self._clock.now() + self._limits.delete_s
        while True:
            seen = self._looker.get(path)
            if seen is None or is_in_use():
                return seen is None
            found = self._looker.get(path)
            if found is not None and found.label_fingerprint == seen.label_fingerprint:
                check_ours(path, found)
                if _foreign_pools(found):
                    return self.run(path)
                going = found.status == _STOPPING
                if going or self._changes.delete_now_or_never(path):
                    self._until_gone(path, found, self._looker.get(path))
                    return True
            if self._clock.now() > until:
                raise _too_late(path, seen)
            self._clock.sleep(self._limits.poll_s)

    def _until_gone(
        self, path: str, first: v1.Cluster, found: v1.Cluster | None
    ) -> None:
        """Delete what is found as long as it is the first, and no later one of its name."""
        creation = first.resource_labels.get(ours.CREATION)
        until, failures = self._clock.now() + self._limits.delete_s, 0
        while found is not None and ours.is_ours(found.resource_labels):
            if found.resource_labels.get(ours.CREATION) != creation:
                return
            if self._clock.now() > until:
                raise _too_late(path, found)
            if found.status != _STOPPING:
                try:
                    self._changes.delete_cluster(path)
                except OperationFailedError:
                    failures += 1
                    if failures > 1:
                        raise
            else:
                self._clock.sleep(self._limits.poll_s)
            found = self._looker.get(path)


def _foreign_pools(found: v1.Cluster) -> list[str]:
    return [one.name for one in found.node_pools if not requests.is_our_pool(one)]


def _too_late(path: str, found: v1.Cluster) -> CloudTimeoutError:
    return CloudTimeoutError(
        f"{path} is still there ({found.status.name}): delete it again with "
        "dask-hpsearch down, or look at it in the console"
    )


def _not_alone(path: str, pools: list[str]) -> ForeignResourceError:
    name, location = path.rpartition("/")[2], path.split("/")[3]
    return ForeignResourceError(
        f"the GKE cluster {name!r} has pools that dask-hpsearch has not made: "
        f"{', '.join(pools)}. Our pools are gone; the cluster itself is left for whoever "
        f"uses those, and costs its fee: gcloud container clusters delete {name} "
        f"--location={location}"
    )
