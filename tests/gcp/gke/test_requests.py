"""What GKE is asked for: every field that the spec decides, and careful defaults."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest

from dask_hpsearch.config.gke_parts import ON_DEMAND_LABEL, WORKERS_LABEL
from dask_hpsearch.gcp.gke.labels import expiry
from tests.fakes.clock import START
from tests.gcp.specs import spec

if TYPE_CHECKING:
    from google.cloud import container_v1 as v1

    from tests.fakes.gke_service import GKEService

# What a careful engineer sets, by the fields of google.container.v1.
CLUSTER: dict[str, Any] = {
    "release_channel.channel": "REGULAR",
    "workload_identity_config.workload_pool": "some-project.svc.id.goog",
    "control_plane_endpoints_config.dns_endpoint_config.allow_external_traffic": True,
    "control_plane_endpoints_config.ip_endpoints_config.enabled": False,
    "network_config.default_enable_private_nodes": True,
    "network_config.datapath_provider": "ADVANCED_DATAPATH",
    "rbac_binding_config.enable_insecure_binding_system_authenticated": False,
    "rbac_binding_config.enable_insecure_binding_system_unauthenticated": False,
    "anonymous_authentication_config.mode": "LIMITED",
    "legacy_abac.enabled": False,
    "master_auth.client_certificate_config.issue_client_certificate": False,
    "shielded_nodes.enabled": True,
    "autoscaling.autoscaling_profile": "OPTIMIZE_UTILIZATION",
    "ip_allocation_policy.use_ip_aliases": True,
    "network": "default",
    "name": "searches",
    "locations": ["europe-west4-a"],
}
POOLS: dict[str, Any] = {
    "config.workload_metadata_config.mode": "GKE_METADATA",
    "config.shielded_instance_config.enable_secure_boot": True,
    "config.shielded_instance_config.enable_integrity_monitoring": True,
    "config.kubelet_config.insecure_kubelet_readonly_port_enabled": False,
    "config.service_account": "dask-hpsearch-nodes@some-project.iam.gserviceaccount.com",
    "config.oauth_scopes": ["https://www.googleapis.com/auth/cloud-platform"],
    "config.gcfs_config.enabled": True,
    "autoscaling.enabled": True,
    "autoscaling.location_policy": "ANY",
    "management.auto_upgrade": True,
    "management.auto_repair": True,
}
WORKERS: dict[str, Any] = {
    "name": "workers",
    "config.spot": True,
    "config.machine_type": "n2-standard-8",
    "config.max_run_duration": dt.timedelta(hours=24),
    "config.labels": {WORKERS_LABEL: "true"},
    "config.kubelet_config.shutdown_grace_period_seconds": 120,
    "autoscaling.total_min_node_count": 0,
    "autoscaling.total_max_node_count": 10,
    "initial_node_count": 0,
}
SYSTEM: dict[str, Any] = {
    "name": "system",
    "config.spot": False,
    "config.max_run_duration": dt.timedelta(0),
    "config.labels": {ON_DEMAND_LABEL: "true"},
    "config.kubelet_config.shutdown_grace_period_seconds": 0,
    "autoscaling.total_min_node_count": 1,
    "autoscaling.total_max_node_count": 3,
    "initial_node_count": 1,
    "locations": ["europe-west4-a"],
}
# Each field of the spec, changed: where it shows.
CHANGES: list[tuple[dict[str, Any], str, Any]] = [
    ({"release_channel": "RAPID"}, "release_channel.channel", "RAPID"),
    ({"name": "other"}, "name", "other"),
    ({"workload_identity": False}, "workload_identity_config.workload_pool", ""),
    ({"shielded_nodes": False}, "shielded_nodes.enabled", False),
    (
        {"autoscaling_profile": "BALANCED"},
        "autoscaling.autoscaling_profile",
        "BALANCED",
    ),
    ({"network": {"network": "mine"}}, "network", "mine"),
    ({"network": {"subnetwork": "mine"}}, "subnetwork", "mine"),
    (
        {"network": {"pods_range": "p"}},
        "ip_allocation_policy.cluster_secondary_range_name",
        "p",
    ),
    (
        {"network": {"services_range": "s"}},
        "ip_allocation_policy.services_secondary_range_name",
        "s",
    ),
    (
        {"network": {"private_nodes": False}},
        "network_config.default_enable_private_nodes",
        False,
    ),
    (
        {"network": {"datapath": "LEGACY_DATAPATH"}},
        "network_config.datapath_provider",
        "LEGACY_DATAPATH",
    ),
    (
        {"control_plane": {"anonymous": "ENABLED"}},
        "anonymous_authentication_config.mode",
        "ENABLED",
    ),
    ({"control_plane": {"legacy_abac": True}}, "legacy_abac.enabled", True),
    (
        {"control_plane": {"client_certificate": True}},
        "master_auth.client_certificate_config.issue_client_certificate",
        True,
    ),
    (
        {"control_plane": {"bind_authenticated": True}},
        "rbac_binding_config.enable_insecure_binding_system_authenticated",
        True,
    ),
    (
        {"control_plane": {"bind_unauthenticated": True}},
        "rbac_binding_config.enable_insecure_binding_system_unauthenticated",
        True,
    ),
]
POOL_CHANGES: list[tuple[dict[str, Any], str, Any]] = [
    ({"machine_type": "n2-standard-16"}, "config.machine_type", "n2-standard-16"),
    ({"spot": False}, "config.spot", False),
    ({"min_nodes": 2}, "autoscaling.total_min_node_count", 2),
    ({"max_nodes": 30}, "autoscaling.total_max_node_count", 30),
    ({"location_policy": "BALANCED"}, "autoscaling.location_policy", "BALANCED"),
    ({"disk_type": "pd-ssd"}, "config.disk_type", "pd-ssd"),
    ({"disk_gb": 200}, "config.disk_size_gb", 200),
    (
        {"secure_boot": False},
        "config.shielded_instance_config.enable_secure_boot",
        False,
    ),
    (
        {"integrity_monitoring": False},
        "config.shielded_instance_config.enable_integrity_monitoring",
        False,
    ),
    (
        {"kubelet_readonly_port": True},
        "config.kubelet_config.insecure_kubelet_readonly_port_enabled",
        True,
    ),
    (
        {"metadata": "GCE_METADATA"},
        "config.workload_metadata_config.mode",
        "GCE_METADATA",
    ),
    ({"image_streaming": False}, "config.gcfs_config.enabled", False),
    ({"grace": 30}, "config.kubelet_config.shutdown_grace_period_seconds", 30),
    ({"max_run_hours": 12}, "config.max_run_duration", dt.timedelta(hours=12)),
    ({"max_run_hours": None}, "config.max_run_duration", dt.timedelta(0)),
    (
        {"oauth_scopes": ["https://www.googleapis.com/auth/logging.write"]},
        "config.oauth_scopes",
        ["https://www.googleapis.com/auth/logging.write"],
    ),
]


def at(message: Any, path: str) -> Any:
    """Return a field's value; enumerations by name."""
    for name in path.split("."):
        message = getattr(message, name)
    if hasattr(message, "name"):
        return message.name
    if hasattr(message, "items"):
        return dict(message)
    return list(message) if hasattr(message, "append") else message


def asked(gke: GKEService, **changes: Any) -> v1.Cluster:
    """Create a spec's cluster; return what GKE was asked for."""
    gke.clusters().ensure(spec(**changes))
    (request,) = gke.traffic.named("CreateCluster")
    assert request.parent == "projects/some-project/locations/europe-west4-a"
    return request.cluster


def test_careful_defaults_are_asked_for(gke: GKEService) -> None:
    """Whoever says next to nothing gets a private, shielded, small, bounded cluster."""
    cluster = asked(gke)

    assert {path: at(cluster, path) for path in CLUSTER} == CLUSTER
    system, workers = cluster.node_pools
    for pool in (system, workers):
        assert {path: at(pool, path) for path in POOLS} == POOLS
    assert {path: at(system, path) for path in SYSTEM} == SYSTEM
    assert {path: at(workers, path) for path in WORKERS} == WORKERS


@pytest.mark.parametrize(
    ("changes", "path", "value"), CHANGES, ids=[one[1] for one in CHANGES]
)
def test_every_field_of_the_spec_is_asked_for(
    gke: GKEService, changes: dict[str, Any], path: str, value: Any
) -> None:
    """What the spec says of the cluster is what GKE is asked for."""
    if changes == {"workload_identity": False}:
        metadata = {"metadata": "GCE_METADATA"}
        changes = {**changes, "pools": {"system": metadata, "workers": metadata}}

    assert at(asked(gke, **changes), path) == value


@pytest.mark.parametrize(
    ("changes", "path", "value"),
    POOL_CHANGES,
    ids=[str(one[0]) for one in POOL_CHANGES],
)
def test_every_field_of_a_pool_is_asked_for(
    gke: GKEService, changes: dict[str, Any], path: str, value: Any
) -> None:
    """What the spec says of the workers' pool shows on that pool alone."""
    system, workers = asked(gke, pools={"workers": changes}).node_pools

    assert at(workers, path) == value
    assert at(system, path) == SYSTEM.get(path, POOLS.get(path, at(system, path)))


def test_an_address_of_its_own_is_open_to_those_who_are_named(gke: GKEService) -> None:
    """With an IP endpoint come the networks that may reach it."""
    plane = {
        "dns_endpoint": False,
        "ip_endpoint": True,
        "authorized_networks": ["203.0.113.0/24"],
    }

    found = asked(gke, control_plane=plane).control_plane_endpoints_config

    assert not found.dns_endpoint_config.allow_external_traffic
    assert found.ip_endpoints_config.enabled
    networks = found.ip_endpoints_config.authorized_networks_config
    assert networks.enabled
    assert [one.cidr_block for one in networks.cidr_blocks] == ["203.0.113.0/24"]


def test_spot_nodes_are_tainted_and_others_too(gke: GKEService) -> None:
    """Nothing but workers runs where workers run, so that these nodes can go to zero."""
    system, workers = asked(gke).node_pools

    assert not system.config.taints
    taints = [(one.key, one.value, one.effect.name) for one in workers.config.taints]
    assert taints == [
        (WORKERS_LABEL, "true", "NO_SCHEDULE"),
        ("cloud.google.com/gke-spot", "true", "NO_SCHEDULE"),
    ]


def test_labels_say_whose_it_is_and_until_when(gke: GKEService) -> None:
    """A bill, and whoever looks, can tell; GKE itself knows no time to live."""
    labels = dict(asked(gke, owner="ada", ttl_hours=2).resource_labels)

    assert labels["managed-by"] == "dask-hpsearch"
    assert labels["owner"] == "ada"
    assert labels["team"] == "research"
    assert expiry(labels) == START + 2 * 3600
    for pool in gke.traffic.named("CreateCluster")[0].cluster.node_pools:
        assert pool.config.resource_labels["managed-by"] == "dask-hpsearch"
        assert pool.config.resource_labels["team"] == "research"


def test_a_region_has_one_node_of_the_system(gke: GKEService) -> None:
    """GKE counts a pool's first nodes in each of its zones: three would come."""
    zones = ["europe-west4-a", "europe-west4-b", "europe-west4-c"]
    gke.clusters().ensure(spec(location="europe-west4", zones=zones))

    cluster = gke.traffic.named("CreateCluster")[0].cluster
    assert list(cluster.locations) == zones
    system, workers = cluster.node_pools
    assert list(system.locations) == zones[:1]
    assert list(workers.locations) == zones
    (there,) = gke.there().values()
    assert there.current_node_count == 1
