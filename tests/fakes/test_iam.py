"""The fake IAM answers as Google's does: conditions, versions, etags, identity pools."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes import conditions
from tests.fakes.conditions import ConditionSyntaxError, holds
from tests.fakes.iam import FakePolicy, RestRefused
from tests.fakes.project import ONE_CLUSTER, PODS, WORKLOAD_POOL

ZONAL = "projects/some-project/locations/europe-west4-a/clusters/searches"
REGIONAL = "projects/some-project/locations/europe-west4/clusters/searches"


def test_clusters_have_other_names_in_conditions() -> None:
    """Zonal ones are of zones, regional ones of locations; the type is a plural."""
    zonal, regional = conditions.cluster(ZONAL), conditions.cluster(REGIONAL)

    assert zonal.name == ZONAL.replace("/locations/", "/zones/")
    assert regional.name == REGIONAL
    assert zonal.type == "container.googleapis.com/Clusters"


def test_a_condition_of_a_type_that_is_not_there_excludes_nothing() -> None:
    """``!= 'container.googleapis.com/Cluster'`` holds for every cluster."""
    always = f"resource.type != 'container.googleapis.com/Cluster' || {ONE_CLUSTER}"

    assert holds(always, conditions.cluster(ZONAL.replace("searches", "theirs")))
    assert not holds(
        ONE_CLUSTER, conditions.cluster(ZONAL.replace("searches", "theirs"))
    )
    assert holds(ONE_CLUSTER, conditions.cluster(ZONAL))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("resource.name.startsWith('projects/_/buckets/b/objects/runs/')", True),
        ("resource.name.startsWith('projects/_/buckets/b/objects/other/')", False),
        ('resource.type == "storage.googleapis.com/Bucket"', False),
        ("!(resource.type == 'storage.googleapis.com/Bucket')", True),
        ("resource.service == 'storage.googleapis.com'", True),
        (
            "resource.type == 'x' || resource.type != 'y' && resource.name == 'z'",
            False,
        ),
    ],
)
def test_expressions_are_evaluated(expression: str, expected: bool) -> None:  # noqa: FBT001 (a parameter)
    """And binds more strongly than or."""
    assert holds(expression, conditions.stored_object("b", "runs/x")) is expected


@pytest.mark.parametrize("expression", ["", "resource.name ==", "a.b == 'c'", "true ("])
def test_what_is_no_expression_is_refused(expression: str) -> None:
    """As when a policy with it is set."""
    with pytest.raises(ConditionSyntaxError):
        holds(expression, conditions.project("p"))


def bound(member: str, condition: dict[str, str] | None = None) -> dict[str, Any]:
    """Return a binding."""
    binding: dict[str, Any] = {"role": "roles/r", "members": [member]}
    return binding | ({"condition": condition} if condition else {})


@pytest.mark.parametrize(
    "member", [PODS, f"serviceAccount:{WORKLOAD_POOL}[dask-hpsearch/default]"]
)
def test_a_principal_of_no_pool_is_refused(member: str) -> None:
    """The pool exists once there was a cluster with Workload Identity."""
    policy = FakePolicy()

    with pytest.raises(RestRefused, match="Identity Pool does not exist"):
        policy.write({"bindings": [bound(member)]}, ())
    policy.write({"bindings": [bound(member)]}, {WORKLOAD_POOL})

    assert policy.bindings == [bound(member)]


def test_a_change_of_what_has_changed_is_refused() -> None:
    """The etag is that of the policy that was read."""
    policy = FakePolicy({"roles/r": ["user:a"]})
    read = policy.read(3, strict=False)
    policy.roles["roles/r"].append("user:b")

    with pytest.raises(RestRefused, match="concurrent"):
        policy.write(read, ())


def test_conditions_need_version_3() -> None:
    """Older readers see other roles, or nothing; older writers are refused."""
    condition = {"title": "t", "expression": "resource.name == 'x'"}
    policy = FakePolicy({}, [bound("user:a", condition)])

    (shown,) = policy.read(1, strict=False)["bindings"]
    assert shown["role"].startswith("roles/r_withcond_")
    with pytest.raises(RestRefused, match="version"):
        policy.read(1, strict=True)
    with pytest.raises(RestRefused, match="version 3"):
        policy.write({"bindings": [bound("user:a", condition)], "version": 1}, ())
