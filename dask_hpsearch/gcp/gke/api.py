"""Requests to GKE: looks at clusters, changes of them, and their labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.api_core import exceptions
from google.cloud import container_v1 as v1

from dask_hpsearch.exceptions import (
    CloudError,
    CloudNotFoundError,
    CloudTimeoutError,
    ForeignResourceError,
)
from dask_hpsearch.gcp.api_errors import LOST
from dask_hpsearch.gcp.gke.labels import is_ours
from dask_hpsearch.gcp.gke.operations import (
    conditions,
    failure,
    is_busy,
    map_gke_errors,
)
from dask_hpsearch.gcp.gke.state import GKECluster, described

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dask_hpsearch.gcp.gke.operations import Follower


_STATUS = v1.Cluster.Status
_TRIES = 3  # to change labels that others change meanwhile


@dataclass(frozen=True, slots=True)
class GKEReader:
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
        with map_gke_errors(f"look for {path}", follower.project):
            try:
                found: v1.Cluster = follower.client.get_cluster(
                    request, **follower.retry.reading
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


class Changes:
    """Changes of the clusters of one project.

    Whoever calls has looked at the labels. All changes may be asked for twice.

    Parameters
    ----------
    follower : Follower
        Its client is the one that is asked.
    """

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self._client = follower.client

    def delete_cluster(self, path: str) -> None:
        """Delete a cluster; nothing happens if it is gone."""
        request = v1.DeleteClusterRequest(name=path)
        limit_s = self._follower.limits.delete_s
        self._change(
            f"delete {path}", path, self._client.delete_cluster, request, limit_s
        )

    def delete_now_or_never(self, path: str) -> bool:
        """Ask once for the deletion of a cluster; False if GKE is busy with it.

        False also if the answer was lost: nothing of it is repeated later.
        """
        request = v1.DeleteClusterRequest(name=path)
        with map_gke_errors(f"delete {path}", self._follower.project):
            try:
                self._client.delete_cluster(request, **self._follower.retry.once)
            except exceptions.NotFound:
                return True
            except LOST:
                return False
            except (exceptions.FailedPrecondition, exceptions.Aborted) as error:
                if not is_busy(error):
                    raise
                return False
        return True

    def delete_pool(self, path: str, pool: str) -> None:
        """Delete a pool; nothing happens if it is gone."""
        request = v1.DeleteNodePoolRequest(name=f"{path}/nodePools/{pool}")
        doing = f"delete the pool {pool!r} of {path}"
        self._change(doing, path, self._client.delete_node_pool, request)

    def create_pool(self, path: str, pool: v1.NodePool) -> None:
        """Create a pool; nothing happens if it is there."""
        request = v1.CreateNodePoolRequest(parent=path, node_pool=pool)
        doing = f"create the pool {pool.name!r} of {path}"
        self._change(doing, path, self._client.create_node_pool, request)

    def set_autoscaling(
        self, path: str, pool: str, scaling: v1.NodePoolAutoscaling
    ) -> None:
        """Change between which numbers a pool's nodes come and go."""
        request = v1.SetNodePoolAutoscalingRequest(
            name=f"{path}/nodePools/{pool}", autoscaling=scaling
        )
        doing = f"change how the pool {pool!r} of {path} grows"
        self._change(doing, path, self._client.set_node_pool_autoscaling, request)

    def set_size(self, path: str, pool: str, nodes: int) -> None:
        """Change how many nodes a pool has, in each of its zones."""
        request = v1.SetNodePoolSizeRequest(
            name=f"{path}/nodePools/{pool}", node_count=nodes
        )
        doing = f"change the size of the pool {pool!r} of {path}"
        self._change(doing, path, self._client.set_node_pool_size, request)

    def set_labels(
        self, path: str, labels: Mapping[str, str], fingerprint: str
    ) -> None:
        """Change all labels, unless somebody has changed them meanwhile."""
        request = v1.SetLabelsRequest(
            name=path, resource_labels=dict(labels), label_fingerprint=fingerprint
        )
        doing = f"change the labels of {path}"
        self._change(doing, path, self._client.set_labels, request)

    def _change(
        self,
        doing: str,
        path: str,
        method: Callable[..., v1.Operation],
        request: object,
        limit_s: float | None = None,
    ) -> None:
        follower = self._follower
        limit_s = follower.limits.change_s if limit_s is None else limit_s
        until = follower.clock.now() + limit_s
        operation = self._begun(doing, method, request, until)
        if operation is not None:
            parent = path.partition("/clusters/")[0]
            left = until - follower.clock.now()
            follower.follow(parent, operation, doing, left)

    def _begun(
        self,
        doing: str,
        method: Callable[..., v1.Operation],
        request: object,
        until: float,
    ) -> v1.Operation | None:
        """Ask until the cluster is not busy; None if it is as asked for already."""
        follower = self._follower
        while True:
            with map_gke_errors(doing, self._follower.project):
                try:
                    return method(request, **follower.retry.reading)
                except exceptions.NotFound:
                    if not doing.startswith("delete"):
                        raise
                    return None
                except exceptions.AlreadyExists:
                    return None
                except (exceptions.FailedPrecondition, exceptions.Aborted) as error:
                    if not is_busy(error) or follower.clock.now() > until:
                        raise
            follower.say(f"waiting to {doing}: GKE is busy with another operation")
            follower.clock.sleep(follower.limits.poll_s)


def relabel(
    looker: GKEReader,
    changes: Changes,
    path: str,
    change: Callable[[Mapping[str, str]], dict[str, str]],
) -> None:
    """Change the labels of a cluster of ours; look again if somebody else does meanwhile.

    Parameters
    ----------
    looker : GKEReader
    changes : Changes
    path : str
    change : callable
        Returns the new labels for those that are there.

    Raises
    ------
    CloudError
        If there is no such cluster of ours, or Google refuses.
    """
    for remaining in reversed(range(_TRIES)):
        found = looker.mine(path)
        before = dict(found.resource_labels)
        labels = change(before)
        if labels == before:
            return
        try:
            changes.set_labels(path, labels, found.label_fingerprint)
        except CloudError as error:
            changed = isinstance(error.__cause__, exceptions.FailedPrecondition)
            if not (changed and remaining):
                raise
        else:
            return
