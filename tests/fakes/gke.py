"""GKE's ClusterManager: clusters and pools that come and go by operations, in fake time.

Knows what GKE refuses: names that are taken, fields that contradict each other, a cluster
that is busy, quotas; and what it leaves behind: a cluster in ERROR after a failed creation.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from google.cloud import container_v1 as v1
from google.rpc import code_pb2, status_pb2

from tests.fakes.gke_rules import check_cluster, check_pool
from tests.fakes.serving import Method, Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.fakes.clock import FakeClock

_STATUS = v1.Cluster.Status
_POOL = v1.NodePool.Status
TYPES = v1.Operation.Type
_DONE = v1.Operation.Status.DONE
_RUNNING = v1.Operation.Status.RUNNING
_CPUS = re.compile(r"-(\d+)$")
# Seconds, as GKE takes them about.
DURATIONS = {
    TYPES.CREATE_CLUSTER: 300.0,
    TYPES.DELETE_CLUSTER: 150.0,
    TYPES.CREATE_NODE_POOL: 60.0,
    TYPES.DELETE_NODE_POOL: 60.0,
    TYPES.SET_NODE_POOL_SIZE: 40.0,
    TYPES.UPDATE_CLUSTER: 5.0,
}


@dataclass(slots=True)
class _Work:
    operation: v1.Operation
    cluster: str
    ends: float
    effect: Callable[[], None]
    spoil: Callable[[status_pb2.Status], None]
    error: status_pb2.Status | None


@dataclass(slots=True)
class Place:
    """What new clusters have as their Kubernetes API."""

    dns: str = "gke-0123456789.europe-west4-a.gke.goog"
    address: str = "192.0.2.1"
    authority: str = "Y2VydGlmaWNhdGU="
    came: Callable[[v1.Cluster], None] = field(default=lambda _: None)
    gone: Callable[[v1.Cluster], None] = field(default=lambda _: None)


class FakeClusters:
    """The GKE clusters of all projects, by their paths.

    Parameters
    ----------
    time : FakeClock
    place : Place
    cpus : int
        The quota of every project and region.

    Attributes
    ----------
    clusters : dict
    fails : dict
        Types of operations of which the next one ends badly, and how.
    durations : dict
        Seconds that operations take.
    broken_pools : dict
        Status and message that pools of new clusters end with, by their names.
    """

    name = "google.container.v1.ClusterManager"

    def __init__(
        self, time: FakeClock, place: Place | None = None, *, cpus: int = 500
    ) -> None:
        self.clusters: dict[str, v1.Cluster] = {}
        self.fails: dict[Any, Refused] = {}
        self.durations = dict(DURATIONS)
        self.broken_pools: dict[str, tuple[str, str]] = {}
        self.place = place or Place()
        self._time, self._cpus = time, cpus
        self._works: dict[str, _Work] = {}
        self._count = 0

    def methods(self) -> Mapping[str, Method]:
        """Methods that clients of ours call."""
        operation = v1.Operation
        return {
            "ListClusters": Method(
                v1.ListClustersRequest, v1.ListClustersResponse, self._list
            ),
            "GetCluster": Method(v1.GetClusterRequest, v1.Cluster, self._get),
            "CreateCluster": Method(v1.CreateClusterRequest, operation, self._create),
            "DeleteCluster": Method(v1.DeleteClusterRequest, operation, self._delete),
            "SetLabels": Method(v1.SetLabelsRequest, operation, self._set_labels),
            "CreateNodePool": Method(
                v1.CreateNodePoolRequest, operation, self._create_pool
            ),
            "DeleteNodePool": Method(
                v1.DeleteNodePoolRequest, operation, self._delete_pool
            ),
            "SetNodePoolAutoscaling": Method(
                v1.SetNodePoolAutoscalingRequest, operation, self._set_autoscaling
            ),
            "SetNodePoolSize": Method(
                v1.SetNodePoolSizeRequest, operation, self._set_size
            ),
            "GetOperation": Method(
                v1.GetOperationRequest, operation, self._get_operation
            ),
        }

    def add(self, path: str, **fields: Any) -> v1.Cluster:
        """Add a cluster that somebody else has made."""
        _, _, _, location, _, name = path.split("/")
        fields.setdefault("status", _STATUS.RUNNING)
        made = v1.Cluster(name=name, location=location, **fields)
        self._born(made)
        self.clusters[path] = made
        return made

    def settle(self) -> None:
        """Let what was to have ended by now end."""
        for work in list(self._works.values()):
            if work.operation.status != _DONE and work.ends <= self._time.now():
                self._end(work)

    def named(self, path: str) -> v1.Cluster | None:
        """Return a cluster as it is now."""
        self.settle()
        return self.clusters.get(path)

    def _list(self, request: Any) -> v1.ListClustersResponse:
        self.settle()
        parent = request.parent.removesuffix("/-")
        found = [
            v1.Cluster(one)
            for path, one in sorted(self.clusters.items())
            if path.startswith(f"{parent}/")
        ]
        return v1.ListClustersResponse(clusters=found)

    def _get(self, request: Any) -> v1.Cluster:
        return v1.Cluster(self._found(request.name))

    def _create(self, request: Any) -> v1.Operation:
        self.settle()
        path = f"{request.parent}/clusters/{request.cluster.name}"
        check_cluster(request.parent, request.cluster)
        if path in self.clusters:
            raise Refused("ALREADY_EXISTS", f"Already exists: {path}.")
        made = v1.Cluster(request.cluster)
        made.location = request.parent.rpartition("/")[2]
        made.status = _STATUS.PROVISIONING
        self._born(made)
        self._check_quota(made)
        for pool in made.node_pools:
            pool.status = _POOL.PROVISIONING
        self.clusters[path] = made

        def effect() -> None:
            made.status = _STATUS.RUNNING
            made.current_master_version = "1.35.1-gke.100"
            self._reachable(made)
            for pool in made.node_pools:
                status, said = self.broken_pools.get(pool.name, ("RUNNING", ""))
                pool.status, pool.status_message = _POOL[status], said
            self._count_nodes(made)
            self.place.came(made)

        return self._begin(path, TYPES.CREATE_CLUSTER, effect, _broken(made))

    def _delete(self, request: Any) -> v1.Operation:
        found = self._free(request.name)
        found.status = _STATUS.STOPPING

        def effect() -> None:
            del self.clusters[request.name]
            self.place.gone(found)

        return self._begin(request.name, TYPES.DELETE_CLUSTER, effect, _broken(found))

    def _set_labels(self, request: Any) -> v1.Operation:
        found = self._free(request.name)
        if request.label_fingerprint != found.label_fingerprint:
            message = "Labels could not be set due to a fingerprint mismatch."
            raise Refused("FAILED_PRECONDITION", message)
        found.resource_labels = dict(request.resource_labels)
        found.label_fingerprint = self._fingerprint()
        return self._begin(request.name, TYPES.UPDATE_CLUSTER)

    def _create_pool(self, request: Any) -> v1.Operation:
        found = self._free(request.parent)
        check_pool(request.parent.split("/")[3], request.node_pool)
        if any(pool.name == request.node_pool.name for pool in found.node_pools):
            message = f"Already exists: {request.parent}/nodePools/…."
            raise Refused("ALREADY_EXISTS", message)
        pool = v1.NodePool(request.node_pool)
        pool.status = _POOL.PROVISIONING
        found.node_pools.append(pool)

        def effect() -> None:
            found.node_pools[-1].status = _POOL.RUNNING
            self._count_nodes(found)

        return self._begin(request.parent, TYPES.CREATE_NODE_POOL, effect)

    def _delete_pool(self, request: Any) -> v1.Operation:
        path, name = request.name.split("/nodePools/")
        found = self._free(path)
        self._pool(found, name)

        def effect() -> None:
            found.node_pools = [one for one in found.node_pools if one.name != name]
            self._count_nodes(found)

        return self._begin(path, TYPES.DELETE_NODE_POOL, effect)

    def _set_autoscaling(self, request: Any) -> v1.Operation:
        path, name = request.name.split("/nodePools/")
        pool = self._pool(self._free(path), name)
        scaling = request.autoscaling
        if scaling.total_max_node_count < scaling.total_min_node_count:
            raise Refused("INVALID_ARGUMENT", "max is less than min")
        pool.autoscaling = scaling
        return self._begin(path, TYPES.UPDATE_CLUSTER)

    def _set_size(self, request: Any) -> v1.Operation:
        path, name = request.name.split("/nodePools/")
        found = self._free(path)
        pool = self._pool(found, name)
        pool.initial_node_count = request.node_count

        def effect() -> None:
            self._count_nodes(found)

        return self._begin(path, TYPES.SET_NODE_POOL_SIZE, effect)

    def _get_operation(self, request: Any) -> v1.Operation:
        self.settle()
        work = self._works.get(request.name.rpartition("/")[2])
        if work is None:
            raise Refused("NOT_FOUND", f"Not found: {request.name}.")
        if work.operation.status != _DONE:
            work.operation.status = _RUNNING
        return v1.Operation(work.operation)

    def _begin(
        self,
        path: str,
        kind: Any,
        effect: Callable[[], None] = lambda: None,
        spoil: Callable[[status_pb2.Status], None] = lambda _: None,
    ) -> v1.Operation:
        self._count += 1
        operation = v1.Operation(
            name=f"operation-{self._count}",
            operation_type=kind,
            status=v1.Operation.Status.PENDING,
            target_link=f"https://container.googleapis.com/v1/{path}",
            start_time=self._text(),
        )
        refusal = self.fails.pop(kind, None)
        error = None if refusal is None else refusal.status
        ends = self._time.now() + self.durations.get(kind, 5.0)
        work = _Work(operation, path, ends, effect, spoil, error)
        self._works[operation.name] = work
        return v1.Operation(operation)

    def _end(self, work: _Work) -> None:
        work.operation.status = _DONE
        work.operation.end_time = self._text()
        if work.error is None:
            work.effect()
        else:
            work.operation.error = work.error
            work.spoil(work.error)

    def _found(self, path: str) -> v1.Cluster:
        self.settle()
        found = self.clusters.get(path)
        if found is None:
            raise Refused("NOT_FOUND", f"Not found: {path}.")
        return found

    def _free(self, path: str) -> v1.Cluster:
        """Return a cluster on which no operation is under way."""
        found = self._found(path)
        for work in self._works.values():
            if work.cluster == path and work.operation.status != _DONE:
                name = work.operation.name
                message = f"Cluster is running incompatible operation {name}."
                raise Refused("FAILED_PRECONDITION", message)
        return found

    def _pool(self, found: v1.Cluster, name: str) -> v1.NodePool:
        for pool in found.node_pools:
            if pool.name == name:
                return pool
        raise Refused("NOT_FOUND", f"Not found: node pool {name}.")

    def _check_quota(self, made: v1.Cluster) -> None:
        used = sum(_cpus(one) for one in self.clusters.values())
        if used + _cpus(made) > self._cpus:
            message = (
                'Insufficient regional quota to satisfy request: resource "CPUS": '
                f"request requires '{_cpus(made)}.0' and is short."
            )
            raise Refused("PERMISSION_DENIED", message)  # as GKE does, with HTTP's 403

    def _born(self, made: v1.Cluster) -> None:
        made.create_time = self._text()
        made.label_fingerprint = self._fingerprint()

    def _reachable(self, made: v1.Cluster) -> None:
        plane = made.control_plane_endpoints_config
        plane.dns_endpoint_config.endpoint = self.place.dns
        if plane.ip_endpoints_config.enabled:
            plane.ip_endpoints_config.public_endpoint = self.place.address
            made.endpoint = self.place.address
            made.master_auth.cluster_ca_certificate = self.place.authority

    @staticmethod
    def _count_nodes(found: v1.Cluster) -> None:
        found.current_node_count = sum(
            pool.initial_node_count * max(len(pool.locations), 1)
            for pool in found.node_pools
        )

    def _fingerprint(self) -> str:
        self._count += 1
        return f"{self._count:08x}"

    def _text(self) -> str:
        now = dt.datetime.fromtimestamp(self._time.now(), dt.UTC)
        return now.isoformat().replace("+00:00", "Z")


def _broken(made: v1.Cluster) -> Callable[[status_pb2.Status], None]:
    """Return what a failed operation does to its cluster."""

    def spoil(error: status_pb2.Status) -> None:
        made.status = _STATUS.ERROR
        code = v1.StatusCondition.Code.UNKNOWN
        if error.code == code_pb2.RESOURCE_EXHAUSTED:
            code = v1.StatusCondition.Code.GCE_QUOTA_EXCEEDED
        made.conditions = [v1.StatusCondition(code=code, message=error.message)]

    return spoil


def _cpus(one: v1.Cluster) -> int:
    total = 0
    for pool in one.node_pools:
        match = _CPUS.search(pool.config.machine_type)
        zones = max(len(pool.locations), 1)
        total += pool.initial_node_count * zones * int(match[1] if match else 1)
    return total
