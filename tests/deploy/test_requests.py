"""What Google is asked for from first to last: every request, and every field of each."""

from __future__ import annotations

import copy
from itertools import groupby
from typing import TYPE_CHECKING, Any

import pytest

from dask_hpsearch.deploy.deprovision import deprovision, deprovision_unused
from dask_hpsearch.deploy.images import ensure_image
from dask_hpsearch.deploy.provision import provision
from dask_hpsearch.exceptions import ClusterError
from tests.deploy.contexts import context
from tests.fakes.expected import check_calls, check_contents, content_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.cloud import Cloud

LOOKS = ("Get", "List")
# All requests, but for those that are repeated until something has ended.
REQUESTS = [
    *("GetCluster", "GetTag"),
    *("GetRepository", "CreateRepository", "GetOperation"),
    *("ListBuilds", "CreateBuild", "GetBuild"),
    *("GetVersion", "UpdateVersion"),
    *("GetCluster", "CreateCluster", "GetOperation", "GetCluster"),
    *("GetTag", "GetVersion"),
    # Kubernetes does not answer: all is taken down again
    *("GetCluster", "DeleteCluster", "GetOperation", "GetCluster"),
    *("GetRepository", "ListVersions", "DeleteVersion", "GetOperation"),
    *("ListPackages", "DeleteRepository", "GetOperation"),
    "ListClusters",
]


@pytest.mark.parametrize(
    "changes",
    [
        {"owner": "ada"},
        {  # as the spec is that is used with a Kubernetes
            "owner": "ada",
            "labels": {},
            "reaper": False,
            "control_plane": {
                "dns_endpoint": False,
                "ip_endpoint": True,
                "authorized_networks": ["127.0.0.0/8"],
            },
        },
        {
            "location": "europe-west4",
            "zones": ["europe-west4-b", "europe-west4-c"],
            "name": "other",
            "owner": "bob",
            "labels": {"team": "research", "cost-center": "12"},
            "registry": "images",
            "ttl_hours": 2,
            "build_service_account": "builder@some-project.iam.gserviceaccount.com",
        },
    ],
    ids=["zonal", "by-address", "regional"],
)
def test_google_is_asked_for_exactly_what_the_spec_says(
    project: Cloud, bucket: str, changes: dict[str, Any]
) -> None:
    """On the way up and down; and nothing else is asked, or looked at."""
    deployment = context(project, bucket, **changes)

    with pytest.raises(ClusterError):
        provision(deployment)

    check_calls(project.traffic.calls, deployment.spec)
    assert [
        name for name, _ in groupby(one for one, _ in project.traffic.calls)
    ] == REQUESTS


def test_who_leaves_a_cluster_to_others_changes_its_labels_alone(
    project: Cloud, bucket: str
) -> None:
    """Nobody can tell whether they use it; it goes when it is said to."""
    deployment = context(project, bucket, owner="ada")
    ensure_image(deployment)
    deployment.gke.ensure(deployment.spec, claim=deployment.claim)

    deprovision_unused(deployment)
    deprovision(deployment)

    assert len(project.traffic.named("SetLabels")) == 1
    check_calls(project.traffic.calls, deployment.spec)


def test_any_other_request_is_told(project: Cloud, bucket: str) -> None:
    """With a field that is missing or has another value, or one too many or too few."""
    deployment = context(project, bucket, owner="ada")
    with pytest.raises(ClusterError):
        provision(deployment)
    asked = [(name, content_of(request)) for name, request in project.traffic.calls]
    check_contents(asked, deployment.spec)

    unlike = 0
    for number, (name, content) in enumerate(asked):
        before, after = asked[:number], asked[number + 1 :]
        for other in others(content):
            with pytest.raises((AssertionError, LookupError)):
                check_contents([*before, (name, other), *after], deployment.spec)
            unlike += 1
        if not name.startswith(LOOKS):
            with pytest.raises((AssertionError, LookupError)):
                check_contents([*before, *after], deployment.spec)
            twice = [(name, content)] * 2
            with pytest.raises(AssertionError):
                check_contents([*before, *twice, *after], deployment.spec)
    assert unlike > 200
    with pytest.raises(AssertionError):
        check_contents([*asked, ("GetCluster", {"name": "theirs"})], deployment.spec)


def others(content: Any) -> Iterator[Any]:
    """Yield a request's content with one field left out, or with another value."""
    places = range(len(content)) if isinstance(content, list) else list(content)
    for place in places:
        left_out = copy.copy(content)
        del left_out[place]
        yield left_out
        for value in another(content[place]):
            changed = copy.copy(content)
            changed[place] = value
            yield changed


def another(value: Any) -> Iterator[Any]:
    """Yield values that are not this one."""
    if isinstance(value, (dict, list)):
        yield from others(value)
    elif isinstance(value, bool):
        yield not value
    else:
        yield value + ("x" if isinstance(value, str) else 1)
