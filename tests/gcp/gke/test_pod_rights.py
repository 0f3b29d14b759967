"""What pods may do with the bucket once a user has run the command that is printed for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dask_hpsearch.gcp.gke.identities import pods_binding
from tests.fakes import gcloud
from tests.fakes.conditions import bucket, stored_object
from tests.fakes.iam import FakePolicy
from tests.fakes.project import NUMBER, FakeProject
from tests.gcp.specs import SMALL, spec

if TYPE_CHECKING:
    from tests.fakes.conditions import Resource

GET, CREATE, LIST = (f"storage.objects.{verb}" for verb in ("get", "create", "list"))
ROLES = {"roles/storage.objectUser": [GET, CREATE, "storage.objects.delete", LIST]}
TEAMS = {
    team: spec(
        store=f"gs://some-bucket/{team}/runs",
        dask={"namespace": team, "workers": SMALL["dask"]["workers"]},
    )
    for team in ("ada", "ada-b")
}


@pytest.fixture
def policy() -> FakePolicy:
    """The bucket's policy, after two teams were set up."""
    project = FakeProject(bucket_policy=FakePolicy())
    for one in TEAMS.values():
        gcloud.run(project, pods_binding(one, NUMBER).command)
    return project.bucket_policy


def may(policy: FakePolicy, team: str, permission: str, resource: Resource) -> bool:
    """Whether a team's pods may do something."""
    member = pods_binding(TEAMS[team], NUMBER).member
    return policy.allows(ROLES, member, permission, resource)


@pytest.mark.parametrize("team", TEAMS)
def test_pods_use_their_own_folder(policy: FakePolicy, team: str) -> None:
    """They read, write and list."""
    own = stored_object("some-bucket", f"{team}/runs/1/manifest.json")

    assert may(policy, team, GET, own)
    assert may(policy, team, CREATE, own)
    assert may(policy, team, LIST, bucket("some-bucket"))


def test_pods_of_one_team_have_nothing_of_another(policy: FakePolicy) -> None:
    """Not even of one whose name begins like theirs, nor builds, nor the bucket's root."""
    for name in ("ada-b/runs/1", "ada/runs-old/1", "dask-hpsearch-builds/x", "1"):
        theirs = stored_object("some-bucket", name)
        for permission in (GET, CREATE, "storage.objects.delete"):
            assert not may(policy, "ada", permission, theirs), name


def test_other_namespaces_have_nothing(policy: FakePolicy) -> None:
    """Of this cluster or of another one."""
    member = pods_binding(TEAMS["ada"], NUMBER).member.replace("/ada", "/eve")

    assert not policy.allows(ROLES, member, LIST, bucket("some-bucket"))
