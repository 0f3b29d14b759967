"""The parts of a GKE cluster's spec: control plane, network, node pools."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from dask_hpsearch.config.cluster import Part
from dask_hpsearch.config.machines import disk_types

ON_DEMAND_LABEL = "dask-hpsearch/on-demand"  # of nodes: schedulers, drivers, operator
WORKERS_LABEL = "dask-hpsearch/workers"  # of nodes, and their taint: workers only
SPOT_TAINT = "cloud.google.com/gke-spot"  # GKE sets the label of this name
# Seconds for pods when a spot node is preempted: GKE's default, and the part of a longer
# period that is reserved for pods of the system.
_DEFAULT_GRACE = 15
SYSTEM_GRACE = 15

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
AN_ACCOUNT = (
    "a service account's address in the form NAME@PROJECT.iam.gserviceaccount.com"
)


class ControlPlane(Part):
    """Access to the Kubernetes API."""

    # A DNS name of Google's, behind IAM; the GKE cluster has no open address of its own.
    # control_plane_endpoints_config.dns_endpoint_config.allow_external_traffic
    dns_endpoint: bool = Field(default=True, description=A_SWITCH)
    # Its own address, open to authorized_networks only.
    # control_plane_endpoints_config.ip_endpoints_config.enabled
    ip_endpoint: bool = Field(default=False, description=A_SWITCH)
    # control_plane_endpoints_config.ip_endpoints_config.authorized_networks_config
    authorized_networks: tuple[NetworkRange, ...] = Field(
        (),
        strict=False,
        description="CIDR ranges of addresses, such as '203.0.113.0/24'",
    )
    # Whether roles may be bound to all users with a Google account, or to all users.
    # rbac_binding_config.enable_insecure_binding_system_{authenticated,unauthenticated}
    bind_authenticated: bool = Field(default=False, description=A_SWITCH)
    bind_unauthenticated: bool = Field(default=False, description=A_SWITCH)
    # Anonymous users may request the health of the control plane only.
    # anonymous_authentication_config.mode
    anonymous: Literal["LIMITED", "ENABLED"] = Field(
        "LIMITED", description="'LIMITED' or 'ENABLED'"
    )
    # Attribute-based access, older than roles: legacy_abac.enabled
    legacy_abac: bool = Field(default=False, description=A_SWITCH)
    # A certificate that cannot be revoked:
    # master_auth.client_certificate_config.issue_client_certificate
    client_certificate: bool = Field(default=False, description=A_SWITCH)

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if not (self.dns_endpoint or self.ip_endpoint):
            msg = "it would be unreachable: set dns_endpoint or ip_endpoint to true"
            raise ValueError(msg)
        if self.ip_endpoint and not self.authorized_networks:
            msg = (
                "ip_endpoint needs authorized_networks: without them it would be open to the "
                "internet"
            )
            raise ValueError(msg)
        return self


class Network(Part):
    """Addresses of nodes and pods."""

    # network, subnetwork. Nodes without external addresses reach Google's APIs if
    # the subnetwork has Private Google Access.
    network: Resource = Field("default", description="a network's name or path")
    subnetwork: Resource | None = Field(
        None, description="a subnetwork's name or path; omitted: that of the network"
    )
    # ip_allocation_policy.{cluster,services}_secondary_range_name
    pods_range: Resource | None = Field(
        None, description="a secondary range's name; omitted: GKE creates one"
    )
    services_range: Resource | None = Field(
        None, description="a secondary range's name; omitted: GKE creates one"
    )
    # Nodes have no external address.
    # network_config.default_enable_private_nodes
    private_nodes: bool = Field(default=True, description=A_SWITCH)
    # ADVANCED_DATAPATH enforces NetworkPolicies: network_config.datapath_provider
    datapath: Literal["ADVANCED_DATAPATH", "LEGACY_DATAPATH"] = Field(
        "ADVANCED_DATAPATH", description="'ADVANCED_DATAPATH' or 'LEGACY_DATAPATH'"
    )

    def network_parts(self, project: str) -> tuple[str, str]:
        """Return the project of the network, and its name.

        Parameters
        ----------
        project : str
            That of the GKE cluster.
        """
        return host_and_name(self.network, project)


def host_and_name(path: str, project: str) -> tuple[str, str]:
    """Return the project of a network or subnetwork, and its name.

    A Shared VPC belongs to another project than the GKE cluster: its host project, which is
    part of the path.

    Parameters
    ----------
    path : str
        Or the name alone.
    project : str
        That of the GKE cluster.
    """
    parts = path.split("/")
    host = parts[parts.index("projects") + 1] if "projects" in parts[:-1] else ""
    return host or project, parts[-1]


class Pool(Part):
    """A node pool."""

    machine_type: Annotated[str, _text(r"^[a-z][a-z0-9]*(-[a-z0-9]+)+$")] = Field(
        "e2-standard-4", description="a machine type, such as 'n2-standard-8'"
    )
    # config.spot: a fraction of the price, may be preempted at any time
    spot: bool = Field(default=False, description=A_SWITCH)
    # autoscaling.{total_min_node_count,total_max_node_count}, over all zones
    min_nodes: int = Field(1, ge=0, le=1000, description="an integer, 0 to 1000")
    max_nodes: int = Field(3, ge=1, le=1000, description="an integer, 1 to 1000")
    # autoscaling.location_policy: ANY takes nodes from zones that have some
    location_policy: Literal["ANY", "BALANCED"] = Field(
        "ANY", description="'ANY' or 'BALANCED'"
    )
    # config.{disk_type,disk_size_gb}: a node's disk, for images and workers' caches
    disk_type: Literal["pd-standard", "pd-balanced", "pd-ssd", "hyperdisk-balanced"] = (
        Field(
            "pd-balanced",
            description="'pd-standard', 'pd-balanced', 'pd-ssd' or 'hyperdisk-balanced'",
        )
    )
    disk_gb: int = Field(100, ge=20, le=65536, description="a size in GB, 20 to 65536")
    # config.shielded_instance_config: a boot with unsigned parts is prevented, or detected
    secure_boot: bool = Field(default=True, description=A_SWITCH)
    integrity_monitoring: bool = Field(default=True, description=A_SWITCH)
    # A port without authentication: kubelet_config.insecure_kubelet_readonly_port_enabled
    kubelet_readonly_port: bool = Field(default=False, description=A_SWITCH)
    # Pods have their own identity, not the node's: workload_metadata_config.mode
    metadata: Literal["GKE_METADATA", "GCE_METADATA"] = Field(
        "GKE_METADATA", description="'GKE_METADATA' or 'GCE_METADATA'"
    )
    # Containers start before their image is complete: config.gcfs_config.enabled
    image_streaming: bool = Field(default=True, description=A_SWITCH)
    # config.oauth_scopes: the roles of the node's account limit its permissions
    oauth_scopes: tuple[str, ...] = Field(
        ("https://www.googleapis.com/auth/cloud-platform",),
        strict=False,
        description="a list of URLs",
    )
    # Seconds for pods when a spot node is preempted; GKE 1.35 or later. Omitted: 15.
    # kubelet_config.shutdown_grace_period_seconds
    grace: Literal[30, 120] | None = Field(
        None, description="30 or 120 seconds, on spot nodes only; or omitted"
    )
    # Maximum age of a node, which is replaced then while pods need it: config.max_run_duration.
    # This does not limit the cost.
    max_run_hours: int | None = Field(
        24, ge=1, le=24 * 7, description="hours, 1 to 168; or null: no limit"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_nodes > self.max_nodes:
            msg = (
                f"min_nodes {self.min_nodes} is greater than max_nodes {self.max_nodes}"
            )
            raise ValueError(msg)
        if self.grace is not None and not self.spot:
            msg = f"grace {self.grace} is for spot nodes: omit it, or set spot: true"
            raise ValueError(msg)
        disks = disk_types(self.machine_type)
        if disks and self.disk_type not in disks:
            msg = (
                f"disk_type {self.disk_type} does not go together with machine_type "
                f"{self.machine_type}, which takes {' or '.join(disks)}"
            )
            raise ValueError(msg)
        return self


class SystemPool(Pool):
    """A few small, permanent nodes: schedulers, drivers, the operator, GKE's own pods."""

    spot: Literal[False] = Field(
        default=False, description="false: these pods must not be preempted"
    )
    min_nodes: int = Field(1, ge=1, le=1000, description="an integer, 1 to 1000")
    # The scheduler's node is not replaced while the GKE cluster lives.
    max_run_hours: int | None = Field(
        None, ge=1, le=24 * 7, description="hours, 1 to 168; or null: no limit"
    )


class WorkerPool(Pool):
    """Nodes for workers; there are none until workers need them."""

    machine_type: Annotated[str, _text(r"^[a-z][a-z0-9]*(-[a-z0-9]+)+$")] = Field(
        "n2-standard-8", description="a machine type, such as 'n2-standard-8'"
    )
    spot: bool = Field(default=True, description=A_SWITCH)
    min_nodes: int = Field(0, ge=0, le=1000, description="an integer, 0 to 1000")
    max_nodes: int = Field(10, ge=1, le=1000, description="an integer, 1 to 1000")
    grace: Literal[30, 120] | None = Field(
        None, description="30 or 120 seconds, on spot nodes only; or omitted"
    )

    @model_validator(mode="before")
    @classmethod
    def _grace_on_spot(cls, content: object) -> object:
        if isinstance(content, dict) and content.get("spot", True) is True:
            return {"grace": 120, **content}
        return content

    @property
    def pod_grace(self) -> int:
        """Seconds that pods have when a node of this pool is preempted."""
        if not self.grace:
            return _DEFAULT_GRACE
        return self.grace - SYSTEM_GRACE


class Pools(Part):
    """The two node pools."""

    system: SystemPool = Field(
        default=SystemPool(), description="the fields of a node pool"
    )
    workers: WorkerPool = Field(
        default=WorkerPool(grace=120),
        description="the fields of a node pool",
    )


class Endpoints(Part):
    """Endpoints of Google's APIs, for networks with Private Service Connect.

    Omitted: the public ones.
    """

    container: Endpoint | None = Field(
        None, description="an address in the form HOST or HOST:PORT"
    )
    cloudbuild: Endpoint | None = Field(
        None, description="an address in the form HOST or HOST:PORT"
    )
    artifactregistry: Endpoint | None = Field(
        None, description="an address in the form HOST or HOST:PORT"
    )
