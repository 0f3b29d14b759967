"""Creates a GKE cluster: once, even if responses are lost; undone if it fails."""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING

from google.api_core import exceptions
from google.cloud import container_v1 as v1

from dask_hpsearch.exceptions import CloudError
from dask_hpsearch.gcp.gke import labels as gke_labels
from dask_hpsearch.gcp.gke import requests
from dask_hpsearch.gcp.gke.operations import operation_error
from dask_hpsearch.gcp.retry import TRANSIENT, without_retries

if TYPE_CHECKING:
    from collections.abc import Callable

    from dask_hpsearch.config.gke import GKESpec
    from dask_hpsearch.gcp.gke.api import GKEApi
    from dask_hpsearch.gcp.gke.state import GKECluster

_logger = logging.getLogger(__name__)
_ATTEMPTS = 3
_FAILED = ("ERROR", "RUNNING_WITH_ERROR")  # states of a node pool


class Creation:
    """One attempt to create a spec's GKE cluster.

    Parameters
    ----------
    spec : GKESpec
    api : GKEApi
    delete : callable
        Deletes a managed GKE cluster, by its path.
    keep : bool
        Whether to label the GKE cluster as one that stays.
    claim : str or None
        A label that says for an hour that a client is about to use it.
    """

    def __init__(
        self,
        spec: GKESpec,
        api: GKEApi,
        delete: Callable[[str], object],
        *,
        keep: bool,
        claim: str | None = None,
    ) -> None:
        self._spec, self._api, self._delete = spec, api, delete
        self._token = uuid.uuid4().hex  # distinguishes it from one of the same name
        now = api.clock.now()
        expires_at = now + 3600 * spec.ttl_hours
        labels = gke_labels.for_cluster(
            spec, expires_at=expires_at, creation=self._token
        )
        labels = gke_labels.with_claim(labels, claim, now)
        if keep:
            labels[gke_labels.KEPT] = "true"
        self._request = v1.CreateClusterRequest(
            parent=spec.parent, cluster=requests.cluster(spec, labels)
        )
        self._doing = f"create the GKE cluster {spec.name!r}"

    def run(self) -> GKECluster | None:
        """Create it and wait until it can be used.

        Returns
        -------
        GKECluster or None
            None if another client has created it first.

        Raises
        ------
        CloudError
            If it cannot be created. Nothing is left of it, or the error names the rest.
        """
        spec, api = self._spec, self._api
        api.say(f"creating the GKE cluster {spec.name} in {spec.location}")
        try:
            operation = self._begin()
            if operation is not None:
                timeout = api.timeouts.create
                api.wait_for_operation(spec.parent, operation, self._doing, timeout)
            created = api.wait_until_ready(spec.path)
            _check_pools(created)
        except _NameTakenError:
            return None
        except BaseException as error:
            self._undo(error)
            raise
        return created

    def _begin(self) -> v1.Operation | None:
        """Request the creation; None if it is under way and its operation unknown."""
        api = self._api
        with api.map_errors(self._doing):
            for remaining in reversed(range(_ATTEMPTS)):
                try:
                    begun: v1.Operation = api.client.create_cluster(
                        self._request, **without_retries(api.retry)
                    )
                except (exceptions.AlreadyExists, *TRANSIENT) as error:
                    found = api.get(self._spec.path)
                    if found is not None:
                        if not self._is_own(found):
                            raise _NameTakenError from error
                        return None
                    if not remaining:
                        raise
                else:
                    return begun
                api.clock.sleep(api.retry.maximum)
        return None

    def _undo(self, error: BaseException) -> None:
        """Remove what this attempt has created, and nothing else."""
        path = self._spec.path
        try:
            found = self._api.get(path)
            if found is not None and self._is_own(found):
                self._api.say("removing the incomplete GKE cluster")
                self._delete(path)
        except CloudError as second:
            left = (
                f"{path} may be left behind ({second}): remove it with "
                "dask-hpsearch down, or with dask-hpsearch sweep after it has expired"
            )
            _logger.warning("%s", left)
            if isinstance(error, CloudError):
                msg = f"{error}. {left}"
                raise type(error)(msg) from second

    def _is_own(self, found: v1.Cluster) -> bool:
        return found.resource_labels.get(gke_labels.CREATION) == self._token


def _check_pools(cluster: GKECluster) -> None:
    """Check that a new GKE cluster's nodes run; GKE may call the cluster itself RUNNING.

    Raises
    ------
    CloudError
    """
    for pool in cluster.pools:
        if pool.status in _FAILED:
            doing = f"run the nodes of pool {pool.name!r} of {cluster.path}"
            raise operation_error(doing, [pool.message])


class _NameTakenError(Exception):
    """Another client has created a GKE cluster of that name."""
