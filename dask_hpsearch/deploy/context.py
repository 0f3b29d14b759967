"""What every step of a deployment needs: the spec, Google's clients, progress, options."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dask_hpsearch.concurrency import Clock
from dask_hpsearch.exceptions import CloudNotFoundError
from dask_hpsearch.gcp.auth import write_kubeconfig
from dask_hpsearch.gcp.gke.clusters import GKEClusters
from dask_hpsearch.gcp.gke.labels import new_claim

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dask_hpsearch.config.gke import GKESpec
    from dask_hpsearch.gcp.clients import CloudClients

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DeployContext:
    """A spec to deploy, and the means to do so.

    Attributes
    ----------
    spec : GKESpec
    clients : CloudClients
    say : callable
        Given a line at each step.
    options : mapping
        For `GKEClusters`: retry, timeouts, clock.
    timeout : float
        Seconds for each step inside Kubernetes.
    claim : str
        A label on the GKE cluster by which other clients see that it is about to be used.
    """

    spec: GKESpec
    clients: CloudClients
    say: Callable[[str], None] = _logger.info
    options: dict[str, Any] = field(default_factory=dict)
    timeout: float = 300.0
    claim: str = field(default_factory=new_claim)

    @property
    def gke(self) -> GKEClusters:
        """The managed GKE clusters of the project."""
        return GKEClusters(
            self.clients.clusters, self.spec.project, say=self.say, **self.options
        )

    @property
    def clock(self) -> Clock:
        """The clock to wait by."""
        clock: Clock = self.options.get("clock") or Clock()
        return clock

    def kubeconfig(self) -> Path:
        """Write the kubeconfig of the spec's GKE cluster.

        Raises
        ------
        CloudNotFoundError
            If there is no such GKE cluster.
        """
        found = self.gke.find(self.spec.path)
        if found is None:
            msg = (
                f"there is no GKE cluster {self.spec.path}: create it with "
                "dask-hpsearch up"
            )
            raise CloudNotFoundError(msg)
        return write_kubeconfig(found)
