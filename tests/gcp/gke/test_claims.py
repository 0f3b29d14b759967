"""GKE clusters that one leaves while another comes: whoever has one keeps it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from google.cloud import container_v1 as v1

from dask_hpsearch.gcp.gke import labels as ours
from tests.fakes.serving import Refused
from tests.gcp.specs import spec
from tests.processes import wait_until

if TYPE_CHECKING:
    from tests.fakes.gke_service import GKEService

PATH = "projects/some-project/locations/europe-west4-a/clusters/searches"
BUSY = Refused("UNAVAILABLE", "The service is currently unavailable.")
SLOW = Refused("DEADLINE_EXCEEDED", "Deadline exceeded")
BUSY_CLUSTER = Refused(
    "FAILED_PRECONDITION", "Cluster is running incompatible operation operation-1."
)


def claims_on(gke: GKEService) -> set[str]:
    """Return who is about to use the cluster, as its labels say."""
    found = gke.clusters().find(PATH)
    return set() if found is None else ours.active_claims(found.labels, gke.time.now())


def test_who_begins_to_use_a_cluster_keeps_it(gke: GKEService) -> None:
    """One looks who uses it, and sees nobody; then another one comes, before it is deleted."""
    gke.clusters().ensure(spec(ttl_hours=9), claim="claim-leaving")
    looks: list[set[str]] = []

    def is_in_use() -> bool:
        claims = claims_on(gke) - {"claim-leaving"}
        looks.append(claims)
        if len(looks) == 1:  # and has not begun anything there that could be seen
            gke.clusters().ensure(spec(ttl_hours=1), claim="claim-coming")
        return bool(claims)

    assert not gke.clusters().delete_unused(PATH, is_in_use)

    assert looks == [set(), {"claim-coming"}]
    assert "DeleteCluster" not in gke.methods()


def test_a_cluster_that_is_busy_is_looked_at_again(gke: GKEService) -> None:
    """It may be somebody's claim that it is busy with; a lost answer is no better."""
    for refusal in (BUSY_CLUSTER, BUSY, SLOW):
        gke.clusters().ensure(spec())
        gke.traffic.fail("DeleteCluster", refusal)
        looks: list[bool] = []

        def is_in_use(looks: list[bool] = looks) -> bool:
            looks.append(True)
            return len(looks) > 1

        assert not gke.clusters().delete_unused(PATH, is_in_use)
        assert len(looks) == 2
        assert PATH in gke.there()


@pytest.mark.parametrize("calls", range(8))
def test_nobody_loses_a_cluster_to_who_leaves(gke: GKEService, calls: int) -> None:
    """Whichever request of who comes it is that follows the look of who leaves."""
    gke.clusters().ensure(spec(), claim="claim-leaving")
    found: list[Any] = []
    coming = threading.Thread(
        target=lambda: found.append(gke.clusters().ensure(spec(), claim="claim-coming"))
    )

    def is_in_use() -> bool:
        used = bool(claims_on(gke) - {"claim-leaving"})
        if coming.ident is None:
            before = len(gke.traffic.calls)
            coming.start()
            wait_until(lambda: found or len(gke.traffic.calls) >= before + calls)
        return used

    gke.clusters().delete_unused(PATH, is_in_use)
    coming.join()

    there = gke.there()[PATH]
    assert there.status == v1.Cluster.Status.RUNNING
    assert there.resource_labels["creation"] == found[0].cluster.labels["creation"]


def test_claims_end_by_themselves(gke: GKEService) -> None:
    """A client that was killed does not keep a cluster; what is over is tidied away."""
    gke.clusters().ensure(spec(), claim="claim-killed")
    assert claims_on(gke) == {"claim-killed"}
    gke.time.sleep(3700)

    assert claims_on(gke) == set()
    gke.clusters().ensure(spec(), claim="claim-new")
    assert "claim-killed" not in gke.fake.clusters[PATH].resource_labels
    gke.clusters().release(PATH, "claim-new")
    assert claims_on(gke) == set()


def test_workers_come_again_to_a_cluster_that_was_to_go(gke: GKEService) -> None:
    """Its nodes were ended, and then it was not deleted: the next search needs nodes."""
    gke.clusters().ensure(spec())
    gke.clusters().remove_workers(PATH)

    gke.clusters().ensure(spec())

    scaling = gke.fake.clusters[PATH].node_pools[1].autoscaling
    assert scaling.enabled
    assert scaling.total_max_node_count == 10
