"""Creates a GKE cluster: once, also if answers are lost; undone if it fails."""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING

from google.api_core import exceptions
from google.cloud import container_v1 as v1

from dask_hpsearch.exceptions import CloudError
from dask_hpsearch.gcp.api_errors import LOST
from dask_hpsearch.gcp.gke import labels as ours
from dask_hpsearch.gcp.gke import requests
from dask_hpsearch.gcp.gke.operations import failure, map_gke_errors

if TYPE_CHECKING:
    from collections.abc import Callable

    from dask_hpsearch.config.gke import GKESpec
    from dask_hpsearch.gcp.gke.api import GKEReader
    from dask_hpsearch.gcp.gke.state import GKECluster

_logger = logging.getLogger(__name__)
_TRIES = 3
_BROKEN = ("ERROR", "RUNNING_WITH_ERROR")  # of pools


class Creation:
    """One attempt to create a spec's GKE cluster.

    Parameters
    ----------
    spec : GKESpec
    looker : GKEReader
    delete : callable
        Deletes a cluster of ours, by its path.
    keep : bool
        Whether the cluster is to be marked as one that stays.
    claim : str or None
        A label that shows for an hour that somebody is about to use it.
    """

    def __init__(
        self,
        spec: GKESpec,
        looker: GKEReader,
        delete: Callable[[str], object],
        *,
        keep: bool,
        claim: str | None = None,
    ) -> None:
        self._spec, self._looker, self._delete = spec, looker, delete
        self._follower = looker.follower
        self._token = uuid.uuid4().hex  # tells our cluster from one of the same name
        now = self._follower.clock.now()
        expires_at = now + 3600 * spec.ttl_hours
        labels = ours.for_cluster(spec, expires_at=expires_at, creation=self._token)
        labels = ours.claimed(labels, claim, now)
        if keep:
            labels[ours.KEPT] = "true"
        wanted = requests.cluster(spec, labels)
        self._request = v1.CreateClusterRequest(parent=spec.parent, cluster=wanted)
        self._doing = f"create the GKE cluster {spec.name!r}"

    def run(self) -> GKECluster | None:
        """Create it and wait until it can be used.

        Returns
        -------
        GKECluster or None
            None if somebody else was quicker.

        Raises
        ------
        CloudError
            If it cannot be created. Nothing is left of it; or the error says what is.
        """
        spec, follower = self._spec, self._follower
        follower.say(f"creating the GKE cluster {spec.name} in {spec.location}")
        try:
            operation = self._begin()
            if operation is not None:
                limit_s = follower.limits.create_s
                follower.follow(spec.parent, operation, self._doing, limit_s)
            created = self._looker.until_ready(spec.path)
            _check_pools(created)
        except _TakenError:
            return None
        except BaseException as error:
            self._undo(error)
            raise
        return created

    def _begin(self) -> v1.Operation | None:
        """Ask for the cluster; None if it is being created and its operation unknown."""
        follower = self._follower
        with map_gke_errors(self._doing, follower.project):
            for remaining in reversed(range(_TRIES)):
                try:
                    begun: v1.Operation = follower.client.create_cluster(
                        self._request, **follower.retry.once
                    )
                except (exceptions.AlreadyExists, *LOST) as error:
                    found = self._looker.get(self._spec.path)
                    if found is not None:
                        if not self._is_mine(found):
                            raise _TakenError from error
                        return None
                    if not remaining:
                        raise
                else:
                    return begun
                follower.clock.sleep(follower.retry.maximum)
        return None

    def _undo(self, error: BaseException) -> None:
        """Remove what this attempt has begun, and nothing else."""
        path = self._spec.path
        try:
            found = self._looker.get(path)
            if found is not None and self._is_mine(found):
                self._follower.say("removing the GKE cluster that was begun")
                self._delete(path)
        except CloudError as second:
            left = (
                f"Besides, {path} may be left behind ({second}): remove it with "
                "dask-hpsearch down; dask-hpsearch sweep does so when its time is over"
            )
            _logger.warning("%s", left)
            if isinstance(error, CloudError):
                msg = f"{error}. {left}"
                raise type(error)(msg) from second

    def _is_mine(self, found: v1.Cluster) -> bool:
        return found.resource_labels.get(ours.CREATION) == self._token


def _check_pools(cluster: GKECluster) -> None:
    """See that a new cluster's nodes run; GKE may call the cluster itself RUNNING.

    Raises
    ------
    CloudError
    """
    for pool in cluster.pools:
        if pool.status in _BROKEN:
            doing = f"run the nodes of pool {pool.name!r} of {cluster.path}"
            raise failure(doing, [pool.message])


class _TakenError(Exception):
    """Somebody else has created a cluster of that name."""
