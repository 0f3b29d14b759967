"""GKE clusters: found, finished or created; nothing left of what failed."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from google.cloud import container_v1 as v1

from dask_hpsearch.concurrency import Clock
from dask_hpsearch.exceptions import (
    CloudApiDisabledError,
    CloudError,
    CloudNotFoundError,
    CloudQuotaError,
    CloudRightsError,
    CloudTimeoutError,
    CloudUnreachableError,
    ForeignResourceError,
    GKEMismatchError,
    OperationFailedError,
)
from dask_hpsearch.gcp.gke import labels as ours
from dask_hpsearch.gcp.gke.operations import Timeouts
from tests.fakes.clock import START
from tests.fakes.serving import Refused
from tests.gcp.specs import spec
from tests.processes import script, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.gke_service import GKEService

PATH = "projects/some-project/locations/europe-west4-a/clusters/searches"
TYPES = v1.Operation.Type
DENIED = Refused(
    "PERMISSION_DENIED",
    'Required "container.clusters.create" permission(s) for "projects/some-project".',
    "IAM_PERMISSION_DENIED",
    permission="container.clusters.create",
)
DISABLED = Refused(
    "PERMISSION_DENIED",
    "Kubernetes Engine API has not been used in project 1 before or it is disabled.",
    "SERVICE_DISABLED",
    service="container.googleapis.com",
)
ACT_AS = Refused(
    "PERMISSION_DENIED",
    'The user does not have access to service account "a@b". Ask a project owner to '
    "grant you the iam.serviceAccountUser role on the service account.",
)
BUSY = Refused("UNAVAILABLE", "The service is currently unavailable.")
SLOW = Refused("DEADLINE_EXCEEDED", "Deadline exceeded")
UNKNOWN = Refused("UNAUTHENTICATED", "Request had invalid authentication credentials.")
BROKEN = Refused("INTERNAL", "Internal error encountered.")
REFUSALS = [DENIED, DISABLED, UNKNOWN, BUSY, BROKEN]
STOCKOUT = Refused(
    "RESOURCE_EXHAUSTED",
    "Google Compute Engine: Quota 'N2_CPUS' exceeded. Limit: 8.0 in region europe-west4.",
)


def test_a_cluster_is_created_and_found_again(gke: GKEService) -> None:
    """The same call twice makes one cluster."""
    first = gke.clusters().ensure(spec())
    second = gke.clusters().ensure(spec())

    assert (first.created, second.created) == (True, False)
    assert second.cluster.status == "RUNNING"
    assert second.cluster.server.startswith("https://gke-")
    assert gke.methods().count("CreateCluster") == 1
    assert list(gke.there()) == [PATH]
    assert any("create the GKE cluster 'searches'" in line for line in gke.said)


def test_who_finds_it_lets_it_live_longer(gke: GKEService) -> None:
    """A new search has its whole time; nobody's time gets shorter."""
    gke.clusters().ensure(spec(ttl_hours=8))
    gke.time.sleep(7200)
    now = gke.time.now()

    longer = gke.clusters().ensure(spec(ttl_hours=7))
    shorter = gke.clusters().ensure(spec(ttl_hours=1))

    expires = longer.cluster.expires_at
    assert expires is not None
    assert expires >= now + 7 * 3600
    assert shorter.cluster.expires_at == expires
    (there,) = gke.there().values()
    assert there.resource_labels["team"] == "research"


def test_labels_that_change_meanwhile_are_kept(gke: GKEService) -> None:
    """Whoever adds a label of his own between a look and a change does not lose it."""
    gke.clusters().ensure(spec(ttl_hours=1))
    stale = "Labels could not be set due to a fingerprint mismatch."
    gke.traffic.fail("SetLabels", Refused("FAILED_PRECONDITION", stale))

    gke.clusters().ensure(spec(ttl_hours=9))

    assert gke.methods().count("SetLabels") == 2
    assert ours.expiry(gke.fake.clusters[PATH].resource_labels) > START + 8 * 3600  # type: ignore[operator]


@pytest.mark.parametrize(
    ("refusal", "error", "says"),
    [
        (
            DENIED,
            CloudRightsError,
            ["container.clusters.create", "roles/container.admin"],
        ),
        (
            ACT_AS,
            CloudRightsError,
            ["roles/iam.serviceAccountUser", "service-accounts"],
        ),
        (DISABLED, CloudApiDisabledError, ["services enable container.googleapis.com"]),
        (UNKNOWN, CloudRightsError, ["gcloud auth application-default login"]),
        (BROKEN, CloudUnreachableError, ["does not respond"]),
        (BUSY, CloudUnreachableError, ["does not respond", "try again"]),
        (SLOW, CloudUnreachableError, ["Deadline exceeded"]),
    ],
    ids=["denied", "act-as", "disabled", "unknown", "broken", "busy", "slow"],
)
def test_a_refused_creation_says_what_mends_it(
    gke: GKEService, refusal: Refused, error: type[CloudError], says: list[str]
) -> None:
    """Each refusal has an error of its own, with the way out; nothing is left."""
    gke.traffic.fail("CreateCluster", refusal, times=100)

    with pytest.raises(error) as raised:
        gke.clusters().ensure(spec())

    assert all(words in str(raised.value) for words in says), str(raised.value)
    assert gke.there() == {}


def test_a_quota_is_told_before_anything_is_made(gke: GKEService) -> None:
    """GKE answers with "forbidden"; the error says that it is the quota."""
    big = {
        "system": {"machine_type": "e2-standard-32", "min_nodes": 40, "max_nodes": 40}
    }

    with pytest.raises(CloudQuotaError, match="Insufficient regional quota"):
        gke.clusters().ensure(spec(pools=big))

    assert gke.there() == {}


@pytest.mark.parametrize(
    ("refusal", "error", "says"),
    [
        (STOCKOUT, CloudQuotaError, "N2_CPUS"),
        (
            Refused(
                "INTERNAL",
                "All cluster resources were brought up, but: only 0 "
                "nodes out of 1 have registered",
            ),
            OperationFailedError,
            "registered",
        ),
        (
            Refused("PERMISSION_DENIED", "the service account lacks x"),
            CloudRightsError,
            "service account",
        ),
    ],
    ids=["quota", "nodes", "account"],
)
def test_an_operation_that_fails_midway_leaves_nothing(
    gke: GKEService, refusal: Refused, error: type[CloudError], says: str
) -> None:
    """GKE leaves a cluster in ERROR: it is removed, and the error says why."""
    gke.fake.fails[TYPES.CREATE_CLUSTER] = refusal

    with pytest.raises(error, match=says):
        gke.clusters().ensure(spec())

    assert gke.methods() == ["CreateCluster", "DeleteCluster"]
    assert gke.there() == {}


@pytest.mark.parametrize("status", ["ERROR", "RUNNING_WITH_ERROR"])
@pytest.mark.parametrize("pool", ["system", "workers"])
def test_a_pool_that_fails_midway_leaves_nothing(
    gke: GKEService, pool: str, status: str
) -> None:
    """GKE says that the cluster runs, and that its nodes do not: that is no success."""
    gke.fake.broken_pools[pool] = (status, "Not all instances running in IGM: stockout")

    with pytest.raises(CloudQuotaError, match=f"pool '{pool}'.*Not all instances"):
        gke.clusters().ensure(spec())

    assert gke.methods() == ["CreateCluster", "DeleteCluster"]
    assert gke.there() == {}


def test_a_pool_that_fails_later_is_told(gke: GKEService) -> None:
    """Some of its nodes are there, and somebody may be using them: it is not removed."""
    gke.clusters().ensure(spec())
    pool = gke.fake.clusters[PATH].node_pools[1]
    pool.status = v1.NodePool.Status.RUNNING_WITH_ERROR
    pool.status_message = "Not all instances running in IGM"
    gke.said.clear()

    found = gke.clusters().ensure(spec())

    assert found.cluster.pools[1].message == "Not all instances running in IGM"
    assert any("pool 'workers'" in line for line in gke.said)


def test_a_creation_that_takes_too_long_is_given_up(gke: GKEService) -> None:
    """It cannot be deleted while it is being created: that is waited for."""
    gke.fake.durations[TYPES.CREATE_CLUSTER] = 3600.0

    with pytest.raises(CloudTimeoutError, match="longer than 30 minutes"):
        gke.clusters(timeouts=Timeouts(create=1800.0)).ensure(spec())

    assert gke.there() == {}


def test_what_cannot_be_removed_is_named(gke: GKEService) -> None:
    """If even the removal is refused, the error says what is left and how it goes."""
    gke.fake.fails[TYPES.CREATE_CLUSTER] = STOCKOUT
    gke.traffic.fail("DeleteCluster", DENIED, times=100)

    with pytest.raises(CloudQuotaError, match=r"left behind.*dask-hpsearch down"):
        gke.clusters().ensure(spec())

    assert ours.expiry(gke.there()[PATH].resource_labels) is not None


def test_a_lost_answer_makes_no_second_cluster(gke: GKEService) -> None:
    """The creation went on at Google's side: it is found by its own mark."""
    gke.traffic.fail("CreateCluster", BUSY, after=True)

    assert gke.clusters().ensure(spec()).created

    assert gke.methods() == ["CreateCluster"]
    assert list(gke.there()) == [PATH]


def test_a_request_that_was_lost_is_repeated(gke: GKEService) -> None:
    """Nothing came of it: it is asked for again, once more and in vain twice."""
    gke.traffic.fail("CreateCluster", SLOW, times=2)

    assert gke.clusters().ensure(spec()).created
    assert gke.methods() == ["CreateCluster"] * 3


def test_a_failure_at_any_call_leaves_nothing(gke: GKEService) -> None:
    """Whichever request is refused: a cluster that can be used, or none at all."""
    timeouts = Timeouts(poll_interval=60.0)
    gke.clusters(timeouts=timeouts).ensure(spec())
    steps = len(gke.traffic.calls)
    gke.clusters().delete(PATH)

    for number in range(steps):
        for refusal in REFUSALS:
            gke.traffic.calls.clear()
            gke.traffic.fail_at(number, refusal)
            try:
                gke.clusters(timeouts=timeouts).ensure(spec())
            except CloudError:
                assert gke.there() == {}, (number, refusal)
            else:
                assert gke.fake.clusters[PATH].status.name == "RUNNING"
                gke.clusters(timeouts=timeouts).delete(PATH)
            assert gke.fake.clusters == {}


def test_an_interrupt_leaves_nothing(gke: GKEService) -> None:
    """Ctrl-C while GKE works: what was begun is removed before it is passed on."""
    interrupted = threading.Event()

    def sleep(seconds: float) -> None:
        gke.time.sleep(seconds)
        if not interrupted.is_set():
            interrupted.set()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gke.clusters(clock=Clock(gke.time.now, sleep)).ensure(spec())

    assert gke.there() == {}


def test_a_killed_client_is_taken_up(gke: GKEService, tmp_path: Path) -> None:
    """Whoever comes next finds the half-made cluster, and waits until it is ready."""
    text = f"from tests.gcp.gke_client import main\nmain({gke.address!r})\n"
    with script(text, tmp_path) as client:
        wait_until(lambda: "GetOperation" in [name for name, _ in gke.traffic.calls])
        client.kill()
        client.communicate()

    found = gke.clusters().ensure(spec())

    assert not found.created
    assert found.cluster.status == "RUNNING"
    assert gke.methods().count("CreateCluster") == 1


def test_what_a_killed_client_has_broken_is_made_anew(gke: GKEService) -> None:
    """Nobody saw its creation fail: it is removed, and another one made."""
    labels = ours.for_cluster(spec(), expires_at=START + 9e4, creation="dead")
    gke.fake.add(PATH, resource_labels=labels, status=v1.Cluster.Status.ERROR)

    assert gke.clusters().ensure(spec()).created

    assert gke.methods() == ["DeleteCluster", "CreateCluster"]
    assert list(gke.there()) == [PATH]


def test_a_cluster_that_goes_is_waited_for(gke: GKEService) -> None:
    """Its name is free a few minutes later; then it is created."""
    gke.clusters().ensure(spec())
    gke.client.delete_cluster(v1.DeleteClusterRequest(name=PATH))

    assert gke.clusters().ensure(spec()).created
    assert list(gke.there()) == [PATH]


@pytest.mark.parametrize("later_s", [0.0, 1000.0], ids=["going", "gone"])
def test_a_cluster_that_is_deleted_while_it_is_taken_is_made_anew(
    gke: GKEService, later_s: float
) -> None:
    """Between the first look and the last one: no error, but another cluster."""
    gke.clusters().ensure(spec(ttl_hours=1))
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        gke.time.sleep(seconds)
        waits.append(seconds)
        if len(waits) == 1:  # its labels are being changed
            gke.time.sleep(60.0)
            gke.client.delete_cluster(v1.DeleteClusterRequest(name=PATH))
            gke.time.sleep(later_s)

    found = gke.clusters(clock=Clock(gke.time.now, sleep)).ensure(spec(ttl_hours=9))

    assert found.created
    assert found.cluster.status == "RUNNING"
    assert any("another client has deleted" in line for line in gke.said)


def test_two_clients_make_one_cluster(gke: GKEService) -> None:
    """Of two that start at once, one creates, and both have it."""
    both = threading.Barrier(2)
    found = []

    def ensure() -> None:
        both.wait()
        found.append(gke.clusters().ensure(spec()))

    threads = [threading.Thread(target=ensure) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(one.created for one in found) == [False, True]
    assert list(gke.there()) == [PATH]


def test_a_foreign_cluster_is_never_touched(gke: GKEService) -> None:
    """A name that somebody else has: every way to change it is refused."""
    gke.fake.add(PATH, resource_labels={"team": "theirs"}, label_fingerprint="x")
    before = v1.Cluster(gke.fake.clusters[PATH])
    clusters = gke.clusters()

    for deed in (
        lambda: clusters.ensure(spec()),
        lambda: clusters.ensure(spec(), keep=True),
        lambda: clusters.delete(PATH),
        lambda: clusters.set_max_workers(PATH, 3),
        lambda: clusters.remove_workers(PATH),
        lambda: clusters.extend(PATH, START + 1e6),
        lambda: clusters.check_name(PATH),
    ):
        with pytest.raises(ForeignResourceError, match="will not be modified"):
            deed()

    assert gke.methods() == []
    assert gke.there() == {PATH: before}
    assert clusters.list_managed() == []


def test_a_foreign_cluster_that_was_quicker_is_not_touched(gke: GKEService) -> None:
    """It came between the look and the creation: GKE refuses, and so do we."""
    gke.fake.add(PATH, resource_labels={})
    gke.traffic.fail("GetCluster", Refused("NOT_FOUND", "Not found"))

    with pytest.raises(ForeignResourceError):
        gke.clusters().ensure(spec())

    assert gke.methods() == ["CreateCluster"]
    assert list(gke.there()) == [PATH]


def test_a_cluster_of_other_machines_is_not_taken(gke: GKEService) -> None:
    """The error names each difference; nothing is changed."""
    gke.clusters().ensure(spec())
    other = spec(pools={"workers": {"machine_type": "n2-standard-16", "spot": False}})

    with pytest.raises(GKEMismatchError) as raised:
        gke.clusters().ensure(other)

    assert "pools.workers.machine_type is 'n2-standard-8'" in str(raised.value)
    assert "pools.workers.spot is True, but False in the spec" in str(raised.value)
    assert gke.methods() == ["CreateCluster"]


def test_more_nodes_of_workers_are_allowed_on_the_way(gke: GKEService) -> None:
    """How many there may be is no other cluster: it is changed where it is."""
    gke.clusters().ensure(spec())

    gke.clusters().ensure(spec(pools={"workers": {"max_nodes": 25}}))

    (there,) = gke.there().values()
    scaling = there.node_pools[1].autoscaling
    assert (scaling.total_min_node_count, scaling.total_max_node_count) == (0, 25)
    assert scaling.location_policy.name == "ANY"


def test_a_pool_that_is_missing_is_made(gke: GKEService) -> None:
    """Somebody deleted the workers' pool: the next search has it again."""
    gke.clusters().ensure(spec())
    name = f"{PATH}/nodePools/workers"
    gke.client.delete_node_pool(v1.DeleteNodePoolRequest(name=name))
    gke.time.sleep(100)

    gke.clusters().ensure(spec())

    (there,) = gke.there().values()
    assert [pool.name for pool in there.node_pools] == ["system", "workers"]
    assert there.node_pools[1].config.spot


def test_a_cluster_with_a_foreign_pool_stays(gke: GKEService) -> None:
    """Our pools go; the cluster is left to whoever added one, who is told of."""
    gke.clusters().ensure(spec())
    theirs = v1.NodePool(
        name="theirs",
        config=v1.NodeConfig(
            machine_type="e2-medium",
            disk_size_gb=50,
            service_account="a@b.c",
            resource_labels={"managed-by": "dask-hpsearch"},  # the cluster's, inherited
        ),
    )
    gke.client.create_node_pool(v1.CreateNodePoolRequest(parent=PATH, node_pool=theirs))
    gke.time.sleep(100)

    with pytest.raises(ForeignResourceError, match="theirs"):
        gke.clusters().delete(PATH)

    (there,) = gke.there().values()
    assert [pool.name for pool in there.node_pools] == ["theirs"]
    assert "DeleteCluster" not in gke.methods()


def test_what_is_gone_is_deleted_without_ado(gke: GKEService) -> None:
    """The second deletion finds nothing, and says so."""
    gke.clusters().ensure(spec())

    assert gke.clusters().delete(PATH)
    assert not gke.clusters().delete(PATH)
    assert gke.fake.clusters == {}


def test_a_deletion_waits_for_what_is_under_way(gke: GKEService) -> None:
    """GKE refuses while another operation runs: it is asked again."""
    gke.clusters().ensure(spec())
    name = f"{PATH}/nodePools/workers"
    gke.client.set_node_pool_size(v1.SetNodePoolSizeRequest(name=name, node_count=3))

    assert gke.clusters().delete(PATH)

    assert gke.methods().count("DeleteCluster") > 1
    assert gke.fake.clusters == {}


@pytest.mark.parametrize("after", [False, True])
def test_a_deletion_outlasts_an_outage(gke: GKEService, after: bool) -> None:  # noqa: FBT001
    """503 and answers that are lost: it is gone in the end, all the same."""
    gke.clusters().ensure(spec())
    gke.traffic.fail("DeleteCluster", BUSY, times=2, after=after)
    gke.traffic.fail("GetOperation", SLOW, times=3)

    assert gke.clusters().delete(PATH)
    assert gke.fake.clusters == {}


def test_a_deletion_that_fails_is_tried_again(gke: GKEService) -> None:
    """Once more; then the error says why."""
    gke.clusters().ensure(spec())
    gke.fake.fails[TYPES.DELETE_CLUSTER] = BROKEN

    assert gke.clusters().delete(PATH)
    assert gke.fake.clusters == {}


def test_there_is_nothing_to_change_of_what_is_not_there(gke: GKEService) -> None:
    """The error says how it is made."""
    with pytest.raises(CloudNotFoundError, match="dask-hpsearch up"):
        gke.clusters().set_max_workers(PATH, 3)


def test_ours_are_listed(gke: GKEService) -> None:
    """Of all locations, with what somebody who tidies up needs to know."""
    gke.clusters().ensure(spec(owner="ada"))
    gke.fake.add(PATH.replace("searches", "theirs"), resource_labels={"owner": "bob"})

    (one,) = gke.clusters().list_managed()

    assert one.path == PATH
    assert (one.owner, one.nodes, one.status) == ("ada", 1, "RUNNING")
    assert one.expires_at is not None
    assert [(pool.name, pool.managed) for pool in one.pools] == [
        ("system", True),
        ("workers", True),
    ]


def test_messages_of_progress_are_few(gke: GKEService) -> None:
    """A line whenever there is something new, not at every look."""
    gke.clusters().ensure(spec())

    looks: list[Any] = gke.traffic.named("GetOperation")
    assert len(looks) > 20
    assert len(gke.said) < 6
