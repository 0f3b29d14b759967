"""On a project's first GKE cluster, the bindings of pods are made, or asked for and awaited."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession

from dask_hpsearch import gke_cluster
from dask_hpsearch.concurrency import Clock
from dask_hpsearch.deploy.provision import provision
from dask_hpsearch.exceptions import ClusterError, MissingBindingsError
from dask_hpsearch.gcp.doctor.doctor import examine
from dask_hpsearch.gcp.gke.labels import active_claims
from dask_hpsearch.gcp.rest import GoogleRest, with_retries
from tests.deploy.contexts import context
from tests.fakes import gcloud
from tests.fakes.kubernetes import fake_kubernetes
from tests.fakes.project import NUMBER, SERVICES, FakeProject, project_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dask_hpsearch.deploy.context import DeployContext
    from tests.fakes.cloud import Cloud
    from tests.fakes.iam import FakePolicy

PATH = "projects/some-project/locations/europe-west4-a/clusters/searches"
_NOWHERE = dict.fromkeys(SERVICES, "http://127.0.0.1:9")  # nobody listens there
TEAM = {"role": "roles/viewer", "members": ["user:ada@example.org"]}
UNTIL = {
    "role": "roles/viewer",
    "members": ["user:bob@example.org"],
    "condition": {"title": "zone", "expression": "resource.service == 'x'"},
}


@pytest.fixture
def iam(project: Cloud) -> FakeProject:
    """The project's IAM: no identity pool, no role or binding for pods; others have theirs."""
    found = FakeProject(pools=set())
    found.own_roles.clear()
    found.policy.conditional[:] = [dict(UNTIL)]
    found.policy.roles.clear()
    found.policy.roles[str(TEAM["role"])] = list(TEAM["members"])
    found.bucket_policy.roles.clear()
    found.bucket_policy.conditional.clear()
    project.gke.place.came = lambda made: found.cluster_came(made.name)
    return found


@pytest.fixture
def rest(iam: FakeProject) -> Iterator[GoogleRest]:
    """Its REST services."""
    with (
        project_at(iam) as url,
        AuthorizedSession(AnonymousCredentials()) as session,
    ):
        yield GoogleRest(with_retries(session), dict.fromkeys(SERVICES, url))


@pytest.fixture
def deployment(project: Cloud, bucket: str, rest: GoogleRest) -> DeployContext:
    """A deployment in that project."""
    made = context(project, bucket, image="example.org/image:1.0")
    return replace(made, clients=replace(project.clients, rest=rest))


def acting_after(
    context: DeployContext, seconds: float, act: Callable[[], object]
) -> DeployContext:
    """Let something happen once a while has passed since IAM bindings were asked for."""
    clock, began = context.clock, []

    def say(line: str) -> None:
        if "IAM bindings are missing" in line:
            began.append(clock.now())
        context.say(line)

    def sleep(length: float) -> None:
        clock.sleep(length)
        if began and clock.now() - began[0] > seconds:
            began.clear()
            act()

    options = {**context.options, "clock": Clock(clock.now, sleep)}
    return replace(context, say=say, options=options)


def nothing_missing(context: DeployContext, rest: GoogleRest) -> bool:
    """Whether `doctor` finds all that pods need."""
    about = ("reaper", "Workload Identity")
    found = examine(context.spec, rest=rest).findings
    return not [one for one in found if one.about in about]


def test_bindings_are_made_once_the_cluster_is_there(
    project: Cloud, iam: FakeProject, deployment: DeployContext, rest: GoogleRest
) -> None:
    """With the project's own number; those of others are as they were."""
    with pytest.raises(ClusterError):  # there is no Kubernetes
        provision(deployment, bind=True)

    assert nothing_missing(deployment, rest)
    members = [name for one in iam.policy.bindings for name in one["members"]]
    assert sum(f"/projects/{NUMBER}/" in name for name in members) == 2
    assert TEAM in iam.policy.bindings
    assert UNTIL in iam.policy.bindings
    assert not any("gcloud" in line for line in project.said)


def test_a_change_meanwhile_is_kept(
    iam: FakeProject, deployment: DeployContext, rest: GoogleRest
) -> None:
    """A policy that another client sets between read and write keeps both changes."""

    def meddle(policy: FakePolicy) -> None:
        policy.roles["roles/editor"] = ["user:eve@example.org"]

    iam.policy.meddle = meddle

    with pytest.raises(ClusterError):
        provision(deployment, bind=True)

    assert iam.policy.roles["roles/editor"] == ["user:eve@example.org"]
    assert nothing_missing(deployment, rest)


@pytest.mark.parametrize("bind", [False, True], ids=["print", "may not bind"])
def test_commands_are_printed_and_waited_for(
    project: Cloud,
    iam: FakeProject,
    deployment: DeployContext,
    rest: GoogleRest,
    bind: bool,  # noqa: FBT001 (a parameter)
) -> None:
    """One block, which the owner pastes as it is; lines of progress until it has an effect."""
    iam.lacking |= {"resourcemanager.projects.setIamPolicy", "iam.roles.create"}
    iam.lacking |= {"storage.buckets.setIamPolicy"}
    blocks: list[str] = []

    def paste() -> None:
        blocks.extend(line for line in project.said if "gcloud" in line)
        gcloud.run(iam, blocks[0])

    with pytest.raises(ClusterError) as raised:
        provision(acting_after(deployment, 400, paste), bind=bind)

    assert not isinstance(raised.value, MissingBindingsError)
    assert len(blocks) == 1
    assert NUMBER in blocks[0]
    assert "PROJECT_NUMBER" not in blocks[0]
    progress = [line for line in project.said if line.startswith("waiting for")]
    assert len([line for line in progress if "IAM bindings" in line]) >= 5
    assert nothing_missing(deployment, rest)


def test_a_pool_that_comes_late_is_waited_for(
    project: Cloud, iam: FakeProject, deployment: DeployContext, rest: GoogleRest
) -> None:
    """GKE says that the cluster is there before IAM knows its identity pool."""
    project.gke.place.came = lambda _: None
    late = acting_after(deployment, 30, lambda: iam.cluster_came("searches"))

    with pytest.raises(ClusterError) as raised:
        provision(late, bind=True)

    assert not isinstance(raised.value, MissingBindingsError)
    assert nothing_missing(deployment, rest)


def test_the_option_of_gke_cluster_sets_them(
    project: Cloud, deployment: DeployContext, rest: GoogleRest
) -> None:
    """As that of ``dask-hpsearch up`` does."""
    with pytest.raises(ClusterError):
        gke_cluster(
            deployment.spec,
            bind=True,
            timeout=0.1,
            clients=replace(project.clients, rest=rest),
            options=project.options,
        )

    assert nothing_missing(deployment, rest)


def test_nothing_is_deleted_because_of_missing_bindings(
    project: Cloud, bucket: str, deployment: DeployContext
) -> None:
    """After ten minutes an error names the commands; cluster and image stay, unclaimed."""
    built = replace(context(project, bucket), clients=deployment.clients)
    with pytest.raises(MissingBindingsError) as raised:
        provision(built)

    text = str(raised.value)
    for part in (
        "gcloud iam roles create daskHpsearchReaper ",
        "gcloud iam roles create daskHpsearchReaperOperations ",
        "gcloud projects add-iam-policy-binding some-project ",
        f"gcloud storage buckets add-iam-policy-binding gs://{bucket} ",
        "dask-hpsearch down",
    ):
        assert part in text
    assert list(project.gke.clusters) == [PATH]
    assert len(project.registry.versions) == 1
    assert "DeleteCluster" not in [name for name, _ in project.traffic.calls]
    labels = project.gke.clusters[PATH].resource_labels
    assert active_claims(labels, project.time.now()) == set()


def test_the_reaper_is_there_before_its_bindings(
    project: Cloud, bucket: str, deployment: DeployContext, tmp_path: Path
) -> None:
    """So the GKE cluster ends in time if its bindings come after the client has given up."""
    plane = {
        "dns_endpoint": False,
        "ip_endpoint": True,
        "authorized_networks": ["127.0.0.0/8"],
    }
    made = context(project, bucket, image="example.org/image:1.0", control_plane=plane)
    reaper = "/apis/apps/v1/namespaces/dask-hpsearch-system/deployments/reaper"
    with fake_kubernetes(tmp_path) as kubernetes:
        project.gke.place.address = kubernetes.address
        project.gke.place.authority = kubernetes.authority

        with pytest.raises(MissingBindingsError, match="dask-hpsearch sweep"):
            provision(replace(made, clients=deployment.clients))

    (container,) = kubernetes.objects[reaper]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "example.org/image:1.0"
    assert kubernetes.tokens == {"Bearer token"}
    beginnings = (
        "IAM bindings are missing",
        "the reaper is in place",
        "waiting for 3 IAM",
    )
    said = [one for line in project.said for one in beginnings if line.startswith(one)]
    assert list(dict.fromkeys(said)) == list(beginnings)


def test_a_cluster_without_its_first_guard_is_told(
    project: Cloud, deployment: DeployContext
) -> None:
    """Neither Kubernetes nor IAM will have it: the other guard is named."""
    with pytest.raises(MissingBindingsError):
        provision(deployment)

    (line,) = [one for one in project.said if one.startswith("the reaper could not")]
    assert "dask-hpsearch sweep --project some-project" in line


def test_who_sweeps_himself_is_told_nothing_of_a_reaper(
    project: Cloud, bucket: str, deployment: DeployContext
) -> None:
    """A spec without one has bindings of its pods alone."""
    made = context(project, bucket, image="example.org/image:1.0", reaper=False)

    with pytest.raises(MissingBindingsError):
        provision(replace(made, clients=deployment.clients))

    assert not [line for line in project.said if "the reaper" in line]


def test_the_next_call_goes_on(
    project: Cloud, iam: FakeProject, deployment: DeployContext
) -> None:
    """The cluster that stayed is used, and what is missing is made."""
    with pytest.raises(MissingBindingsError):
        provision(deployment)
    project.traffic.calls.clear()
    project.said.clear()

    with pytest.raises(ClusterError):
        provision(deployment, bind=True)

    assert "CreateCluster" not in [name for name, _ in project.traffic.calls]
    assert iam.policy.changes == 1
    assert iam.bucket_policy.changes == 1


def test_bindings_that_are_there_are_left_alone(
    project: Cloud, iam: FakeProject, deployment: DeployContext
) -> None:
    """No policy is set, and nothing is said."""
    with pytest.raises(ClusterError):
        provision(deployment, bind=True)
    changes = iam.policy.changes, iam.bucket_policy.changes
    project.said.clear()

    with pytest.raises(ClusterError):
        provision(deployment, bind=True)

    assert (iam.policy.changes, iam.bucket_policy.changes) == changes
    assert not any("IAM" in line for line in project.said)


@pytest.mark.parametrize(
    ("hidden", "number"),
    [
        (":getIamPolicy", NUMBER),
        ("/storage/v1/b/", NUMBER),
        ("/v3/projects/some-project", "PROJECT_NUMBER"),
    ],
)
def test_a_policy_that_may_not_be_read_is_not_waited_for(
    project: Cloud,
    iam: FakeProject,
    deployment: DeployContext,
    hidden: str,
    number: str,
) -> None:
    """The commands are printed once; whether they are needed shows in the reaper's check."""
    iam.hidden.add(hidden)

    with pytest.raises(ClusterError) as raised:
        provision(deployment, bind=True)

    assert not isinstance(raised.value, MissingBindingsError)
    (line,) = [line for line in project.said if "gcloud" in line]
    assert "could not be checked" in line
    assert f"/projects/{number}/" in line
    assert iam.policy.changes == 0


def test_an_outage_of_iam_is_no_obstacle(
    project: Cloud, iam: FakeProject, deployment: DeployContext
) -> None:
    """As with a policy that may not be read: the cluster is not removed for it."""
    del iam
    nowhere = GoogleRest(AuthorizedSession(AnonymousCredentials()), _NOWHERE)
    unreachable = replace(deployment, clients=replace(deployment.clients, rest=nowhere))

    with pytest.raises(ClusterError) as raised:
        provision(unreachable)

    assert not isinstance(raised.value, MissingBindingsError)
    (line,) = [line for line in project.said if "gcloud" in line]
    assert "does not respond" in line


def test_a_role_that_was_deleted_is_restored(
    iam: FakeProject, deployment: DeployContext, rest: GoogleRest
) -> None:
    """Google keeps its name for a while, and refuses a new one of it."""
    cluster_role = "projects/some-project/roles/daskHpsearchReaper"
    iam.own_roles[cluster_role] = ["container.clusters.get"]
    iam.deleted_roles.add(cluster_role)

    with pytest.raises(ClusterError):
        provision(deployment, bind=True)

    assert nothing_missing(deployment, rest)
    assert iam.deleted_roles == set()


def test_without_workload_identity_nothing_is_bound(
    project: Cloud, bucket: str, iam: FakeProject, rest: GoogleRest
) -> None:
    """Pods then have the rights of the nodes' account, which has its own."""
    pools = {
        "system": {"metadata": "GCE_METADATA"},
        "workers": {"metadata": "GCE_METADATA"},
    }
    made = context(project, bucket, workload_identity=False, pools=pools)
    deployment = replace(made, clients=replace(project.clients, rest=rest))

    with pytest.raises(ClusterError):
        provision(deployment, bind=True)

    assert iam.policy.changes == 0
