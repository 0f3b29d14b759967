"""The parts of a GKE cluster's spec: control plane, network, pools of nodes."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from dask_hpsearch.config.cluster import Part

ON_DEMAND_LABEL = "dask-hpsearch/on-demand"  # of nodes: schedulers, drivers, operator
WORKERS_LABEL = "dask-hpsearch/workers"  # of nodes, and their taint: workers alone
SPOT_TAINT = "cloud.google.com/gke-spot"  # GKE gives the label of this name by itself
# Seconds for pods when a spot node is taken back: GKE's default, and, of a longer
# period, what is kept back for pods of the system.
_DEFAULT_GRACE_S = 15
SYSTEM_GRACE_S = 15

_ZONE = r"^[a-z]+-[a-z]+[0-9]+-[a-z]$"
_ACCOUNT = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?@[a-z0-9.-]+\.[a-z]+$"
_RESOURCE = r"^[-a-z0-9/._]+$"
_ENDPOINT = r"^[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:[0-9]{1,5})?$"


def _network_range(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(str(error)) from error
    return text


def _text(pattern: str) -> StringConstraints:
    return StringConstraints(pattern=pattern)


Zone = Annotated[str, _text(_ZONE)]
Account = Annotated[str, _text(_ACCOUNT)]
Resource = Annotated[str, _text(_RESOURCE)]
Endpoint = Annotated[str, _text(_ENDPOINT)]
NetworkRange = Annotated[str, AfterValidator(_network_range)]
CloudLabel = Annotated[str, _text(r"^[a-z][-_a-z0-9]{0,62}$")]
CloudLabelValue = Annotated[str, _text(r"^[-_a-z0-9]{0,63}$")]

A_SWITCH = "true or false"
AN_ACCOUNT = "a service account's address, as NAME@PROJECT.iam.gserviceaccount.com"


class ControlPlane(Part):
    """How the Kubernetes API is reached, and who may do what there."""

    # Reached by a name of Google's, behind IAM; no address of the cluster's own is open.
    # control_plane_endpoints_config.dns_endpoint_config.allow_external_traffic
    dns_endpoint: bool = Field(default=True, description=A_SWITCH)
    # An address of its own, open to authorized_networks and nobody else.
    # control_plane_endpoints_config.ip_endpoints_config.enabled
    ip_endpoint: bool = Field(default=False, description=A_SWITCH)
    # control_plane_endpoints_config.ip_endpoints_config.authorized_networks_config
    authorized_networks: tuple[NetworkRange, ...] = Field(
        (), strict=False, description="ranges of addresses, as '203.0.113.0/24'"
    )
    # Whether roles may be bound to everyone who has any Google account, or none.
    # rbac_binding_config.enable_insecure_binding_system_{authenticated,unauthenticated}
    bind_authenticated: bool = Field(default=False, description=A_SWITCH)
    bind_unauthenticated: bool = Field(default=False, description=A_SWITCH)
    # Who is nobody may ask whether the control plane is healthy, and nothing else.
    # anonymous_authentication_config.mode
    anonymous: Literal["LIMITED", "ENABLED"] = Field(
        "LIMITED", description="'LIMITED' or 'ENABLED'"
    )
    # Rights by attributes, from before roles: legacy_abac.enabled
    legacy_abac: bool = Field(default=False, description=A_SWITCH)
    # A certificate that cannot be revoked:
    # master_auth.client_certificate_config.issue_client_certificate
    client_certificate: bool = Field(default=False, description=A_SWITCH)

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if not (self.dns_endpoint or self.ip_endpoint):
            msg = "nobody could reach it: set dns_endpoint or ip_endpoint to true"
            raise ValueError(msg)
        if self.ip_endpoint and not self.authorized_networks:
            msg = (
                "ip_endpoint needs authorized_networks, the addresses that it is for: "
                "without them it would be open to the world"
            )
            raise ValueError(msg)
        return self


class Network(Part):
    """Where nodes and pods have their addresses."""

    # network, subnetwork. Nodes without addresses of their own reach Google's APIs if
    # the subnetwork has Private Google Access.
    network: Resource = Field("default", description="a network's name or path")
    subnetwork: Resource | None = Field(
        None, description="a subnetwork's name or path; left out: the network's own"
    )
    # ip_allocation_policy.{cluster,services}_secondary_range_name
    pods_range: Resource | None = Field(
        None, description="a secondary range's name; left out: GKE makes one"
    )
    services_range: Resource | None = Field(
        None, description="a secondary range's name; left out: GKE makes one"
    )
    # Nodes have no address that the internet knows.
    # network_config.default_enable_private_nodes
    private_nodes: bool = Field(default=True, description=A_SWITCH)
    # ADVANCED_DATAPATH is what holds NetworkPolicies up: network_config.datapath_provider
    datapath: Literal["ADVANCED_DATAPATH", "LEGACY_DATAPATH"] = Field(
        "ADVANCED_DATAPATH", description="'ADVANCED_DATAPATH' or 'LEGACY_DATAPATH'"
    )


class Pool(Part):
    """Nodes of one kind."""

    machine_type: Annotated[str, _text(r"^[a-z][a-z0-9]*(-[a-z0-9]+)+$")] = Field(
        "e2-standard-4", description="a machine type, as 'n2-standard-8'"
    )
    # config.spot: a fraction of the price, may be taken back at any time
    spot: bool = Field(default=False, description=A_SWITCH)
    # autoscaling.{total_min_node_count,total_max_node_count}, over all zones
    min_nodes: int = Field(1, ge=0, le=1000, description="a whole number, 0 to 1000")
    max_nodes: int = Field(3, ge=1, le=1000, description="a whole number, 1 to 1000")
    # autoscaling.location_policy: ANY takes nodes where there are any
    location_policy: Literal["ANY", "BALANCED"] = Field(
        "ANY", description="'ANY' or 'BALANCED'"
    )
    # config.{disk_type,disk_size_gb}: a node's disk; images and workers' caches lie on it
    disk_type: Literal["pd-standard", "pd-balanced", "pd-ssd", "hyperdisk-balanced"] = (
        Field("pd-balanced", description="'pd-standard', 'pd-balanced', 'pd-ssd', …")
    )
    disk_gb: int = Field(100, ge=20, le=65536, description="GB, 20 to 65536")
    # config.shielded_instance_config: a boot with unsigned parts is stopped, or noticed
    secure_boot: bool = Field(default=True, description=A_SWITCH)
    integrity_monitoring: bool = Field(default=True, description=A_SWITCH)
    # A port without a password: kubelet_config.insecure_kubelet_readonly_port_enabled
    kubelet_readonly_port: bool = Field(default=False, description=A_SWITCH)
    # Pods see their own identity, not the node's: workload_metadata_config.mode
    metadata: Literal["GKE_METADATA", "GCE_METADATA"] = Field(
        "GKE_METADATA", description="'GKE_METADATA' or 'GCE_METADATA'"
    )
    # Containers start before all of their image has arrived: config.gcfs_config.enabled
    image_streaming: bool = Field(default=True, description=A_SWITCH)
    # config.oauth_scopes: what the node's account may do is for its roles to say
    oauth_scopes: tuple[str, ...] = Field(
        ("https://www.googleapis.com/auth/cloud-platform",),
        strict=False,
        description="a list of URLs",
    )
    # Seconds for pods when a spot node is taken back; GKE 1.35 or later. Left out: pods
    # have 15. kubelet_config.shutdown_grace_period_seconds
    grace: Literal[30, 120] | None = Field(
        None, description="30 or 120 seconds, on spot nodes alone; or left out"
    )
    # No node lives longer, whatever else fails: config.max_run_duration
    max_run_hours: int | None = Field(
        24, ge=1, le=24 * 7, description="hours, 1 to 168; or null: for ever"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_nodes > self.max_nodes:
            msg = f"min_nodes {self.min_nodes} is more than max_nodes {self.max_nodes}"
            raise ValueError(msg)
        if self.grace is not None and not self.spot:
            msg = (
                f"grace {self.grace} is for spot nodes: leave it out, or set spot: true"
            )
            raise ValueError(msg)
        return self


class SystemPool(Pool):
    """A few small nodes that stay: schedulers, drivers, the operator, GKE's own pods."""

    spot: Literal[False] = Field(
        default=False, description="false: what runs here must not be taken back"
    )
    min_nodes: int = Field(1, ge=1, le=1000, description="a whole number, 1 to 1000")


class WorkerPool(Pool):
    """Nodes of workers, of which there are none until workers wait for them."""

    machine_type: Annotated[str, _text(r"^[a-z][a-z0-9]*(-[a-z0-9]+)+$")] = Field(
        "n2-standard-8", description="a machine type, as 'n2-standard-8'"
    )
    spot: bool = Field(default=True, description=A_SWITCH)
    min_nodes: int = Field(0, ge=0, le=1000, description="a whole number, 0 to 1000")
    max_nodes: int = Field(10, ge=1, le=1000, description="a whole number, 1 to 1000")
    grace: Literal[30, 120] | None = Field(
        None, description="30 or 120 seconds, on spot nodes alone; or left out"
    )

    @model_validator(mode="before")
    @classmethod
    def _grace_on_spot(cls, content: object) -> object:
        if isinstance(content, dict) and content.get("spot", True) is True:
            return {"grace": 120, **content}
        return content

    @property
    def pod_grace_s(self) -> int:
        """Seconds that pods have when a node of this pool is taken back."""
        if not self.grace:
            return _DEFAULT_GRACE_S
        return self.grace - SYSTEM_GRACE_S


class Pools(Part):
    """The two kinds of nodes."""

    system: SystemPool = Field(
        default=SystemPool(), description="fields of a pool of nodes that stay"
    )
    workers: WorkerPool = Field(
        default=WorkerPool(grace=120),
        description="fields of the pool of workers' nodes",
    )


class Endpoints(Part):
    """Where Google's APIs are reached; for networks with addresses of their own for them.

    As with Private Service Connect; left out: where everybody reaches them.
    """

    container: Endpoint | None = Field(None, description="HOST or HOST:PORT")
    cloudbuild: Endpoint | None = Field(None, description="HOST or HOST:PORT")
    artifactregistry: Endpoint | None = Field(None, description="HOST or HOST:PORT")
