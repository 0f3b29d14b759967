"""The fake of GKE behaves as GKE does, as far as clients of ours see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from google.api_core import exceptions
from google.cloud import container_v1 as v1

from dask_hpsearch.gcp.gke import requests
from tests.fakes.gke_service import GKEService, gke_service
from tests.fakes.serving import Refused
from tests.gcp.specs import spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PARENT = "projects/some-project/locations/europe-west4-a"
PATH = f"{PARENT}/clusters/searches"
OPERATION = v1.Operation.Status


@pytest.fixture
def gke() -> Iterator[GKEService]:
    """GKE of a project that has nothing yet."""
    with gke_service(cpus=64) as service:
        yield service


def create(gke: GKEService, change: Callable[[Any], None] = lambda _: None) -> Any:
    """Ask for a cluster, with something changed."""
    wanted = requests.cluster(spec(), {"team": "research"})
    change(wanted)
    request = v1.CreateClusterRequest(parent=PARENT, cluster=wanted)
    return gke.client.create_cluster(request)


def get(gke: GKEService) -> v1.Cluster:
    """Look at it."""
    return gke.client.get_cluster(v1.GetClusterRequest(name=PATH))


def look(gke: GKEService, operation: v1.Operation) -> v1.Operation:
    """Look at an operation."""
    name = f"{PARENT}/operations/{operation.name}"
    return gke.client.get_operation(v1.GetOperationRequest(name=name))


def test_a_cluster_comes_by_an_operation(gke: GKEService) -> None:
    """It is there at once, can be used when its operation is done, and is reached then."""
    operation = create(gke)

    assert operation.status == OPERATION.PENDING
    assert get(gke).status.name == "PROVISIONING"
    assert not get(gke).control_plane_endpoints_config.dns_endpoint_config.endpoint
    assert look(gke, operation).status == OPERATION.RUNNING
    gke.time.sleep(300)
    assert look(gke, operation).status == OPERATION.DONE
    found = get(gke)
    assert found.status.name == "RUNNING"
    assert found.control_plane_endpoints_config.dns_endpoint_config.endpoint
    assert [pool.status.name for pool in found.node_pools] == ["RUNNING", "RUNNING"]
    assert found.current_node_count == 1


def test_a_busy_cluster_is_not_changed(gke: GKEService) -> None:
    """One operation at a time, as GKE says with the name of the other."""
    operation = create(gke)

    with pytest.raises(exceptions.FailedPrecondition, match=operation.name):
        gke.client.delete_cluster(v1.DeleteClusterRequest(name=PATH))


def test_a_name_is_had_once(gke: GKEService) -> None:
    """Also while it is being created, and while it goes."""
    create(gke)
    with pytest.raises(exceptions.AlreadyExists):
        create(gke)
    gke.time.sleep(300)
    gke.client.delete_cluster(v1.DeleteClusterRequest(name=PATH))
    assert get(gke).status.name == "STOPPING"
    with pytest.raises(exceptions.AlreadyExists):
        create(gke)
    gke.time.sleep(300)
    with pytest.raises(exceptions.NotFound):
        get(gke)
    create(gke)


def test_a_creation_that_fails_leaves_a_broken_cluster(gke: GKEService) -> None:
    """With the reason on the operation and on the cluster."""
    gke.fake.fails[v1.Operation.Type.CREATE_CLUSTER] = Refused(
        "RESOURCE_EXHAUSTED", "Quota 'CPUS' exceeded."
    )
    operation = create(gke)
    gke.time.sleep(300)

    done = look(gke, operation)
    assert (done.status, done.error.message) == (
        OPERATION.DONE,
        "Quota 'CPUS' exceeded.",
    )
    found = get(gke)
    assert found.status.name == "ERROR"
    assert found.conditions[0].code.name == "GCE_QUOTA_EXCEEDED"


def test_a_quota_is_held(gke: GKEService) -> None:
    """As GKE says it: forbidden, with the resource."""
    with pytest.raises(exceptions.Forbidden, match='resource "CPUS"'):
        create(gke, lambda one: setattr(one.node_pools[0], "initial_node_count", 20))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda one: setattr(one, "name", "Searches"), "bad name"),
        (lambda one: one.resource_labels.update({"a": "B:c"}), "value of a label"),
        (lambda one: setattr(one, "locations", ["us-east1-b"]), "us-east1-b"),
        (
            lambda one: setattr(one.ip_allocation_policy, "use_ip_aliases", False),
            "use_ip_aliases",
        ),
        (
            lambda one: setattr(one.node_pools[1].autoscaling, "max_node_count", 3),
            "per-zone",
        ),
        (
            lambda one: setattr(one.node_pools[1].config, "spot", False),
            "for spot nodes",
        ),
        (
            lambda one: setattr(one.workload_identity_config, "workload_pool", ""),
            "GKE_METADATA",
        ),
        (lambda one: setattr(one.node_pools[0], "name", "workers"), "not unique"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_contradicts_itself_is_refused(
    gke: GKEService, change: Callable[[Any], None], says: str
) -> None:
    """Fields that GKE checks are checked here too."""
    with pytest.raises(exceptions.InvalidArgument, match=says):
        create(gke, change)

    assert gke.fake.clusters == {}


def test_labels_change_with_their_fingerprint(gke: GKEService) -> None:
    """Who has not seen the last change cannot make the next."""
    create(gke)
    gke.time.sleep(300)
    seen = get(gke).label_fingerprint
    request = v1.SetLabelsRequest(
        name=PATH, resource_labels={"a": "b"}, label_fingerprint=seen
    )
    gke.client.set_labels(request)
    gke.time.sleep(10)

    assert dict(get(gke).resource_labels) == {"a": "b"}
    with pytest.raises(exceptions.FailedPrecondition, match="fingerprint"):
        gke.client.set_labels(request)


def test_clusters_are_listed_by_project(gke: GKEService) -> None:
    """In all locations at once."""
    create(gke)
    gke.fake.add("projects/another-project/locations/us-east1-b/clusters/x")

    request = v1.ListClustersRequest(parent="projects/some-project/locations/-")
    found = gke.client.list_clusters(request).clusters

    assert [one.name for one in found] == ["searches"]


def test_pools_come_and_go(gke: GKEService) -> None:
    """With their nodes, which the cluster counts."""
    create(gke)
    gke.time.sleep(300)
    name = f"{PATH}/nodePools/workers"
    gke.client.set_node_pool_size(v1.SetNodePoolSizeRequest(name=name, node_count=4))
    gke.time.sleep(60)
    assert get(gke).current_node_count == 5
    gke.client.delete_node_pool(v1.DeleteNodePoolRequest(name=name))
    gke.time.sleep(60)

    assert [pool.name for pool in get(gke).node_pools] == ["system"]
    assert get(gke).current_node_count == 1
    with pytest.raises(exceptions.NotFound):
        gke.client.delete_node_pool(v1.DeleteNodePoolRequest(name=name))
