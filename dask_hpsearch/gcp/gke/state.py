"""What a GKE cluster is right now, as values."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dask_hpsearch.config.gke import LONGEST_TTL_HOURS
from dask_hpsearch.gcp.gke import labels as ours
from dask_hpsearch.gcp.gke.operations import conditions
from dask_hpsearch.gcp.gke.requests import is_our_pool

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.cloud import container_v1 as v1


@dataclass(frozen=True, slots=True)
class GKEPool:
    """One of a GKE cluster's pools of nodes.

    Attributes
    ----------
    name, status, machine_type : str
    message : str
        What GKE says about its status.
    spot : bool
    min_nodes, max_nodes : int
        Between which numbers its nodes come and go.
    ours : bool
        Whether dask_hpsearch has made it.
    """

    name: str
    status: str
    message: str
    machine_type: str
    spot: bool
    min_nodes: int
    max_nodes: int
    ours: bool


@dataclass(frozen=True, slots=True)
class GKECluster:
    """A GKE cluster.

    Attributes
    ----------
    project, location, name, status : str
    message : str
        What GKE says about its status.
    version : str
        Of Kubernetes.
    server : str
        Where its API is reached; empty until it is there.
    authority : str
        The certificate that the API's is signed by, in base64; empty: a public one.
    nodes : int
        How many there are, of all pools.
    created, expires_at : float or None
        Seconds since the epoch. If the label of one of ours does not say when it expires,
        it does so when the longest time is over that a spec may give it.
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
    authority: str
    nodes: int
    created: float | None
    expires_at: float | None
    labels: Mapping[str, str]
    pools: tuple[GKEPool, ...]

    @property
    def path(self) -> str:
        """Its name, as Google's APIs want it."""
        return f"projects/{self.project}/locations/{self.location}/clusters/{self.name}"

    @property
    def owner(self) -> str:
        """Whom to ask."""
        return self.labels.get(ours.OWNER, "")

    @property
    def kept(self) -> bool:
        """Whether it stays when the search that made it has ended."""
        return self.labels.get(ours.KEPT) == "true"

    def has_expired(self, now: float) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and self.expires_at <= now


def described(project: str, found: v1.Cluster) -> GKECluster:
    """Make a description from GKE's own."""
    server, authority = _server(found)
    labels, created = dict(found.resource_labels), _seconds(found.create_time)
    return GKECluster(
        project=project,
        location=found.location,
        name=found.name,
        status=found.status.name,
        message=_said(found),
        version=found.current_master_version,
        server=server,
        authority=authority,
        nodes=found.current_node_count,
        created=created,
        expires_at=_expiry(labels, created),
        labels=labels,
        pools=tuple(map(_pool, found.node_pools)),
    )


def _said(found: v1.Cluster | v1.NodePool) -> str:
    return "; ".join(filter(None, conditions(found)))


def _pool(found: v1.NodePool) -> GKEPool:
    return GKEPool(
        name=found.name,
        status=found.status.name,
        message=_said(found),
        machine_type=found.config.machine_type,
        spot=found.config.spot,
        min_nodes=found.autoscaling.total_min_node_count,
        max_nodes=found.autoscaling.total_max_node_count,
        ours=is_our_pool(found),
    )


def _server(found: v1.Cluster) -> tuple[str, str]:
    """Return the API's address, by name if it has one, and its authority."""
    plane = found.control_plane_endpoints_config
    by_name = plane.dns_endpoint_config
    if by_name.allow_external_traffic and by_name.endpoint:
        return f"https://{by_name.endpoint}", ""
    address = plane.ip_endpoints_config.public_endpoint or found.endpoint
    if not address:
        return "", ""
    return f"https://{address}", found.master_auth.cluster_ca_certificate


def _expiry(labels: Mapping[str, str], created: float | None) -> float | None:
    said = ours.expiry(labels)
    if said is not None or created is None or not ours.is_ours(labels):
        return said
    return created + 3600 * LONGEST_TTL_HOURS


def _seconds(text: str) -> float | None:
    if not text:
        return None
    return dt.datetime.fromisoformat(text).timestamp()
