"""GKE clusters end when their time is over, whoever is dead by then."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from google.cloud import container_v1 as v1

from dask_hpsearch.concurrency import Clock
from dask_hpsearch.exceptions import ForeignResourceError
from dask_hpsearch.gcp.gke import labels as ours
from dask_hpsearch.gcp.gke import reaper as reaping
from dask_hpsearch.gcp.gke import reaper_pod
from dask_hpsearch.gcp.gke.operations import Timeouts
from dask_hpsearch.gcp.gke.reaper import PERMISSIONS, reap, sweep, watch
from tests.fakes.certificates import localhost_certificate
from tests.fakes.clock import START, RunningClock
from tests.fakes.gke import FakeClusters
from tests.fakes.serving import Refused, Traffic, serving
from tests.fakes.tokens import token_service
from tests.gcp.specs import spec
from tests.processes import script

if TYPE_CHECKING:
    from pathlib import Path

    from dask_hpsearch.gcp.gke.clusters import GKEClusters
    from tests.fakes.gke_service import GKEService

PATH = "projects/some-project/locations/europe-west4-a/clusters/searches"
TTL_S = 2 * 3600.0
LATE_S = 300.0  # what may pass between the end of its time and its own
DENIED = Refused("PERMISSION_DENIED", "no", "IAM_PERMISSION_DENIED")
BUSY = Refused("UNAVAILABLE", "The service is currently unavailable.")


def made(gke: GKEService) -> float:
    """Make a cluster with workers at work; return when its time is over."""
    found = gke.clusters().ensure(spec(ttl_hours=2)).cluster
    name = f"{PATH}/nodePools/workers"
    gke.client.set_node_pool_size(v1.SetNodePoolSizeRequest(name=name, node_count=5))
    gke.time.sleep(100)
    assert found.expires_at is not None
    gke.traffic.calls.clear()
    return found.expires_at


def in_pod(gke: GKEService) -> GKEClusters:
    """Return the clusters as the reaper's program has them."""
    return gke.clusters(timeouts=reaping.TIMEOUTS)


def test_a_cluster_is_gone_soon_after_its_time(gke: GKEService) -> None:
    """Nobody but the reaper is alive: neither notebook, driver, scheduler nor operator."""
    expires_at = made(gke)

    watch(in_pod(gke), PATH, gke.time.clock)

    assert gke.fake.clusters == {}
    assert expires_at <= gke.time.now() <= expires_at + LATE_S


def test_a_reaper_works_as_soon_as_it_may(gke: GKEService) -> None:
    """Its bindings may come late: until then it is alive, and not ready."""
    expires_at = made(gke)
    gke.traffic.fail("GetCluster", DENIED, times=20)
    told: list[str] = []

    watch(
        in_pod(gke),
        PATH,
        gke.time.clock,
        ready=lambda: told.append("ready"),
        alive=lambda: told.append("alive"),
    )

    assert told[:20] == ["alive"] * 20
    assert told[20:22] == ["ready", "alive"]
    assert gke.fake.clusters == {}
    assert gke.time.now() <= expires_at + LATE_S


def test_a_reaper_that_waits_for_its_bindings_is_not_restarted() -> None:
    """Kubernetes would pause longer before each restart."""
    *_, deployment = reaper_pod.manifests(spec(), "image:1")

    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    files = {
        name: next(one for one in ("ready", "alive") if f"/{one}'" in text)
        for name in ("readinessProbe", "livenessProbe")
        for text in [container[name]["exec"]["command"][-1]]
    }
    assert files == {"readinessProbe": "ready", "livenessProbe": "alive"}
    command = container["args"]
    assert command[command.index("--alive") + 1].endswith("/alive")


@pytest.mark.parametrize("steps", range(0, 40, 3))
def test_a_reaper_that_dies_is_followed_by_another(gke: GKEService, steps: int) -> None:
    """Whatever it was waiting for: Kubernetes starts the next one, which goes on."""

    class Death(Exception):  # noqa: N818 (of a process)
        pass

    expires_at = made(gke)
    gke.time.sleep(expires_at - 40 - gke.time.now())
    left = iter(range(steps))

    def sleep(seconds: float) -> None:
        gke.time.sleep(seconds)
        if next(left, None) is None:
            raise Death

    mortal = Clock(gke.time.now, sleep)
    with pytest.raises(Death):
        watch(gke.clusters(timeouts=reaping.TIMEOUTS, clock=mortal), PATH, mortal)
    gke.time.sleep(15.0)  # until it is started again
    watch(in_pod(gke), PATH, gke.time.clock)

    assert gke.fake.clusters == {}
    assert gke.time.now() <= expires_at + LATE_S


def test_the_reaper_needs_nothing_of_kubernetes(tmp_path: Path) -> None:
    """Its program asks Google alone, and cannot even notice who is dead beside it."""
    roots = tmp_path / "roots.pem"
    clock = RunningClock(time.time())
    fake, traffic = FakeClusters(clock), Traffic()
    labels = ours.for_cluster(spec(), expires_at=time.time(), creation="somebody")
    fake.add(PATH, resource_labels=labels)
    with (
        token_service("token") as tokens,
        serving(traffic, fake, certificate=localhost_certificate(roots)) as address,
    ):
        arguments = [PATH, "--endpoint", address, "--every=1"]
        arguments += ["--ready", str(tmp_path / "ready")]
        environment = {
            "GOOGLE_APPLICATION_CREDENTIALS": str(tokens.credentials(tmp_path)),
            "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(roots),
            "KUBECONFIG": str(tmp_path / "none"),
        }
        text = (
            "import sys\n"
            "from dask_hpsearch.gcp.gke.reaper import main\n"
            f"main({arguments!r})\n"
            "print(*sorted({'kr8s', 'dask_kubernetes', 'distributed'} & {*sys.modules}))\n"
        )
        with script(text, tmp_path, environment=environment) as program:
            said, log = program.communicate()

    assert program.returncode == 0, log
    assert said.strip() == ""
    assert fake.named(PATH) is None
    asked = {name for name, _ in traffic.calls}
    assert asked == {"GetCluster", "DeleteCluster"}


@pytest.mark.parametrize("reaper_lived", [False, True], ids=["never", "died"])
def test_without_a_reaper_a_sweep_ends_it(
    gke: GKEService,
    reaper_lived: bool,  # noqa: FBT001 (a parameter)
) -> None:
    """A creation that was given up has none; another one's died in the midst of it."""
    expires_at = made(gke)
    gke.time.sleep(expires_at - gke.time.now())
    if reaper_lived:
        in_pod(gke).remove_workers(PATH)

    (swept,) = sweep(gke.clusters(), gke.time.clock)

    assert swept.error is None
    assert gke.fake.clusters == {}
    assert gke.time.now() <= expires_at + LATE_S


def test_the_age_of_workers_nodes_is_bounded_and_that_of_the_systems_is_not(
    gke: GKEService,
) -> None:
    """GKE replaces an old node while pods wait: it is no third guard on the cost."""
    gke.clusters().ensure(spec())

    (asked,) = gke.traffic.named("CreateCluster")

    system, workers = asked.cluster.node_pools
    assert workers.config.max_run_duration.total_seconds() == 24 * 3600
    assert system.config.max_run_duration.total_seconds() == 0
    assert workers.autoscaling.total_min_node_count == 0


def test_nodes_of_workers_go_first(gke: GKEService) -> None:
    """They cost most; the pool must not bring them back."""
    made(gke)

    watch(in_pod(gke), PATH, gke.time.clock)

    assert gke.methods()[:2] == ["SetNodePoolAutoscaling", "SetNodePoolSize"]
    assert gke.methods()[-1] == "DeleteCluster"
    assert not gke.traffic.named("SetNodePoolAutoscaling")[0].autoscaling.enabled
    size = gke.traffic.named("SetNodePoolSize")[0]
    assert size.name.endswith("/nodePools/workers")
    assert size.node_count == 0


def test_before_its_time_nothing_happens(gke: GKEService) -> None:
    """The reaper looks, and that is all."""
    made(gke)

    assert not reap(in_pod(gke), PATH, gke.time.clock)
    assert gke.methods() == []


def test_a_time_that_was_extended_counts(gke: GKEService) -> None:
    """Another search has found the cluster: it lives on."""
    expires_at = made(gke)
    gke.time.sleep(TTL_S - 1800)
    gke.clusters().ensure(spec(ttl_hours=2))
    gke.time.sleep(expires_at + 60 - gke.time.now())

    assert not reap(in_pod(gke), PATH, gke.time.clock)
    assert list(gke.fake.clusters) == [PATH]


@pytest.mark.parametrize("label", [{}, {"expires-at": "tomorrow"}])
def test_a_time_that_cannot_be_read_is_the_longest(
    gke: GKEService, label: dict[str, str]
) -> None:
    """Somebody has changed the label, or removed it: a week after it came, it goes."""
    found = gke.clusters().ensure(spec(ttl_hours=2)).cluster
    labels = dict(found.labels)
    del labels["expires-at"]
    gke.fake.clusters[PATH].resource_labels = labels | label
    assert found.created is not None
    gke.time.sleep(found.created + 7 * 24 * 3600 - 60 - gke.time.now())

    assert not reap(in_pod(gke), PATH, gke.time.clock)
    assert sweep(gke.clusters(), gke.time.clock) == []
    watch(in_pod(gke), PATH, gke.time.clock)

    assert gke.fake.clusters == {}
    assert gke.time.now() <= found.created + 7 * 24 * 3600 + LATE_S


@pytest.mark.parametrize(
    ("method", "refusal", "times"),
    [
        ("SetNodePoolAutoscaling", DENIED, 1),
        ("SetNodePoolSize", DENIED, 1),
        ("DeleteCluster", BUSY, 3),
        ("GetCluster", DENIED, 2),
    ],
)
def test_what_goes_wrong_is_tried_again(
    gke: GKEService, method: str, refusal: Refused, times: int
) -> None:
    """A refusal delays the end by a look or two, and no more."""
    expires_at = made(gke)
    gke.time.sleep(expires_at - gke.time.now())
    gke.traffic.fail(method, refusal, times=times)

    watch(in_pod(gke), PATH, gke.time.clock)

    assert gke.fake.clusters == {}
    assert gke.time.now() <= expires_at + LATE_S


def test_nodes_that_do_not_go_hold_nothing_up(gke: GKEService) -> None:
    """A pool that takes long to become empty: then it goes with the cluster."""
    expires_at = made(gke)
    gke.fake.durations[v1.Operation.Type.SET_NODE_POOL_SIZE] = 90.0
    gke.fake.durations[v1.Operation.Type.DELETE_CLUSTER] = 120.0

    watch(in_pod(gke), PATH, gke.time.clock)

    assert gke.fake.clusters == {}
    assert gke.time.now() <= expires_at + LATE_S


def test_who_only_looks_shows_that_all_is_well(gke: GKEService) -> None:
    """The pod is ready once its rights suffice for a look."""
    made(gke)
    looks: list[float] = []

    class Enough(Exception):  # noqa: N818 (ends the test)
        pass

    def sleep(seconds: float) -> None:
        gke.time.sleep(seconds)
        if len(looks) == 3:
            raise Enough

    gke.traffic.fail("GetCluster", DENIED)
    with pytest.raises(Enough):
        watch(
            in_pod(gke),
            PATH,
            Clock(gke.time.now, sleep),
            ready=lambda: looks.append(gke.time.now()),
        )

    assert len(looks) == 3


def test_a_sweep_removes_what_is_over_its_time(gke: GKEService) -> None:
    """Also what never had a reaper; not what is within its time, nor a stranger's."""
    gke.clusters().ensure(spec(ttl_hours=1))
    gke.clusters().ensure(spec(name="younger", ttl_hours=100, pools=LONG))
    theirs = PATH.replace("searches", "theirs")
    gke.fake.add(theirs, resource_labels={"expires-at": "2020-01-01t00-00-00z"})
    gke.time.sleep(2 * 3600)

    looked = sweep(gke.clusters(), gke.time.clock, dry_run=True)
    swept = sweep(gke.clusters(), gke.time.clock)

    assert [one.cluster.name for one in looked] == ["searches"]
    assert [(one.cluster.name, one.error) for one in swept] == [("searches", None)]
    assert set(gke.there()) == {theirs, PATH.replace("searches", "younger")}


LONG: dict[str, Any] = {"system": {"max_run_hours": 168}}


def test_a_sweep_goes_on_after_a_failure(gke: GKEService) -> None:
    """One that cannot be deleted is told of, the others go."""
    for name in ("one", "two"):
        gke.clusters().ensure(spec(name=name, ttl_hours=1))
    gke.time.sleep(2 * 3600)
    gke.traffic.fail("DeleteCluster", DENIED)

    first, second = sweep(gke.clusters(), gke.time.clock)

    assert "not allowed" in str(first.error)
    assert second.error is None


def test_a_strangers_cluster_is_not_reaped(gke: GKEService) -> None:
    """A label of ours that somebody copied does not make it ours."""
    labels = {"expires-at": "2020-01-01t00-00-00z"}
    gke.fake.add(PATH, resource_labels=labels)

    with pytest.raises(ForeignResourceError):
        reap(in_pod(gke), PATH, gke.time.clock)

    assert gke.methods() == []


def test_the_reapers_pod_may_do_nothing_in_kubernetes() -> None:
    """No role, no token: what it may do at Google is bound to its account there."""
    manifests = {one["kind"]: one for one in reaper_pod.manifests(spec(), "image:1")}

    assert set(manifests) == {
        "Namespace",
        "ServiceAccount",
        "NetworkPolicy",
        "Deployment",
    }
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    (container,) = pod["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["resources"]["limits"] == container["resources"]["requests"]
    assert "nodeSelector" not in pod  # any node that is not tainted: the system's


def test_the_reapers_role_is_four_rights_on_one_cluster() -> None:
    """The commands name them, and the one Kubernetes account that gets them."""
    create, create_second, bind, bind_second = reaper_pod.role_commands(spec(), "123")

    *of_cluster, of_operation = PERMISSIONS
    assert create.endswith(f"--permissions={','.join(of_cluster)}")
    assert create_second.endswith(f"--permissions={of_operation}")
    for command in (bind, bind_second):
        assert "ns/dask-hpsearch-system/sa/reaper" in command
    assert f"resource.name == '{PATH.replace('/locations/', '/zones/')}'" in bind


def test_times_in_labels_are_those_that_were_written() -> None:
    """A label holds no colons and no capitals, and is read back to the second."""
    from dask_hpsearch.gcp.gke.labels import expiry, time_text

    text = time_text(START + 0.4)

    assert text == "2027-01-15t08-00-00z"
    assert expiry({"expires-at": text}) == START
    assert expiry({"expires-at": "tomorrow"}) is None
    assert expiry({}) is None


def test_limits_of_the_reaper_are_short() -> None:
    """Of five minutes, it must not spend all on what is only a precaution."""
    assert Timeouts(change=60.0, delete=2400.0) == reaping.TIMEOUTS
