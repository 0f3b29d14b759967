"""What GKE refuses of a cluster or a pool that is asked for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.fakes.request_rules import check as check_fields
from tests.fakes.serving import Refused

if TYPE_CHECKING:
    from google.cloud import container_v1 as v1

_NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")
_PARENT = re.compile(r"projects/[^/]+/locations/[a-z]+-[a-z]+\d(-[a-z])?")
_LABEL = re.compile(r"[a-z][-_a-z0-9]{0,62}")
_LABEL_VALUE = re.compile(r"[-_a-z0-9]{0,63}")
_SCOPE = "https://www.googleapis.com/auth/"
_GRACES = (0, 30, 120)
_LEAST_DISK_GB = 10


def check_cluster(parent: str, wanted: v1.Cluster) -> None:
    """Refuse what GKE refuses."""
    check_fields(wanted)
    _need(_PARENT.fullmatch(parent), f"bad parent {parent!r}")
    _need(_NAME.fullmatch(wanted.name), f"bad name {wanted.name!r}")
    _need(wanted.node_pools, "Cluster.initial_node_count must be greater than zero.")
    _need(not wanted.initial_node_count, "node pools and initial_node_count are given")
    _check_labels(dict(wanted.resource_labels))
    location = parent.rpartition("/")[2]
    for zone in wanted.locations:
        _need(zone.startswith(location[:-2]), f"zone {zone} is not in {location}")
    private = wanted.network_config.default_enable_private_nodes
    _need(
        not private or wanted.ip_allocation_policy.use_ip_aliases,
        "private nodes need use_ip_aliases",
    )
    plane = wanted.control_plane_endpoints_config
    ip = plane.ip_endpoints_config
    _need(
        ip.enabled or plane.dns_endpoint_config.allow_external_traffic,
        "no endpoint is enabled",
    )
    _need(
        ip.enabled or not ip.authorized_networks_config.enabled,
        "authorized networks need IP endpoints",
    )
    project = parent.split("/")[1]
    pool = wanted.workload_identity_config.workload_pool
    _need(pool in ("", f"{project}.svc.id.goog"), f"bad workload pool {pool!r}")
    names = [one.name for one in wanted.node_pools]
    _need(len(set(names)) == len(names), f"pools {names} are not unique")
    for one in wanted.node_pools:
        check_pool(location, one)
        _need(
            pool or one.config.workload_metadata_config.mode.name != "GKE_METADATA",
            "GKE_METADATA needs a workload pool",
        )


def check_pool(location: str, pool: v1.NodePool) -> None:
    """Refuse what GKE refuses."""
    check_fields(pool)
    config, scaling = pool.config, pool.autoscaling
    _need(_NAME.fullmatch(pool.name), f"bad name of a pool {pool.name!r}")
    _need(config.machine_type, "no machine type")
    _need(config.disk_size_gb >= _LEAST_DISK_GB, "the disk is too small")
    _need("@" in config.service_account, "no service account")
    _need(
        all(scope.startswith(_SCOPE) for scope in config.oauth_scopes),
        "scopes that do not exist",
    )
    _check_labels(dict(config.resource_labels))
    for zone in pool.locations:
        _need(zone.startswith(location[:-2]), f"zone {zone} is not in {location}")
    _need(
        all(taint.key and taint.effect for taint in config.taints),
        "a taint without key or effect",
    )
    if scaling.enabled:
        total = scaling.total_max_node_count
        _need(not (total and scaling.max_node_count), "total and per-zone numbers")
        _need(total >= max(scaling.total_min_node_count, 1), "max is less than min")
    kubelet = config.kubelet_config
    grace = kubelet.shutdown_grace_period_seconds
    _need(grace in _GRACES, f"shutdown_grace_period_seconds {grace}")
    _need(config.spot or not grace, "a grace period is for spot nodes")
    critical = kubelet.shutdown_grace_period_critical_pods_seconds
    _need(critical <= grace, "the critical pods' period is longer than the whole")


def _check_labels(labels: dict[str, str]) -> None:
    for name, value in labels.items():
        _need(_LABEL.fullmatch(name), f"bad label {name!r}")
        _need(_LABEL_VALUE.fullmatch(value), f"bad value of a label {value!r}")


def _need(holds: object, message: str) -> None:
    if not holds:
        raise Refused("INVALID_ARGUMENT", message)
