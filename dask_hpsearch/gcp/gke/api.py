"""The client of GKE's API: reads, waits for and changes the GKE clusters of a project."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from google.api_core import exceptions
from google.cloud import container_v1 as v1

from dask_hpsearch.concurrency import Clock, Deadline, poll_until
from dask_hpsearch.exceptions import (
    CloudError,
    CloudNotFoundError,
    CloudTimeoutError,
    ForeignResourceError,
)
from dask_hpsearch.gcp.api_errors import map_google_errors
from dask_hpsearch.gcp.gke.labels import is_managed
from dask_hpsearch.gcp.gke.operations import (
    Timeouts,
    check_operation,
    conditions,
    is_busy,
    is_done,
    operation_error,
    operation_timeout,
    stage_of,
)
from dask_hpsearch.gcp.gke.state import GKECluster, parse_cluster
from dask_hpsearch.gcp.retry import TRANSIENT, with_retries, without_retries
from dask_hpsearch.stores.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

SERVICE = "container.googleapis.com"
ADMIN = "roles/container.admin"
_STATUS = v1.Cluster.Status
_LABEL_ATTEMPTS = 3  # labels may be changed by others at the same time
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GKEApi:
    """GKE's API for one project.

    Changes do not check whether dask_hpsearch manages the GKE cluster: callers do, with
    `get_managed` or `check_managed`. Each change may be requested twice.

    Attributes
    ----------
    client : ClusterManagerClient
    project : str
    retry : Retry
        How single requests are repeated.
    say : callable
        Given a line of progress.
    clock : Clock
    timeouts : Timeouts
        Of operations.
    """

    client: Any
    project: str
    retry: Retry = field(default_factory=Retry)
    say: Callable[[str], None] = _logger.info
    clock: Clock = field(default_factory=Clock)
    timeouts: Timeouts = field(default_factory=Timeouts)

    # --- reads ----------------------------------------------------------------------

    def get(self, path: str) -> v1.Cluster | None:
        """Return a GKE cluster; None if there is none."""
        request = v1.GetClusterRequest(name=path)
        with self.map_errors(f"look up {path}"):
            try:
                found: v1.Cluster = self.client.get_cluster(
                    request, **with_retries(self.retry)
                )
            except exceptions.NotFound:
                return None
        return found

    def get_managed(self, path: str) -> v1.Cluster:
        """Return a GKE cluster that dask_hpsearch manages.

        Raises
        ------
        CloudNotFoundError, ForeignResourceError
        """
        found = self.get(path)
        if found is None:
            msg = f"there is no GKE cluster {path}: create it with dask-hpsearch up"
            raise CloudNotFoundError(msg)
        check_managed(path, found)
        return found

    def list_clusters(self) -> list[v1.Cluster]:
        """Return the GKE clusters of the project, in all locations."""
        request = v1.ListClustersRequest(parent=f"projects/{self.project}/locations/-")
        with self.map_errors("list GKE clusters"):
            response = self.client.list_clusters(request, **with_retries(self.retry))
        if response.missing_zones:
            zones = ", ".join(response.missing_zones)
            self.say(f"no response from {zones}: list the GKE clusters again later")
        return list(response.clusters)

    # --- waits ----------------------------------------------------------------------

    def wait_until_ready(self, path: str) -> GKECluster:
        """Wait until a GKE cluster can be used.

        Raises
        ------
        CloudError
            If it fails, disappears, or takes too long.
        """

        def check() -> GKECluster:
            found = self.get(path)
            if found is None:
                msg = f"{path} was deleted while it was being created: create it again"
                raise CloudNotFoundError(msg)
            if found.status in (_STATUS.ERROR, _STATUS.STOPPING):
                doing = f"create {path}"
                raise operation_error(doing, conditions(found))
            return parse_cluster(self.project, found)

        return poll_until(
            check,
            lambda cluster: cluster.status != "PROVISIONING" and cluster.server,
            timeout=self.timeouts.create,
            interval=self.timeouts.poll_interval,
            on_timeout=lambda cluster: _still(path, cluster.status),
            clock=self.clock,
        )

    def wait_until_created(self, path: str) -> None:
        """Wait until another client's creation has ended, successfully or not.

        Raises
        ------
        CloudTimeoutError
        """
        self._wait_while(path, "PROVISIONING", self.timeouts.create)

    def wait_until_deleted(self, path: str) -> None:
        """Wait until a GKE cluster that is being deleted is gone.

        Raises
        ------
        CloudTimeoutError
        """
        self._wait_while(path, "STOPPING", self.timeouts.delete)

    def _wait_while(self, path: str, status: str, timeout: float) -> None:
        poll_until(
            lambda: self.get(path),
            lambda found: found is None or found.status.name != status,
            timeout=timeout,
            interval=self.timeouts.poll_interval,
            on_timeout=lambda _: _still(path, status),
            clock=self.clock,
        )

    def wait_for_operation(
        self, parent: str, operation: v1.Operation, doing: str, timeout: float
    ) -> None:
        """Wait until an operation has succeeded.

        Parameters
        ----------
        parent : str
            The location, as ``projects/P/locations/L``.
        operation : Operation
        doing : str
            What it does, as "create the GKE cluster 'x'".
        timeout : float

        Raises
        ------
        OperationFailedError, CloudQuotaError, CloudRightsError
            If it failed; with Google's message.
        CloudTimeoutError
            If it has not finished in time.
        CloudError
            If its status is unknown.
        """
        name = f"{parent}/operations/{operation.name}"
        deadline = Deadline(timeout, self.clock.now)
        said = ""
        while not is_done(operation):
            if deadline.expired:
                raise operation_timeout(doing, parent, operation, timeout)
            stage = stage_of(operation)
            if stage != said:
                said = stage
                self.say(f"{doing}: {stage}")
            self.clock.sleep(self.timeouts.poll_interval)
            found = self._get_operation(name, doing)
            if found is None:  # it ended long ago: the resource has its outcome
                return
            operation = found
        check_operation(doing, operation)

    def _get_operation(self, name: str, doing: str) -> v1.Operation | None:
        request = v1.GetOperationRequest(name=name)
        with self.map_errors(doing):
            try:
                found: v1.Operation = self.client.get_operation(
                    request, **with_retries(self.retry)
                )
            except exceptions.NotFound:
                return None
        return found

    # --- changes --------------------------------------------------------------------

    def delete_cluster(self, path: str) -> None:
        """Delete a GKE cluster, unless it is gone."""
        request = v1.DeleteClusterRequest(name=path)
        timeout = self.timeouts.delete
        self._change(
            f"delete {path}", path, self.client.delete_cluster, request, timeout
        )

    def try_delete_cluster(self, path: str) -> bool:
        """Request the deletion of a GKE cluster once.

        Returns
        -------
        bool
            False if GKE is busy with the cluster, or if the response was lost.
        """
        request = v1.DeleteClusterRequest(name=path)
        with self.map_errors(f"delete {path}"):
            try:
                self.client.delete_cluster(request, **without_retries(self.retry))
            except exceptions.NotFound:
                return True
            except TRANSIENT:
                return False
            except (exceptions.FailedPrecondition, exceptions.Aborted) as error:
                if not is_busy(error):
                    raise
                return False
        return True

    def delete_node_pool(self, path: str, pool: str) -> None:
        """Delete a node pool, unless it is gone."""
        request = v1.DeleteNodePoolRequest(name=f"{path}/nodePools/{pool}")
        doing = f"delete the node pool {pool!r} of {path}"
        self._change(doing, path, self.client.delete_node_pool, request)

    def create_node_pool(self, path: str, pool: v1.NodePool) -> None:
        """Create a node pool, unless it exists."""
        request = v1.CreateNodePoolRequest(parent=path, node_pool=pool)
        doing = f"create the node pool {pool.name!r} of {path}"
        self._change(doing, path, self.client.create_node_pool, request)

    def set_autoscaling(
        self, path: str, pool: str, autoscaling: v1.NodePoolAutoscaling
    ) -> None:
        """Set the limits of a node pool's autoscaler."""
        request = v1.SetNodePoolAutoscalingRequest(
            name=f"{path}/nodePools/{pool}", autoscaling=autoscaling
        )
        doing = f"set the autoscaling of the node pool {pool!r} of {path}"
        self._change(doing, path, self.client.set_node_pool_autoscaling, request)

    def set_node_pool_size(self, path: str, pool: str, nodes: int) -> None:
        """Set how many nodes a node pool has, in each of its zones."""
        request = v1.SetNodePoolSizeRequest(
            name=f"{path}/nodePools/{pool}", node_count=nodes
        )
        doing = f"set the size of the node pool {pool!r} of {path}"
        self._change(doing, path, self.client.set_node_pool_size, request)

    def set_labels(
        self, path: str, labels: Mapping[str, str], fingerprint: str
    ) -> None:
        """Replace all labels, unless they have changed since the fingerprint."""
        request = v1.SetLabelsRequest(
            name=path, resource_labels=dict(labels), label_fingerprint=fingerprint
        )
        doing = f"change the labels of {path}"
        self._change(doing, path, self.client.set_labels, request)

    def update_labels(
        self, path: str, change: Callable[[Mapping[str, str]], dict[str, str]]
    ) -> None:
        """Change the labels of a managed GKE cluster; again if others do meanwhile.

        Parameters
        ----------
        path : str
        change : callable
            Given the current labels, returns the new ones.

        Raises
        ------
        CloudError
            If there is no such managed GKE cluster, or Google refuses.
        """
        for remaining in reversed(range(_LABEL_ATTEMPTS)):
            found = self.get_managed(path)
            before = dict(found.resource_labels)
            labels = change(before)
            if labels == before:
                return
            try:
                self.set_labels(path, labels, found.label_fingerprint)
            except CloudError as error:
                changed = isinstance(error.__cause__, exceptions.FailedPrecondition)
                if not (changed and remaining):
                    raise
            else:
                return

    def map_errors(self, doing: str) -> AbstractContextManager[None]:
        """Map errors of requests to GKE, as `map_google_errors` does."""
        return map_google_errors(doing, self.project, SERVICE, ADMIN)

    def _change(
        self,
        doing: str,
        path: str,
        method: Callable[..., v1.Operation],
        request: object,
        timeout: float | None = None,
    ) -> None:
        """Request a change, and wait until it is done."""
        timeout = self.timeouts.change if timeout is None else timeout
        deadline = Deadline(timeout, self.clock.now)
        operation = self._begin(doing, method, request, deadline)
        if operation is not None:
            parent = path.partition("/clusters/")[0]
            self.wait_for_operation(parent, operation, doing, deadline.remaining)

    def _begin(
        self,
        doing: str,
        method: Callable[..., v1.Operation],
        request: object,
        deadline: Deadline,
    ) -> v1.Operation | None:
        """Send a request until GKE is not busy; None if nothing is left to do."""
        while True:
            with self.map_errors(doing):
                try:
                    return method(request, **with_retries(self.retry))
                except exceptions.NotFound:
                    if not doing.startswith("delete"):
                        raise
                    return None
                except exceptions.AlreadyExists:
                    return None
                except (exceptions.FailedPrecondition, exceptions.Aborted) as error:
                    if not is_busy(error) or deadline.expired:
                        raise
            self.say(f"waiting to {doing}: GKE is busy with another operation")
            self.clock.sleep(self.timeouts.poll_interval)


def check_managed(path: str, cluster: v1.Cluster) -> None:
    """Check that dask_hpsearch manages a GKE cluster, before it is changed.

    Raises
    ------
    ForeignResourceError
        If it was created by other means.
    """
    if not is_managed(cluster.resource_labels):
        msg = (
            f"the GKE cluster {path} was not created by dask-hpsearch and will not be "
            "modified: choose another name. (To run Dask on it anyway, get its kubeconfig "
            "and use kube_cluster)"
        )
        raise ForeignResourceError(msg)


def _still(path: str, status: str) -> CloudTimeoutError:
    return CloudTimeoutError(
        f"{path} is still {status}: check it in the Google Cloud console, or try again "
        "later"
    )
