"""Builds the messages that request GKE clusters and node pools from a spec."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.cloud import container_v1 as v1
from google.protobuf.duration_pb2 import Duration

from dask_hpsearch.config.gke_parts import (
    ON_DEMAND_LABEL,
    SPOT_TAINT,
    SYSTEM_GRACE,
    WORKERS_LABEL,
)
from dask_hpsearch.gcp.gke.labels import MANAGED_BY, MANAGER, is_managed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dask_hpsearch.config.gke import GKESpec
    from dask_hpsearch.config.gke_parts import ControlPlane, Pool

SYSTEM, WORKERS = "system", "workers"  # names of the node pools
_DESCRIPTION = "Dask clusters for hyperparameter searches, made by dask-hpsearch"


def cluster(spec: GKESpec, labels: Mapping[str, str]) -> v1.Cluster:
    """Build the GKE cluster of a spec, with both of its node pools."""
    plane = spec.control_plane
    request = v1.Cluster(
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
        control_plane_endpoints_config=_control_plane_endpoints(plane),
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
        request.workload_identity_config = v1.WorkloadIdentityConfig(
            workload_pool=spec.workload_pool
        )
    return request


def pool(spec: GKESpec, name: str) -> v1.NodePool:
    """Build one of the node pools."""
    pool_spec: Pool = spec.pools.system if name == SYSTEM else spec.pools.workers
    # Nodes of the system are in one zone: a node pool has its first ones in each zone.
    zones = spec.node_zones[:1] if name == SYSTEM else spec.node_zones
    return v1.NodePool(
        name=name,
        config=_node_config(spec, pool_spec, name),
        initial_node_count=pool_spec.min_nodes if name == SYSTEM else 0,
        locations=list(zones),
        autoscaling=autoscaling(pool_spec),
        management=v1.NodeManagement(auto_repair=True, auto_upgrade=True),
    )


def autoscaling(
    pool_spec: Pool, *, max_nodes: int | None = None
) -> v1.NodePoolAutoscaling:
    """Build the limits of a node pool's autoscaler."""
    return v1.NodePoolAutoscaling(
        enabled=True,
        total_min_node_count=pool_spec.min_nodes,
        total_max_node_count=pool_spec.max_nodes if max_nodes is None else max_nodes,
        location_policy=pool_spec.location_policy,
    )


def is_managed_pool(found: v1.NodePool) -> bool:
    """Whether dask_hpsearch manages a node pool.

    A node pool that others have added may carry the labels of the GKE cluster, but not
    those of the nodes.
    """
    names = {ON_DEMAND_LABEL, WORKERS_LABEL}
    return is_managed(found.config.resource_labels) and bool(
        names & set(found.config.labels)
    )


def differences(spec: GKESpec, found: v1.Cluster) -> list[str]:
    """Return the differences between a GKE cluster and a spec that cannot be changed.

    Labels and the number of worker nodes can be changed, and are left out.
    """
    desired = cluster(spec, {})
    pairs: list[tuple[str, Any, Any]] = [
        (name, _get(desired, path), _get(found, path))
        for name, path in _FIXED_FIELDS.items()
    ]
    for one in found.node_pools:
        if one.name in (SYSTEM, WORKERS):
            config = pool(spec, one.name).config
            pairs += [
                (
                    f"pools.{one.name}.{name}",
                    getattr(config, field),
                    _get(one.config, field),
                )
                for name, field in _FIXED_NODE_FIELDS.items()
            ]
    return [
        f"{name} is {_format(actual)}, but {_format(expected)} in the spec"
        for name, expected, actual in pairs
        if expected != actual
    ]


_FIXED_FIELDS = {
    "release_channel": "release_channel.channel",
    "network.datapath": "network_config.datapath_provider",
    "network.private_nodes": "network_config.default_enable_private_nodes",
    "workload_identity": "workload_identity_config.workload_pool",
    "shielded_nodes": "shielded_nodes.enabled",
    "control_plane.legacy_abac": "legacy_abac.enabled",
}
_FIXED_NODE_FIELDS = {
    "machine_type": "machine_type",
    "spot": "spot",
    "disk_type": "disk_type",
    "disk_gb": "disk_size_gb",
    "node_service_account": "service_account",
}


def _get(message: Any, path: str) -> Any:
    for name in path.split("."):
        message = getattr(message, name)
    return message


def _format(value: Any) -> str:
    return getattr(value, "name", None) or repr(value)


def _control_plane_endpoints(plane: ControlPlane) -> v1.ControlPlaneEndpointsConfig:
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


def _node_config(spec: GKESpec, pool_spec: Pool, name: str) -> v1.NodeConfig:
    kubelet = v1.NodeKubeletConfig(
        insecure_kubelet_readonly_port_enabled=pool_spec.kubelet_readonly_port
    )
    if pool_spec.grace is not None:
        kubelet.shutdown_grace_period_seconds = pool_spec.grace
        kubelet.shutdown_grace_period_critical_pods_seconds = SYSTEM_GRACE
    config = v1.NodeConfig(
        machine_type=pool_spec.machine_type,
        disk_size_gb=pool_spec.disk_gb,
        disk_type=pool_spec.disk_type,
        service_account=spec.nodes_run_as,
        oauth_scopes=list(pool_spec.oauth_scopes),
        spot=pool_spec.spot,
        labels={WORKERS_LABEL if name == WORKERS else ON_DEMAND_LABEL: "true"},
        taints=_taints(pool_spec) if name == WORKERS else [],
        resource_labels={**spec.labels, MANAGED_BY: MANAGER},
        shielded_instance_config=v1.ShieldedInstanceConfig(
            enable_secure_boot=pool_spec.secure_boot,
            enable_integrity_monitoring=pool_spec.integrity_monitoring,
        ),
        workload_metadata_config=v1.WorkloadMetadataConfig(mode=pool_spec.metadata),
        kubelet_config=kubelet,
        gcfs_config=v1.GcfsConfig(enabled=pool_spec.image_streaming),
    )
    if pool_spec.max_run_hours is not None:
        config.max_run_duration = Duration(seconds=3600 * pool_spec.max_run_hours)
    return config


def _taints(pool_spec: Pool) -> list[v1.NodeTaint]:
    names = [WORKERS_LABEL, SPOT_TAINT] if pool_spec.spot else [WORKERS_LABEL]
    effect = v1.NodeTaint.Effect.NO_SCHEDULE
    return [v1.NodeTaint(key=name, value="true", effect=effect) for name in names]
