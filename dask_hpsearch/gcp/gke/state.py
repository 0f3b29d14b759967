"""The current state of a GKE cluster, as values."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dask_hpsearch.config.gke import LONGEST_TTL_HOURS
from dask_hpsearch.gcp.gke import labels as gke_labels
from dask_hpsearch.gcp.gke.operations import conditions
from dask_hpsearch.gcp.gke.requests import is_managed_pool

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.cloud import container_v1 as v1


@dataclass(frozen=True, slots=True)
class GKEPool:
    """A node pool of a GKE cluster.

    Attributes
    ----------
    name, status, machine_type : str
    message : str
        GKE's message about its status.
    spot : bool
    min_nodes, max_nodes : int
        Limits of its autoscaler.
    managed : bool
        Whether dask_hpsearch has created it.
    """

    name: str
    status: str
    message: str
    machine_type: str
    spot: bool
    min_nodes: int
    max_nodes: int
    managed: bool


@dataclass(frozen=True, slots=True)
class GKECluster:
    """A GKE cluster.

    Attributes
    ----------
    project, location, name, status : str
    message : str
        GKE's message about its status.
    version : str
        Of Kubernetes.
    server : str
        URL of its Kubernetes API; empty until there is one.
    ca_certificate : str
        Of the authority that has signed the API's certificate, in base64; empty: a public
        one.
    nodes : int
        Number of nodes in all node pools.
    created, expires_at : float or None
        Seconds since the epoch. A managed GKE cluster whose label does not say when it
        expires does so after the longest time to live that a spec may set.
    labels : mapping
    pools : tuple of GKEPool
    """

    project: str
    location: str
    name: str
    status: str
    message: str
    version: str
    server: str
    ca_certificate: str
    nodes: int
    created: float | None
    expires_at: float | None
    labels: Mapping[str, str]
    pools: tuple[GKEPool, ...]

    @property
    def path(self) -> str:
        """Its resource name in Google's APIs."""
        return f"projects/{self.project}/locations/{self.location}/clusters/{self.name}"

    @property
    def owner(self) -> str:
        """The user who has created it."""
        return self.labels.get(gke_labels.OWNER, "")

    @property
    def kept(self) -> bool:
        """Whether it stays after the search that created it."""
        return self.labels.get(gke_labels.KEPT) == "true"

    def has_expired(self, now: float) -> bool:
        """Whether its time to live is over."""
        return self.expires_at is not None and self.expires_at <= now


def parse_cluster(project: str, found: v1.Cluster) -> GKECluster:
    """Read the state of a GKE cluster from GKE's response."""
    server, ca_certificate = _endpoint(found)
    labels, created = dict(found.resource_labels), _timestamp(found.create_time)
    return GKECluster(
        project=project,
        location=found.location,
        name=found.name,
        status=found.status.name,
        message=_message(found),
        version=found.current_master_version,
        server=server,
        ca_certificate=ca_certificate,
        nodes=found.current_node_count,
        created=created,
        expires_at=_expiry(labels, created),
        labels=labels,
        pools=tuple(map(_parse_pool, found.node_pools)),
    )


def _message(found: v1.Cluster | v1.NodePool) -> str:
    return "; ".join(filter(None, conditions(found)))


def _parse_pool(found: v1.NodePool) -> GKEPool:
    return GKEPool(
        name=found.name,
        status=found.status.name,
        message=_message(found),
        machine_type=found.config.machine_type,
        spot=found.config.spot,
        min_nodes=found.autoscaling.total_min_node_count,
        max_nodes=found.autoscaling.total_max_node_count,
        managed=is_managed_pool(found),
    )


def _endpoint(found: v1.Cluster) -> tuple[str, str]:
    """Return the API's URL, by name if it has one, and its CA certificate."""
    plane = found.control_plane_endpoints_config
    by_name = plane.dns_endpoint_config
    if by_name.allow_external_traffic and by_name.endpoint:
        return f"https://{by_name.endpoint}", ""
    address = plane.ip_endpoints_config.public_endpoint or found.endpoint
    if not address:
        return "", ""
    return f"https://{address}", found.master_auth.cluster_ca_certificate


def _expiry(labels: Mapping[str, str], created: float | None) -> float | None:
    expires_at = gke_labels.expiry(labels)
    if expires_at is not None or created is None or not gke_labels.is_managed(labels):
        return expires_at
    return created + 3600 * LONGEST_TTL_HOURS


def _timestamp(text: str) -> float | None:
    if not text:
        return None
    return dt.datetime.fromisoformat(text).timestamp()
