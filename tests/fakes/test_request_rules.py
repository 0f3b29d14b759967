"""What is asked of Google has only fields, values and combinations that Google accepts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from google.cloud import container_v1 as v1

from dask_hpsearch.gcp.gke import requests
from dask_hpsearch.gcp.gke.labels import for_cluster
from dask_hpsearch.gcp.images.builds import BuildFiles, build_request
from dask_hpsearch.gcp.images.images import repository_of
from tests.fakes.request_rules import check, described_fields, problems, rules, walk
from tests.fakes.serving import Refused
from tests.gcp.gke.test_requests import CHANGES, POOL_CHANGES
from tests.gcp.specs import spec

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.cloud.devtools import cloudbuild_v1 as builds_v1


def cluster(**changes: Any) -> v1.Cluster:
    """Return the GKE cluster that a spec asks for."""
    loaded = spec(**changes)
    labels = for_cluster(loaded, expires_at=1_800_000_000.0, creation="0" * 32)
    return requests.cluster(loaded, labels)


def build() -> builds_v1.Build:
    """Return the build that a spec asks for."""
    files = BuildFiles("gs://some-bucket/builds", "source.tgz", 1)
    return build_request(repository_of(spec()), "a-tag", files, python="3.11")


MADE: dict[str, Callable[[], Any]] = {
    "Cluster": cluster,
    "NodePool": lambda: requests.pool(spec(), requests.WORKERS),
    "Build": build,
}


def put(message: Any, path: str, value: Any) -> None:
    """Set a field; of a repeated message, in its first."""
    *parents, name = path.split(".")
    for parent in parents:
        message = getattr(message, parent)
        message = message[0] if hasattr(message, "append") else message
    setattr(message, name, value)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        *[change for change, _, _ in CHANGES if "workload_identity" not in change],
        *[{"pools": {"workers": change}} for change, _, _ in POOL_CHANGES],
        {
            "control_plane": {
                "ip_endpoint": True,
                "authorized_networks": ["203.0.113.0/24"],
            }
        },
        {"location": "europe-west4", "zones": ["europe-west4-a", "europe-west4-b"]},
    ],
    ids=str,
)
def test_every_cluster_that_a_spec_asks_for_is_accepted(
    changes: dict[str, Any],
) -> None:
    """Each field is one that may be set, with a value that exists."""
    wanted = cluster(**changes)

    assert problems(wanted) == []
    for part in (wanted, *wanted.node_pools):
        check(part)


@pytest.mark.parametrize(
    "account", [None, "builder@some-project.iam.gserviceaccount.com"]
)
def test_every_build_is_accepted(account: str | None) -> None:
    """With Cloud Build's account, and with one of the project."""
    wanted = build()
    if account is not None:
        wanted.service_account = f"projects/some-project/serviceAccounts/{account}"

    check(wanted)


@pytest.mark.parametrize("rule", rules(), ids=lambda one: str(one["example"])[:50])
def test_a_combination_that_google_refuses_is_refused(rule: dict[str, Any]) -> None:
    """One change to a request that is right; every rule has a source."""
    wanted = MADE[rule["request"]]()
    for path, value in rule["example"].items():
        put(wanted, path, value)

    with pytest.raises(Refused) as refused:
        check(wanted)

    assert refused.value.status.message.startswith(rule["message"].partition("{")[0])
    assert rule["source"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda one: setattr(one, "status", "RUNNING"), "status is set"),
        (lambda one: setattr(one, "zone", "europe-west4-a"), "zone is set"),
        (
            lambda one: setattr(one.node_pools[0], "status", "RUNNING"),
            "node_pools.status is set",
        ),
        (
            lambda one: setattr(one.release_channel, "channel", 99),
            "release_channel.channel has no value 99",
        ),
        (
            lambda one: v1.Cluster.pb(one).MergeFromString(b"\xfa\xff\x07\x01x"),
            "unknown fields in Cluster",
        ),
    ],
)
def test_a_field_that_cannot_be_asked_for_is_named(
    change: Callable[[Any], None], says: str
) -> None:
    """What Google only returns, and values that do not exist."""
    wanted = cluster()
    change(wanted)

    assert [says in one for one in problems(wanted)] == [True]


def test_all_fields_that_are_set_are_looked_at() -> None:
    """Those of parts, too, and each is described by the installed client."""
    found = {one.path: one for one in walk(cluster())}

    for path in (
        "name",
        "node_pools.config.shielded_instance_config.enable_secure_boot",
        "node_pools.config.taints.effect",
        "control_plane_endpoints_config.dns_endpoint_config.allow_external_traffic",
    ):
        assert found[path].described, path
    assert set(described_fields(v1.NodeConfig)) == set(v1.NodeConfig.meta.fields)
