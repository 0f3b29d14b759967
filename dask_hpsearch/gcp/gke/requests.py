"""A spec as the messages with which GKE is asked for clusters and pools: pure values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.cloud import container_v1 as v1
from google.protobuf.duration_pb2 import Duration

from dask_hpsearch.config.gke_parts import (
    ON_DEMAND_LABEL,
    SPOT_TAINT,
    SYSTEM_GRACE_S,
    WORKERS_LABEL,
)
from dask_hpsearch.gcp.gke.labels import MANAGED_BY, OURS, is_ours

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dask_hpsearch.config.gke import GKESpec
    from dask_hpsearch.config.gke_parts import ControlPlane, Pool

SYSTEM, WORKERS = "system", "workers"  # names of the pools
_DESCRIPTION = "Dask clusters for hyperparameter searches, made by dask-hpsearch"


def cluster(spec: GKESpec, labels: Mapping[str, str]) -> v1.Cluster:
    """Describe the GKE cluster of a spec, both of its pools included."""
    plane = spec.control_plane
    wanted = v1.Cluster(
        name=spec.name,
        description=_DESCRIPTION,
        resource_labels=dict(labels),
        network=spec.network.network,
        subnetwork=spec.network.subnetwork or "",
        locations=list(spec.node_zones),
        node_pools=[pool(spec, SYSTEM), pool(spec, WORKERS)],
        release_channel=v1.ReleaseChannel(channel=spec.release_channel),
        legacy_abac=v1.LegacyAbac(enabled=plane.legacy_abac),
        master_auth=v1.MasterAuth(
            client_certificate_config=v1.ClientCertificateConfig(
                issue_client_certificate=plane.client_certificate
            )
        ),
        shielded_nodes=v1.ShieldedNodes(enabled=spec.shielded_nodes),
        autoscaling=v1.ClusterAutoscaling(autoscaling_profile=spec.autoscaling_profile),
        control_plane_endpoints_config=_endpoints(plane),
        rbac_binding_config=v1.RBACBindingConfig(
            enable_insecure_binding_system_authenticated=plane.bind_authenticated,
            enable_insecure_binding_system_unauthenticated=plane.bind_unauthenticated,
        ),
        anonymous_authentication_config=v1.AnonymousAuthenticationConfig(
            mode=plane.anonymous
        ),
        network_config=v1.NetworkConfig(
            datapath_provider=spec.network.datapath,
            default_enable_private_nodes=spec.network.private_nodes,
        ),
        ip_allocation_policy=v1.IPAllocationPolicy(
            use_ip_aliases=True,  # private nodes need it
            cluster_secondary_range_name=spec.network.pods_range or "",
            services_secondary_range_name=spec.network.services_range or "",
        ),
    )
    if spec.workload_identity:
        wanted.workload_identity_config = v1.WorkloadIdentityConfig(
            workload_pool=spec.workload_pool
        )
    return wanted


def pool(spec: GKESpec, name: str) -> v1.NodePool:
    """Describe one of the pools of nodes."""
    part: Pool = spec.pools.system if name == SYSTEM else spec.pools.workers
    # The system's nodes are in one zone: the first ones come in each zone of a pool.
    zones = spec.node_zones[:1] if name == SYSTEM else spec.node_zones
    return v1.NodePool(
        name=name,
        config=_nodes(spec, part, name),
        initial_node_count=part.min_nodes if name == SYSTEM else 0,
        locations=list(zones),
        autoscaling=autoscaling(part),
        management=v1.NodeManagement(auto_repair=True, auto_upgrade=True),
    )


def autoscaling(part: Pool, *, max_nodes: int | None = None) -> v1.NodePoolAutoscaling:
    """Describe between which numbers a pool's nodes come and go."""
    return v1.NodePoolAutoscaling(
        enabled=True,
        total_min_node_count=part.min_nodes,
        total_max_node_count=part.max_nodes if max_nodes is None else max_nodes,
        location_policy=part.location_policy,
    )


def is_our_pool(found: v1.NodePool) -> bool:
    """Whether we have made a pool.

    Labels of a cluster may show on pools that others have added; that of its nodes is
    on ours alone.
    """
    names = {ON_DEMAND_LABEL, WORKERS_LABEL}
    return is_ours(found.config.resource_labels) and bool(
        names & set(found.config.labels)
    )


def differences(spec: GKESpec, found: v1.Cluster) -> list[str]:
    """Tell in which ways a GKE cluster is another than a spec says, and stays so.

    What can be changed on the way (labels, the number of workers' nodes) is left out.
    """
    wanted = cluster(spec, {})
    pairs: list[tuple[str, Any, Any]] = [
        (name, _at(wanted, path), _at(found, path)) for name, path in _FIXED.items()
    ]
    for one in found.node_pools:
        if one.name in (SYSTEM, WORKERS):
            mine = pool(spec, one.name).config
            pairs += [
                (
                    f"pools.{one.name}.{name}",
                    getattr(mine, field),
                    _at(one.config, field),
                )
                for name, field in _FIXED_OF_NODES.items()
            ]
    return [
        f"{name} is {_shown(there)}, the spec says {_shown(mine)}"
        for name, mine, there in pairs
        if mine != there
    ]


_FIXED = {
    "release_channel": "release_channel.channel",
    "network.datapath": "network_config.datapath_provider",
    "network.private_nodes": "network_config.default_enable_private_nodes",
    "workload_identity": "workload_identity_config.workload_pool",
    "shielded_nodes": "shielded_nodes.enabled",
    "control_plane.legacy_abac": "legacy_abac.enabled",
}
_FIXED_OF_NODES = {
    "machine_type": "machine_type",
    "spot": "spot",
    "disk_type": "disk_type",
    "disk_gb": "disk_size_gb",
    "node_service_account": "service_account",
}


def _at(message: Any, path: str) -> Any:
    for name in path.split("."):
        message = getattr(message, name)
    return message


def _shown(value: Any) -> str:
    return getattr(value, "name", None) or repr(value)


def _endpoints(plane: ControlPlane) -> v1.ControlPlaneEndpointsConfig:
    config = v1.ControlPlaneEndpointsConfig
    ip = config.IPEndpointsConfig(enabled=plane.ip_endpoint)
    if plane.ip_endpoint:
        networks = v1.MasterAuthorizedNetworksConfig
        ip.enable_public_endpoint = True
        ip.authorized_networks_config = networks(
            enabled=True,
            cidr_blocks=[
                networks.CidrBlock(cidr_block=one) for one in plane.authorized_networks
            ],
        )
    dns = config.DNSEndpointConfig(allow_external_traffic=plane.dns_endpoint)
    return config(dns_endpoint_config=dns, ip_endpoints_config=ip)


def _nodes(spec: GKESpec, part: Pool, name: str) -> v1.NodeConfig:
    kubelet = v1.NodeKubeletConfig(
        insecure_kubelet_readonly_port_enabled=part.kubelet_readonly_port
    )
    if part.grace is not None:
        kubelet.shutdown_grace_period_seconds = part.grace
        kubelet.shutdown_grace_period_critical_pods_seconds = SYSTEM_GRACE_S
    config = v1.NodeConfig(
        machine_type=part.machine_type,
        disk_size_gb=part.disk_gb,
        disk_type=part.disk_type,
        service_account=spec.nodes_run_as,
        oauth_scopes=list(part.oauth_scopes),
        spot=part.spot,
        labels={WORKERS_LABEL if name == WORKERS else ON_DEMAND_LABEL: "true"},
        taints=_taints(part) if name == WORKERS else [],
        resource_labels={**spec.labels, MANAGED_BY: OURS},
        shielded_instance_config=v1.ShieldedInstanceConfig(
            enable_secure_boot=part.secure_boot,
            enable_integrity_monitoring=part.integrity_monitoring,
        ),
        workload_metadata_config=v1.WorkloadMetadataConfig(mode=part.metadata),
        kubelet_config=kubelet,
        gcfs_config=v1.GcfsConfig(enabled=part.image_streaming),
    )
    if part.max_run_hours is not None:
        config.max_run_duration = Duration(seconds=3600 * part.max_run_hours)
    return config


def _taints(part: Pool) -> list[v1.NodeTaint]:
    names = [WORKERS_LABEL, SPOT_TAINT] if part.spot else [WORKERS_LABEL]
    effect = v1.NodeTaint.Effect.NO_SCHEDULE
    return [v1.NodeTaint(key=name, value="true", effect=effect) for name in names]
