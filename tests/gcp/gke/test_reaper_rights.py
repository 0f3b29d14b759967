"""What the reaper may do once a user has run the commands that are printed for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from dask_hpsearch.exceptions import CloudRightsError
from dask_hpsearch.gcp.gke import labels as ours
from dask_hpsearch.gcp.gke import reaper as reaping
from dask_hpsearch.gcp.gke import reaper_pod, requests
from dask_hpsearch.gcp.gke.reaper import reap
from tests.fakes import gcloud
from tests.fakes.gke_service import GKEService, gke_service
from tests.fakes.iam import FakePolicy, GuardedTraffic
from tests.fakes.project import NUMBER, FakeProject
from tests.gcp.specs import spec

if TYPE_CHECKING:
    from collections.abc import Iterator

ZONAL = {"location": "europe-west4-a"}
REGIONAL = {"location": "europe-west4", "zones": ["europe-west4-b"]}


@pytest.fixture(params=[ZONAL, REGIONAL], ids=["zonal", "regional"])
def place(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Where the clusters are."""
    found: dict[str, Any] = request.param
    return found


@pytest.fixture
def gke(place: dict[str, Any]) -> Iterator[GKEService]:
    """GKE as the reaper of a cluster sees it; two clusters are there, and have expired."""
    project = FakeProject(policy=FakePolicy())
    project.own_roles.clear()
    both = [spec(name=name, **place) for name in ("searches", "theirs")]
    for one in both:
        for command in reaper_pod.role_commands(one, NUMBER):
            gcloud.run(project, command)
    member = reaper_pod.bindings(both[0], NUMBER)[0].member
    traffic = GuardedTraffic(project.policy, project.own_roles, member)
    with gke_service(traffic=traffic) as service:
        for one in both:
            expired = ours.for_cluster(
                one, expires_at=service.time.now() - 60, creation="somebody"
            )
            pools = list(requests.cluster(one, expired).node_pools)
            service.fake.add(one.path, resource_labels=expired, node_pools=pools)
        yield service


def test_its_own_cluster_can_be_deleted(gke: GKEService, place: dict[str, Any]) -> None:
    """Workers' nodes, the cluster, and the operations that are waited for."""
    clusters = gke.clusters(timeouts=reaping.TIMEOUTS)

    assert reap(clusters, spec(**place).path, gke.time.clock)

    assert [path.rpartition("/")[2] for path in gke.fake.clusters] == ["theirs"]
    assert "SetNodePoolSize" in gke.methods()
    assert gke.traffic.named("GetOperation")


def test_another_cluster_of_the_project_cannot_be_touched(
    gke: GKEService, place: dict[str, Any]
) -> None:
    """Neither looked at, nor changed, nor deleted, although its reaper has rights too."""
    theirs = spec(name="theirs", **place).path
    clusters = gke.clusters(timeouts=reaping.TIMEOUTS)
    api = clusters._api

    for request in (
        lambda: reap(clusters, theirs, gke.time.clock),
        lambda: api.delete_cluster(theirs),
        lambda: api.set_node_pool_size(theirs, "workers", 0),
        lambda: api.set_labels(theirs, {}, ""),
    ):
        with pytest.raises(CloudRightsError, match="not allowed"):
            request()

    assert gke.traffic.calls == []
    assert theirs in gke.fake.clusters
