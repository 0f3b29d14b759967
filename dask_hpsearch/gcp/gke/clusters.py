"""GKE clusters: found, created, changed and deleted, if dask_hpsearch manages them.

Every change checks the labels first. A creation that fails is undone; one that was left by a
client that was killed is completed by the next client that asks for the GKE cluster.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.cloud import container_v1 as v1

from dask_hpsearch.concurrency import Clock
from dask_hpsearch.exceptions import CloudError, ForeignResourceError, GKEMismatchError
from dask_hpsearch.gcp.gke import labels as gke_labels
from dask_hpsearch.gcp.gke import requests
from dask_hpsearch.gcp.gke.api import GKEApi, check_managed
from dask_hpsearch.gcp.gke.create import Creation
from dask_hpsearch.gcp.gke.delete import delete, delete_unused
from dask_hpsearch.gcp.gke.operations import Timeouts, conditions, operation_error
from dask_hpsearch.gcp.gke.state import GKECluster, parse_cluster
from dask_hpsearch.stores.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from dask_hpsearch.config.gke import GKESpec

_logger = logging.getLogger(__name__)
_STATUS = v1.Cluster.Status
_POOLS = (requests.SYSTEM, requests.WORKERS)


@dataclass(frozen=True, slots=True)
class EnsuredCluster:
    """A GKE cluster that is ready.

    Attributes
    ----------
    cluster : GKECluster
    created : bool
        Whether this call has created it.
    """

    cluster: GKECluster
    created: bool


class GKEClusters:
    """The GKE clusters of a project that dask_hpsearch manages.

    Parameters
    ----------
    client : ClusterManagerClient
    project : str
    retry : Retry, optional
        How single requests are repeated.
    timeouts : Timeouts, optional
        How long operations may take.
    clock : Clock, optional
    say : callable
        Given a line of progress now and then; default: the log of this module.
    """

    def __init__(
        self,
        client: Any,
        project: str,
        *,
        retry: Retry | None = None,
        timeouts: Timeouts | None = None,
        clock: Clock | None = None,
        say: Callable[[str], None] = _logger.info,
    ) -> None:
        self._api = GKEApi(
            client,
            project,
            retry or Retry(),
            say,
            clock or Clock(),
            timeouts or Timeouts(),
        )
        self._clock, self._say = self._api.clock, say

    def find(self, path: str) -> GKECluster | None:
        """Return a GKE cluster, managed or not; None if there is none.

        Parameters
        ----------
        path : str
            As `GKESpec.path` has it.

        Raises
        ------
        CloudError
            If Google refuses or does not respond.
        """
        found = self._api.get(path)
        return None if found is None else parse_cluster(self._api.project, found)

    def check_name(self, path: str) -> None:
        """Check that a name is free, or that of a managed GKE cluster.

        Raises
        ------
        ForeignResourceError
            If there is a GKE cluster of that name that was created by other means.
        CloudError
            If Google refuses or does not respond.
        """
        found = self._api.get(path)
        if found is not None:
            check_managed(path, found)

    def list_managed(self) -> list[GKECluster]:
        """Return the managed GKE clusters of the project, in all locations.

        Raises
        ------
        CloudError
            If Google refuses or does not respond.
        """
        return [
            parse_cluster(self._api.project, one)
            for one in self._api.list_clusters()
            if gke_labels.is_managed(one.resource_labels)
        ]

    def ensure(
        self, spec: GKESpec, *, keep: bool = False, claim: str | None = None
    ) -> EnsuredCluster:
        """Find a spec's GKE cluster, complete it if it is incomplete, or create it.

        Parameters
        ----------
        spec : GKESpec
        keep : bool
            Whether to label it as one that stays.
        claim : str, optional
            A label that says for an hour that a client is about to use it.

        Returns
        -------
        EnsuredCluster
            It is ready, and expires ``ttl_hours`` from now or later.

        Raises
        ------
        ForeignResourceError
            If the name is taken by a GKE cluster, or a node pool, that is not managed.
        GKEMismatchError
            If it is managed, but differs from the spec.
        CloudError
            If Google refuses or fails. Nothing that this call has created is left.
        """
        failures = 0
        while True:
            found = self._api.get(spec.path)
            if found is None:
                creation = Creation(
                    spec, self._api, self.delete, keep=keep, claim=claim
                )
                created = creation.run()
                if created is not None:
                    return EnsuredCluster(created, created=True)
                continue  # another client was quicker
            check_managed(spec.path, found)
            if found.status == _STATUS.ERROR:
                failures += 1
                self._remove_failed(spec.path, found, last=failures > 1)
            elif found.status == _STATUS.STOPPING:
                self._say(f"waiting until the old GKE cluster {spec.name} is deleted")
                self._api.wait_until_deleted(spec.path)
            elif found.status == _STATUS.PROVISIONING:
                self._say(f"the GKE cluster {spec.name} is already being created")
                self._api.wait_until_created(spec.path)
            else:
                adopted = self._try_adopt(spec, found, keep=keep, claim=claim)
                if adopted is not None:
                    return EnsuredCluster(adopted, created=False)

    def extend(
        self,
        path: str,
        expires_at: float,
        *,
        keep: bool = False,
        claim: str | None = None,
    ) -> None:
        """Extend the time to live of a managed GKE cluster; never shorten it.

        Parameters
        ----------
        path : str
        expires_at : float
            Seconds since the epoch.
        keep : bool
            Whether to label it as one that stays.
        claim : str, optional
            As for `ensure`.

        Raises
        ------
        CloudError
            If there is no such managed GKE cluster, or Google refuses.
        """
        now = self._clock.now()

        def extended(before: Mapping[str, str]) -> dict[str, str]:
            labels = gke_labels.with_claim(before, claim, now)
            if expires_at > (gke_labels.expiry(before) or 0.0):
                labels[gke_labels.EXPIRES_AT] = gke_labels.time_text(expires_at)
            if keep:
                labels[gke_labels.KEPT] = "true"
            return labels

        self._api.update_labels(path, extended)

    def release(self, path: str, claim: str) -> None:
        """Remove a claim.

        Raises
        ------
        CloudError
            If there is no such managed GKE cluster, or Google refuses.
        """

        def without(before: Mapping[str, str]) -> dict[str, str]:
            return {name: value for name, value in before.items() if name != claim}

        self._api.update_labels(path, without)

    def set_max_workers(self, path: str, max_nodes: int) -> None:
        """Set how many worker nodes there may be.

        Raises
        ------
        CloudError
            If there is no such managed GKE cluster, or Google refuses.
        """
        for pool in self._worker_pools(path):
            autoscaling = v1.NodePoolAutoscaling(pool.autoscaling)
            autoscaling.total_max_node_count = max_nodes
            autoscaling.enabled = True  # `remove_workers` has disabled it
            if autoscaling != pool.autoscaling:
                self._api.set_autoscaling(path, pool.name, autoscaling)

    def remove_workers(self, path: str) -> None:
        """Remove all worker nodes, which cost most.

        Raises
        ------
        CloudError
            If there is no such managed GKE cluster, or Google refuses.
        """
        for pool in self._worker_pools(path):
            if pool.autoscaling.enabled:  # it would add them again
                disabled = v1.NodePoolAutoscaling(enabled=False)
                self._api.set_autoscaling(path, pool.name, disabled)
            self._api.set_node_pool_size(path, pool.name, 0)

    def delete(self, path: str) -> bool:
        """Delete a managed GKE cluster, and wait until it is gone.

        Returns
        -------
        bool
            False if there was none.

        Raises
        ------
        ForeignResourceError
            If it is not managed: then nothing has changed. Or if it has node pools that
            are not: then the managed ones are deleted, and the rest is left.
        CloudError
            If Google refuses or fails.
        """
        return delete(self._api, path)

    def delete_unused(self, path: str, is_in_use: Callable[[], bool]) -> bool:
        """Delete a managed GKE cluster, unless it is in use, or claimed meanwhile.

        Parameters
        ----------
        path : str
        is_in_use : callable
            Whether others use it, or claim it. It is called again if the GKE cluster has
            changed meanwhile.

        Returns
        -------
        bool
            Whether it is gone.

        Raises
        ------
        ForeignResourceError, CloudError
            As for `delete`.
        """
        return delete_unused(self._api, path, is_in_use)

    def _worker_pools(self, path: str) -> Iterator[v1.NodePool]:
        for pool in self._api.get_managed(path).node_pools:
            if pool.name == requests.WORKERS and requests.is_managed_pool(pool):
                yield pool

    def _try_adopt(
        self, spec: GKESpec, found: v1.Cluster, *, keep: bool, claim: str | None
    ) -> GKECluster | None:
        """Adopt a GKE cluster; None if another client deletes it meanwhile."""
        try:
            return self._adopt(spec, found, keep=keep, claim=claim)
        except CloudError:
            now = self._api.get(spec.path)
            creation = found.resource_labels.get(gke_labels.CREATION)
            if (
                now is not None
                and now.status != _STATUS.STOPPING
                and now.resource_labels.get(gke_labels.CREATION) == creation
            ):
                raise
            self._say(f"another client has deleted the GKE cluster {spec.name}")
            return None

    def _adopt(
        self, spec: GKESpec, found: v1.Cluster, *, keep: bool, claim: str | None
    ) -> GKECluster:
        """Use an existing GKE cluster, changed to what the spec says where possible."""
        pools = {one.name: one for one in found.node_pools if one.name in _POOLS}
        _check_matches(spec, found, pools)
        expires_at = self._clock.now() + 3600 * spec.ttl_hours
        self.extend(spec.path, expires_at, keep=keep, claim=claim)
        for name in _POOLS:
            if name in pools:
                self._check_healthy(spec, pools[name])
        for name in _POOLS:
            if name not in pools:
                self._api.create_node_pool(spec.path, requests.pool(spec, name))
        self.set_max_workers(spec.path, spec.pools.workers.max_nodes)
        return self._api.wait_until_ready(spec.path)

    def _check_healthy(self, spec: GKESpec, pool: v1.NodePool) -> None:
        if pool.status == v1.NodePool.Status.ERROR:
            doing = f"run the nodes of pool {pool.name!r} of {spec.name!r}"
            raise operation_error(doing, conditions(pool))
        if pool.status == v1.NodePool.Status.RUNNING_WITH_ERROR:
            said = "; ".join(conditions(pool))
            self._say(f"the node pool {pool.name!r} has errors: {said}")

    def _remove_failed(self, path: str, found: v1.Cluster, *, last: bool) -> None:
        """Remove a GKE cluster whose creation has failed, so that it can be created."""
        if last:
            doing = f"create {path}"
            raise operation_error(doing, conditions(found))
        said = "; ".join(conditions(found))
        self._say(
            f"the existing GKE cluster has failed ({said}): replacing it with a new one"
        )
        self.delete(path)


def _check_matches(
    spec: GKESpec, found: v1.Cluster, pools: Mapping[str, v1.NodePool]
) -> None:
    """Check that an existing GKE cluster can become what the spec says.

    Raises
    ------
    ForeignResourceError, GKEMismatchError
    """
    for name in _POOLS:
        if name in pools and not requests.is_managed_pool(pools[name]):
            msg = (
                f"{spec.path} has a node pool {name!r} that was not created by "
                "dask-hpsearch and will not be modified: rename or remove it, or choose "
                "another name for the GKE cluster"
            )
            raise ForeignResourceError(msg)
    problems = requests.differences(spec, found)
    if problems:
        msg = (
            f"the GKE cluster {spec.name!r} differs from the spec: {'; '.join(problems)}. "
            "Remove it with dask-hpsearch down, or choose another name in the spec"
        )
        raise GKEMismatchError(msg)
