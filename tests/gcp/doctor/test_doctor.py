"""What a project lacks is named, with the one command that mends it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession

from dask_hpsearch.cli import main
from dask_hpsearch.exceptions import CloudUnreachableError
from dask_hpsearch.gcp.doctor.doctor import examine
from dask_hpsearch.gcp.doctor.findings import Report
from dask_hpsearch.gcp.rest import GoogleRest, with_retries
from tests.fakes import gcloud
from tests.fakes.iam import RestRefused
from tests.fakes.project import (
    BUILDER,
    FOLDER,
    NODES,
    OPERATIONS_ROLE,
    POD_ROLE,
    PODS,
    PROJECT,
    REAPER,
    SERVICES,
    TOKEN,
    FakeProject,
    project_at,
)
from tests.fakes.tokens import users_login
from tests.gcp.doctor.defects import DEFECTS, HIDING, replace_pods
from tests.gcp.specs import SMALL, spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def project() -> FakeProject:
    """A project that has all that it needs."""
    return FakeProject()


@pytest.fixture
def url(project: FakeProject) -> Iterator[str]:
    """Where it is."""
    with project_at(project) as url:
        yield url


@pytest.fixture
def look(url: str) -> Iterator[Callable[..., Report]]:
    """Examine the project for a spec."""
    with AuthorizedSession(AnonymousCredentials()) as session:
        session.headers["x-goog-user-project"] = PROJECT  # as of a user's credentials
        rest = GoogleRest(with_retries(session), dict.fromkeys(SERVICES, url))

        def look(**changes: Any) -> Report:
            return examine(spec(**changes), rest=rest)

        yield look


def test_a_project_that_has_all_is_well(look: Callable[..., Report]) -> None:
    """Nothing is found, and nothing is said."""
    assert look().ok
    assert str(look()) == "no problems found"


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_named_with_its_mend(
    defect: str, project: FakeProject, look: Callable[..., Report]
) -> None:
    """One finding, and the command that mends it."""
    make, mend = DEFECTS[defect]
    make(project)

    report = look()

    assert [mend in one.command for one in report.findings] == [True], report
    assert report.unchecked == ()


@pytest.mark.parametrize(
    "defect",
    [
        name
        for name in DEFECTS
        if any(
            word in name for word in ("reaper", "operations", "pods", "pool", "bind")
        )
    ],
)
def test_the_printed_command_mends_it(
    defect: str, project: FakeProject, look: Callable[..., Report]
) -> None:
    """Pasted into a terminal, it leaves nothing to be found."""
    DEFECTS[defect][0](project)

    gcloud.run(project, str(look()))

    assert look().ok, look()


def test_all_defects_are_named_at_once(
    project: FakeProject, look: Callable[..., Report]
) -> None:
    """Who mends them one by one does not look again after each."""
    project.cluster_came("searches")  # else no binding could name its identity pool
    names = [name for name in DEFECTS if name not in HIDING]
    for name in names:
        DEFECTS[name][0](project)

    found = " ".join(one.command for one in look().findings)

    for name in names:
        assert DEFECTS[name][1] in found, name


def test_there_are_enough_defects() -> None:
    """Quotas and builds have more of their own elsewhere."""
    assert len(DEFECTS) >= 30


def test_a_project_without_identity_pool_waits_for_its_first_cluster(
    project: FakeProject, look: Callable[..., Report]
) -> None:
    """The bindings that need the pool are named apart: they hinder no cluster."""
    project.pools.clear()
    project.policy.conditional.clear()
    del project.roles[OPERATIONS_ROLE]
    project.bucket_policy.conditional.clear()

    report = look()

    assert report.ok
    text = str(report)
    assert "first GKE cluster" in text
    assert "Identity Pool does not exist" in text
    assert [one.needs_pool for one in report.waiting] == [True] * 3
    for part in (PODS, REAPER, "storage buckets add-iam-policy-binding"):
        assert part in text
    with pytest.raises(RestRefused, match="Identity Pool does not exist"):
        gcloud.run(project, text)
    project.cluster_came("first")
    gcloud.run(project, text)
    assert look() == Report()


def test_roles_wait_with_their_bindings(
    project: FakeProject, look: Callable[..., Report]
) -> None:
    """A project before its first GKE cluster has no problem: ``up`` makes roles and bindings."""
    project.pools.clear()
    project.own_roles.clear()
    project.policy.conditional.clear()
    del project.roles[OPERATIONS_ROLE]
    project.bucket_policy.conditional.clear()

    report = look()

    assert report.ok, report
    assert len(report.waiting) == 5
    project.cluster_came("first")
    gcloud.run(project, str(report))
    assert look() == Report()


def test_pods_that_may_use_the_whole_bucket_are_reported(
    project: FakeProject, look: Callable[..., Report]
) -> None:
    """A binding of earlier versions works: it is advised against, with what narrows it."""
    replace_pods(project, PODS)
    project.bucket_roles["roles/storage.objectAdmin"] = ["user:ada", PODS]

    report = look()

    assert report.ok
    (found,) = report.advice
    assert "all of the bucket 'some-bucket', not only 'gs://some-bucket/runs'" in (
        found.problem
    )
    gcloud.run(project, str(report))
    assert look() == Report()
    assert project.bucket_roles["roles/storage.objectAdmin"] == ["user:ada"]
    assert project.bucket_roles[POD_ROLE] == [f"serviceAccount:{BUILDER}"]
    (narrow,) = project.bucket_policy.conditional
    assert narrow["condition"]["expression"] == FOLDER


def test_pods_that_may_use_all_buckets_are_reported(
    project: FakeProject, look: Callable[..., Report]
) -> None:
    """A role of the project is wider still; the bucket's own store needs no folder."""
    project.roles["roles/storage.admin"] = [PODS]

    report = look()

    assert report.ok
    (found,) = report.advice
    assert found.command.startswith("gcloud projects remove-iam-policy-binding")
    assert look(store="gs://some-bucket").advice == ()
    gcloud.run(project, str(report))
    assert look() == Report()


def test_a_pool_that_exists_is_not_waited_for(
    project: FakeProject, look: Callable[..., Report]
) -> None:
    """A cluster of any name has brought it: the bindings can be made now."""
    project.cluster_came("of-others")
    project.policy.conditional.clear()

    report = look()

    assert [one.about for one in report.findings] == ["reaper"]
    assert report.waiting == ()


def test_a_regional_cluster_has_another_name_in_its_condition(
    project: FakeProject, look: Callable[..., Report]
) -> None:
    """It is one of a location, not of a zone; so is its reaper's account."""
    regional = {"location": "europe-west4", "zones": ["europe-west4-a"]}

    report = look(**regional)

    (binding, operations) = [one for one in report.findings if one.about == "reaper"]
    own = f"projects/{PROJECT}/locations/europe-west4/clusters/searches"
    assert f"resource.name == '{own}'" in binding.command
    assert "sa/reaper-searches-europe-west4" in operations.command
    gcloud.run(project, str(report))
    assert look(**regional).ok
    assert look().ok


def test_a_team_may_share_a_folder(
    project: FakeProject, look: Callable[..., Report]
) -> None:
    """A condition of a folder that contains the store's will do; one beside it will not."""
    replace_pods(project, PODS, FOLDER.replace("/runs/", "/team/"))

    assert look(store="gs://some-bucket/team/runs").ok
    (found,) = look(store="gs://some-bucket/team-b/runs").findings
    assert "objects/team-b/runs/')" in found.command


def test_a_store_without_folder_has_no_condition(
    project: FakeProject, look: Callable[..., Report]
) -> None:
    """Then pods may use the whole bucket."""
    project.bucket_policy.conditional.clear()

    (found,) = look(store="gs://some-bucket").findings

    assert "--condition" not in found.command


@pytest.mark.parametrize(
    ("bucket", "location"),
    [("EU", "europe-west4-a"), ("US", "us-central1-a"), ("ASIA", "asia-east1-a")],
)
def test_a_bucket_of_the_whole_continent_will_do(
    bucket: str, location: str, project: FakeProject, look: Callable[..., Report]
) -> None:
    """Google names Europe's differently than the regions there."""
    assert project.bucket is not None
    project.bucket["location"] = bucket

    found = look(location=location).findings

    assert "bucket" not in [one.about for one in found]


def test_a_channel_without_a_known_version_is_no_obstacle(
    project: FakeProject, look: Callable[..., Report]
) -> None:
    """Nor is an old one for a spec that leaves the notice as it is."""
    project.channels["REGULAR"] = "1.33.5-gke.1080000"
    workers = {"pools": {"workers": {"grace": None}}}

    (found,) = look().findings

    assert "pools.workers.grace 120 needs 1.35.0-gke.1171000" in found.problem
    assert look(**workers).ok
    assert look(release_channel="RAPID").ok
    project.channels.clear()
    assert look().ok


def test_conditions_of_others_are_no_obstacle(
    project: FakeProject, look: Callable[..., Report]
) -> None:
    """A policy with conditions is read as one of version 3."""
    condition = {"title": "t", "expression": "resource.name == 'x'"}
    theirs = {"role": "roles/x", "members": ["user:a"], "condition": condition}
    project.bucket_policy.conditional.append(theirs)
    project.policy.conditional.append(theirs)

    assert look().ok


@pytest.mark.parametrize("network", ["default", "projects/{}/global/networks/default"])
def test_a_shared_network_is_looked_for_in_its_host_project(
    network: str, project: FakeProject, look: Callable[..., Report]
) -> None:
    """Its path names the project; commands are about that project."""
    project.host = PROJECT if "/" not in network else "host-project"
    path = {"network": network.format("host-project")}
    assert look(network=path).ok
    project.private_access = False

    (found,) = look(network=path).findings

    assert f"subnets update default --project={project.host} " in found.command
    project.networks.clear()
    (found,) = look(network=path).findings
    assert f"networks create default --project={project.host}" in found.command


def test_a_shared_subnetwork_is_looked_for_in_its_host_project(
    project: FakeProject, look: Callable[..., Report]
) -> None:
    """As the network is."""
    project.host = "host-project"
    path = {
        "network": "projects/host-project/global/networks/default",
        "subnetwork": "projects/host-project/regions/europe-west4/subnetworks/default",
    }

    assert look(network=path).ok
    project.subnetworks.clear()

    (found,) = look(network=path).findings
    assert "subnets create default --project=host-project" in found.command


def test_each_fact_is_asked_for_once(
    project: FakeProject, look: Callable[..., Report]
) -> None:
    """Several checks need the same policy: a far service is not asked again."""
    look()

    assert len(set(project.seen)) == len(project.seen)
    assert len(project.seen) < 30


def test_what_may_not_be_looked_at_is_said(
    project: FakeProject, look: Callable[..., Report]
) -> None:
    """And stops no other check."""
    project.hidden.add(":getIamPolicy")
    project.quotas["PREEMPTIBLE_CPUS"] = (8, 8)

    report = look()

    assert not report.ok
    assert any("role bindings" in one for one in report.unchecked)
    assert [one.about for one in report.findings] == ["quota"]


@pytest.mark.parametrize(
    ("part", "api"),
    [
        ("/v3/projects", "cloudresourcemanager.googleapis.com"),
        ("/billingInfo", "cloudbilling.googleapis.com"),
        (":batchGet", "serviceusage.googleapis.com"),
        ("/compute/", "compute.googleapis.com"),
    ],
)
def test_an_api_that_a_check_needs_is_named_once(
    part: str, api: str, project: FakeProject, look: Callable[..., Report]
) -> None:
    """Whichever check meets it first."""
    project.disabled[part] = api
    project.enabled.discard(api)

    report = look()

    enable = f"gcloud services enable {api} --project={PROJECT}"
    assert [one.command for one in report.findings] == [enable]
    assert report.unchecked == ()


def test_spot_machines_without_a_quota_of_their_own_use_the_familys(
    project: FakeProject, look: Callable[..., Report]
) -> None:
    """As Compute Engine counts them."""
    project.quotas |= {"PREEMPTIBLE_CPUS": (0, 0), "N2_CPUS": (8, 0)}

    (found,) = look().findings

    assert "N2_CPUS" in found.problem
    assert "--quota-id=N2-CPUS-per-project-region" in found.command


def test_a_role_of_the_project_will_do_for_the_bucket(
    project: FakeProject, look: Callable[..., Report]
) -> None:
    """Who may use all buckets may use this one."""
    project.bucket_roles.clear()
    project.bucket_policy.conditional.clear()
    project.roles["roles/storage.objectAdmin"] = [PODS, f"serviceAccount:{BUILDER}"]

    assert look().ok


def test_nodes_may_lend_pods_their_rights(
    project: FakeProject, look: Callable[..., Report]
) -> None:
    """Without Workload Identity it is the nodes' account that needs the bucket."""
    (found,) = look(workload_identity=False).findings

    assert f"--member=serviceAccount:{NODES}" in found.command


def test_who_sweeps_himself_needs_no_reaper(
    project: FakeProject, look: Callable[..., Report]
) -> None:
    """Then nobody asks for its role."""
    project.own_roles.clear()

    assert look(reaper=False).ok


def test_a_ready_image_needs_no_builds(
    project: FakeProject, look: Callable[..., Report]
) -> None:
    """Then nobody asks what builds may do."""
    project.roles.pop("roles/artifactregistry.writer")

    assert look(image="example.org/image:1.0").ok


def test_a_short_outage_is_not_noticed(
    project: FakeProject, look: Callable[..., Report]
) -> None:
    """A 503 is asked again."""
    project.outages = 2

    assert look().ok


def test_who_does_not_answer_is_named() -> None:
    """With the address that was tried."""
    with project_at(FakeProject()) as url:
        pass
    session = AuthorizedSession(AnonymousCredentials())
    rest = GoogleRest(session, dict.fromkeys(SERVICES, url))

    with session, pytest.raises(CloudUnreachableError, match="does not respond"):
        examine(spec(), rest=rest)


def test_the_command_prints_findings_and_no_token(
    project: FakeProject,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Logged in with a key file; the token that comes of it is shown nowhere."""
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(SMALL))
    key = tmp_path / "key.json"
    key.write_text(json.dumps(account_key(f"{url}/token")))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))
    addresses = [f"--address={service}={url}" for service in SERVICES]
    caplog.set_level("DEBUG")

    well = main(["doctor", str(tmp_path / "spec.yaml"), *addresses])
    project.billing = False
    ill = main(["doctor", str(tmp_path / "spec.yaml"), *addresses])

    assert (well, ill) == (0, 1)
    shown = capsys.readouterr()
    assert "has everything that" in shown.out
    assert "1. billing: the project" in shown.out
    assert TOKEN not in shown.out + shown.err + caplog.text


def test_a_users_requests_count_for_the_project(
    project: FakeProject, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a quota project, some services answer for the project of gcloud itself."""
    log_in(tmp_path, monkeypatch, url)

    report = examine(spec(), addresses=dict.fromkeys(SERVICES, url))

    assert report.ok, report
    paths = [path for _, path in project.seen if path != "/token"]
    assert project.quota_projects == [PROJECT] * len(paths)


def test_a_quota_project_of_the_environment_comes_first(
    project: FakeProject, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in Google's own libraries."""
    log_in(tmp_path, monkeypatch, url)
    monkeypatch.setenv("GOOGLE_CLOUD_QUOTA_PROJECT", "another-project")

    examine(spec(), addresses=dict.fromkeys(SERVICES, url))

    assert set(project.quota_projects) == {"another-project"}


def log_in(folder: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Log in as a user."""
    file = users_login(folder, url)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    monkeypatch.delenv("GOOGLE_CLOUD_QUOTA_PROJECT", raising=False)


def test_without_credentials_the_log_in_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And nothing else is asked."""
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(SMALL))
    (tmp_path / "key.json").write_text("{}")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))

    code = main(["doctor", str(tmp_path / "spec.yaml")])

    assert code == 1
    assert "gcloud auth application-default login" in capsys.readouterr().out


def account_key(token_uri: str) -> dict[str, str]:
    """Make a service account's key, whose tokens come from a fake."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return {
        "type": "service_account",
        "project_id": PROJECT,
        "private_key_id": "1",
        "private_key": pem.decode(),
        "client_email": f"me@{PROJECT}.iam.gserviceaccount.com",
        "token_uri": token_uri,
    }
