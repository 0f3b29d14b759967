"""Looks at GKE clusters, and waits for what they are to become."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.api_core import exceptions
from google.cloud import container_v1 as v1

from dask_hpsearch.errors import (
    CloudNotFoundError,
    CloudTimeoutError,
    ForeignResourceError,
)
from dask_hpsearch.gcp.description import GKECluster, described
from dask_hpsearch.gcp.labels import is_ours
from dask_hpsearch.gcp.waiting import conditions, failure, told_of_gke

if TYPE_CHECKING:
    from dask_hpsearch.gcp.waiting import Follower

_STATUS = v1.Cluster.Status


@dataclass(frozen=True, slots=True)
class Looker:
    """Looks at the clusters of one project.

    Attributes
    ----------
    follower : Follower
        Its client is the one that is asked.
    """

    follower: Follower

    def get(self, path: str) -> v1.Cluster | None:
        """Return a cluster as GKE has it; None if there is none."""
        request = v1.GetClusterRequest(name=path)
        follower = self.follower
        with told_of_gke(f"look for {path}", follower.project):
            try:
                found: v1.Cluster = follower.client.get_cluster(
                    request, **follower.patience.reading
                )
            except exceptions.NotFound:
                return None
        return found

    def mine(self, path: str) -> v1.Cluster:
        """Return a cluster that is there and ours.

        Raises
        ------
        CloudNotFoundError, ForeignResourceError
        """
        found = self.get(path)
        if found is None:
            msg = f"there is no GKE cluster {path}: create it with dask-hpsearch up"
            raise CloudNotFoundError(msg)
        check_ours(path, found)
        return found

    def until_ready(self, path: str) -> GKECluster:
        """Wait until a cluster can be used.

        Raises
        ------
        CloudError
            If it cannot, or goes, or takes too long.
        """
        clock, limits = self.follower.clock, self.follower.limits
        until = clock.now() + limits.create_s
        while True:
            found = self.get(path)
            if found is None:
                msg = f"{path} has gone while it was being created"
                raise CloudNotFoundError(msg)
            if found.status in (_STATUS.ERROR, _STATUS.STOPPING):
                doing = f"bring up {path}"
                raise failure(doing, conditions(found))
            cluster = described(self.follower.project, found)
            if found.status != _STATUS.PROVISIONING and cluster.server:
                return cluster
            if clock.now() > until:
                msg = f"{path} is still {found.status.name}: look at it in the console"
                raise CloudTimeoutError(msg)
            clock.sleep(limits.poll_s)

    def until_settled(self, path: str) -> None:
        """Wait until another client's creation has ended, well or not.

        Raises
        ------
        CloudTimeoutError
            If it takes too long.
        """
        clock, limits = self.follower.clock, self.follower.limits
        until = clock.now() + limits.create_s
        while True:
            found = self.get(path)
            if found is None or found.status != _STATUS.PROVISIONING:
                return
            if clock.now() > until:
                msg = f"{path} is still being created: look at it in the console"
                raise CloudTimeoutError(msg)
            clock.sleep(limits.poll_s)

    def until_gone(self, path: str) -> None:
        """Wait until a cluster that is being deleted is gone.

        Raises
        ------
        CloudTimeoutError
            If it takes too long.
        """
        clock, limits = self.follower.clock, self.follower.limits
        until = clock.now() + limits.delete_s
        while (found := self.get(path)) is not None:
            if found.status != _STATUS.STOPPING:
                return
            if clock.now() > until:
                msg = f"{path} is still being deleted: try again later"
                raise CloudTimeoutError(msg)
            clock.sleep(limits.poll_s)


def check_ours(path: str, found: v1.Cluster) -> None:
    """See that we have made a cluster, before it is changed.

    Raises
    ------
    ForeignResourceError
        If somebody else has.
    """
    if not is_ours(found.resource_labels):
        msg = (
            f"{path} is a GKE cluster that dask-hpsearch has not made, and does not "
            "touch: choose another name. (Dask runs on it all the same: get its "
            "kubeconfig, and use kube_cluster)"
        )
        raise ForeignResourceError(msg)
