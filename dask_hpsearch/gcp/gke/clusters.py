"""GKE clusters: found, created, changed and deleted; none but our own are touched.

Every change looks at the labels first. What is begun and fails is removed; what somebody
has begun and left (a client that was killed) is finished by whoever asks for it next.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.cloud import container_v1 as v1

from dask_hpsearch.exceptions import CloudError, ForeignResourceError, GKEMismatchError
from dask_hpsearch.gcp.api_errors import Retry
from dask_hpsearch.gcp.gke import labels as ours
from dask_hpsearch.gcp.gke import requests
from dask_hpsearch.gcp.gke.api import Changes, GKEReader, check_ours, relabel
from dask_hpsearch.gcp.gke.create import Creation
from dask_hpsearch.gcp.gke.delete import Deletion
from dask_hpsearch.gcp.gke.operations import (
    Clock,
    Follower,
    Limits,
    conditions,
    failure,
    map_gke_errors,
)
from dask_hpsearch.gcp.gke.state import GKECluster, described

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dask_hpsearch.config.gke import GKESpec

_logger = logging.getLogger(__name__)
_STATUS = v1.Cluster.Status


@dataclass(frozen=True, slots=True)
class Ensured:
    """A GKE cluster that is there.

    Attributes
    ----------
    cluster : GKECluster
    created : bool
        Whether this call has created it.
    """

    cluster: GKECluster
    created: bool


class GKEClusters:
    """The GKE clusters of a project that dask_hpsearch has made.

    Parameters
    ----------
    client : ClusterManagerClient
    project : str
    retry : Retry, optional
        How long single requests are waited for, and repeated.
    limits : Limits, optional
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
        limits: Limits | None = None,
        clock: Clock | None = None,
        say: Callable[[str], None] = _logger.info,
    ) -> None:
        self._follower = Follower(
            client,
            project,
            retry or Retry(),
            say,
            clock or Clock(),
            limits or Limits(),
        )
        self._clock, self._say = self._follower.clock, say
        self._looker = GKEReader(self._follower)
        self._changes = Changes(self._follower)
        self._deletion = Deletion(self._looker, self._changes)

    def find(self, path: str) -> GKECluster | None:
        """Return a GKE cluster, whosever it is; None if there is none.

        Parameters
        ----------
        path : str
            As `GKESpec.path` has it.

        Raises
        ------
        CloudError
            If Google does not tell.
        """
        found = self._looker.get(path)
        return None if found is None else described(self._follower.project, found)

    def check_name(self, path: str) -> None:
        """See that a name is free, or that of a GKE cluster of ours.

        Raises
        ------
        ForeignResourceError
            If somebody else has a GKE cluster of that name.
        CloudError
            If Google does not tell.
        """
        found = self._looker.get(path)
        if found is not None:
            check_ours(path, found)

    def list_ours(self) -> list[GKECluster]:
        """Return our GKE clusters of the project, in all locations.

        Raises
        ------
        CloudError
            If Google does not tell.
        """
        project, client = self._follower.project, self._follower.client
        request = v1.ListClustersRequest(parent=f"projects/{project}/locations/-")
        with map_gke_errors("list GKE clusters", project):
            answer = client.list_clusters(request, **self._follower.retry.reading)
        if answer.missing_zones:
            self._say(f"no answer from {', '.join(answer.missing_zones)}: look again")
        return [
            described(project, one)
            for one in answer.clusters
            if ours.is_ours(one.resource_labels)
        ]

    def ensure(
        self, spec: GKESpec, *, keep: bool = False, claim: str | None = None
    ) -> Ensured:
        """Find a spec's GKE cluster, finish it if it is half made, or create it.

        Parameters
        ----------
        spec : GKESpec
        keep : bool
            Whether it is to be marked as one that stays.
        claim : str, optional
            A label that shows for an hour that somebody is about to use it.

        Returns
        -------
        Ensured
            It is ready, and expires ``ttl_hours`` from now or later.

        Raises
        ------
        ForeignResourceError
            If the name is taken by a cluster, or a pool, that is not ours.
        GKEMismatchError
            If it is ours, but not as the spec says.
        CloudError
            If Google refuses or fails; its kinds say why. Nothing that this call created
            is left.
        """
        broken = 0
        while True:
            found = self._looker.get(spec.path)
            if found is None:
                creation = Creation(
                    spec, self._looker, self.delete, keep=keep, claim=claim
                )
                created = creation.run()
                if created is not None:
                    return Ensured(created, created=True)
                continue  # somebody was quicker
            check_ours(spec.path, found)
            if found.status == _STATUS.ERROR:
                broken += 1
                self._remove_broken(spec.path, found, last=broken > 1)
            elif found.status == _STATUS.STOPPING:
                self._say(f"waiting until the old GKE cluster {spec.name} is gone")
                self._looker.until_gone(spec.path)
            elif found.status == _STATUS.PROVISIONING:
                self._say(f"the GKE cluster {spec.name} is being created already")
                self._looker.until_settled(spec.path)
            else:
                adopted = self._adopt_or_lose(spec, found, keep=keep, claim=claim)
                if adopted is not None:
                    return Ensured(adopted, created=False)

    def extend(
        self,
        path: str,
        expires_at: float,
        *,
        keep: bool = False,
        claim: str | None = None,
    ) -> None:
        """Let a GKE cluster of ours live longer; never shorter.

        Parameters
        ----------
        path : str
        expires_at : float
            Seconds since the epoch.
        keep : bool
            Whether it is to be marked as one that stays.
        claim : str, optional
            As for `ensure`.

        Raises
        ------
        CloudError
            If there is no such cluster of ours, or Google refuses.
        """
        now = self._clock.now()

        def longer(before: Mapping[str, str]) -> dict[str, str]:
            labels = ours.claimed(before, claim, now)
            if expires_at > (ours.expiry(before) or 0.0):
                labels[ours.EXPIRES_AT] = ours.time_text(expires_at)
            if keep:
                labels[ours.KEPT] = "true"
            return labels

        relabel(self._looker, self._changes, path, longer)

    def release(self, path: str, claim: str) -> None:
        """Take a claim back.

        Raises
        ------
        CloudError
            If there is no such cluster of ours, or Google refuses.
        """

        def without(before: Mapping[str, str]) -> dict[str, str]:
            return {name: value for name, value in before.items() if name != claim}

        relabel(self._looker, self._changes, path, without)

    def resize(self, path: str, max_nodes: int) -> None:
        """Change how many nodes of workers there may be.

        Raises
        ------
        CloudError
            If there is no such cluster of ours, or Google refuses.
        """
        for pool in self._looker.mine(path).node_pools:
            if pool.name == requests.WORKERS and requests.is_our_pool(pool):
                scaling = v1.NodePoolAutoscaling(pool.autoscaling)
                scaling.total_max_node_count = max_nodes
                scaling.enabled = True  # it was put off if all was to go
                if scaling != pool.autoscaling:
                    self._changes.set_autoscaling(path, pool.name, scaling)

    def empty(self, path: str) -> None:
        """End all nodes of workers: what costs most goes first.

        Raises
        ------
        CloudError
            If there is no such cluster of ours, or Google refuses.
        """
        for pool in self._looker.mine(path).node_pools:
            if pool.name == requests.WORKERS and requests.is_our_pool(pool):
                if pool.autoscaling.enabled:  # else it would bring them back
                    off = v1.NodePoolAutoscaling(enabled=False)
                    self._changes.set_autoscaling(path, pool.name, off)
                self._changes.set_size(path, pool.name, 0)

    def delete(self, path: str) -> bool:
        """Delete a GKE cluster of ours, and wait until it is gone.

        Returns
        -------
        bool
            False if there was none.

        Raises
        ------
        ForeignResourceError
            If it is not ours, and nothing has happened; or if somebody has added pools of
            nodes to it: then ours are gone, and the rest is left.
        CloudError
            If Google refuses or fails.
        """
        return self._deletion.run(path)

    def delete_unused(self, path: str, is_in_use: Callable[[], bool]) -> bool:
        """Delete a GKE cluster of ours, unless others use it, or claim it meanwhile.

        Parameters
        ----------
        path : str
        is_in_use : callable
            Looks whether others use it, and whether they claim it. It is asked again if
            the cluster has changed by the time that it has answered.

        Returns
        -------
        bool
            Whether it is gone.

        Raises
        ------
        ForeignResourceError, CloudError
            As for `delete`.
        """
        return self._deletion.run_unless(path, is_in_use)

    def _adopt_or_lose(
        self, spec: GKESpec, found: v1.Cluster, *, keep: bool, claim: str | None
    ) -> GKECluster | None:
        """Adopt a GKE cluster; None if somebody deletes it meanwhile."""
        try:
            return self._adopt(spec, found, keep=keep, claim=claim)
        except CloudError:
            now = self._looker.get(spec.path)
            mark = found.resource_labels.get(ours.CREATION)
            if (
                now is not None
                and now.status != _STATUS.STOPPING
                and now.resource_labels.get(ours.CREATION) == mark
            ):
                raise
            self._say(f"somebody has deleted the GKE cluster {spec.name}")
            return None

    def _adopt(
        self, spec: GKESpec, found: v1.Cluster, *, keep: bool, claim: str | None
    ) -> GKECluster:
        """Make a GKE cluster that is there what the spec says, as far as that is ours."""
        there = {one.name: one for one in found.node_pools}
        named = [
            there[name] for name in (requests.SYSTEM, requests.WORKERS) if name in there
        ]
        for pool in named:
            if not requests.is_our_pool(pool):
                raise _foreign_pool(spec.path, pool.name)
        problems = requests.differences(spec, found)
        if problems:
            msg = (
                f"the GKE cluster {spec.name!r} is another than the spec's: "
                f"{'; '.join(problems)}. Remove it with dask-hpsearch down, or give the "
                "spec another name"
            )
            raise GKEMismatchError(msg)
        expires_at = self._clock.now() + 3600 * spec.ttl_hours
        self.extend(spec.path, expires_at, keep=keep, claim=claim)
        for pool in named:
            if pool.status == v1.NodePool.Status.ERROR:
                doing = f"run the nodes of pool {pool.name!r} of {spec.name!r}"
                raise failure(doing, conditions(pool))
            if pool.status == v1.NodePool.Status.RUNNING_WITH_ERROR:
                said = "; ".join(conditions(pool))
                self._say(f"not all is well with pool {pool.name!r}: {said}")
        for name in (requests.SYSTEM, requests.WORKERS):
            if name not in there:
                self._changes.create_pool(spec.path, requests.pool(spec, name))
        self.resize(spec.path, spec.pools.workers.max_nodes)
        return self._looker.until_ready(spec.path)

    def _remove_broken(self, path: str, found: v1.Cluster, *, last: bool) -> None:
        """Remove a cluster whose creation has failed, so that another can be made."""
        if last:
            doing = f"bring up {path}"
            raise failure(doing, conditions(found))
        said = "; ".join(conditions(found))
        self._say(f"the GKE cluster that is there has failed ({said}): making another")
        self.delete(path)


def _foreign_pool(path: str, pool: str) -> ForeignResourceError:
    return ForeignResourceError(
        f"{path} has a pool {pool!r} that dask-hpsearch has not made: rename or remove it, "
        "or choose another name for the GKE cluster"
    )
