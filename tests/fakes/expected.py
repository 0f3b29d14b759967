"""What Google is asked for on the way from an empty project to a cluster, and back: literally.

Written by hand, not by the code that is under test. Fields of which the specs of the tests
say something are theirs; all others are what a careful engineer would set.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

from dask_hpsearch._version import __version__
from dask_hpsearch.gcp.gke.labels import expiry
from tests.fakes.clock import START
from tests.fakes.serving import raw

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dask_hpsearch.config.gke import GKESpec

Call = tuple[str, dict[str, Any]]
_LOOKS = ("Get", "List")
_TAG = re.compile(rf"{re.escape(__version__)}-[0-9a-f]{{12}}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_A_WHILE_S = 3600  # that a cluster may take to come, in fake time


def check_calls(calls: Iterable[tuple[str, Any]], spec: GKESpec) -> None:
    """See that exactly what is expected was asked for, each field as the spec says.

    Parameters
    ----------
    calls : iterable of (str, message)
        As `Traffic.calls` has them, from the first to the last.
    spec : GKESpec
        Of the cluster that came and went.
    """
    check_contents([(name, content_of(request)) for name, request in calls], spec)


def check_contents(asked: Sequence[Call], spec: GKESpec) -> None:
    """See the same of what `content_of` has made of the requests."""
    changes = [one for one in asked if not one[0].startswith(_LOOKS)]
    tag, digest = _tag_and_digest(changes)
    labels = dict(changes)["CreateCluster"]["cluster"]["resource_labels"]
    wanted = expected_changes(spec, tag, digest, labels)
    if "SetLabels" not in dict(changes):  # only where it is left to others
        wanted = [one for one in wanted if one[0] != "SetLabels"]
    assert [name for name, _ in changes] == [name for name, _ in wanted]
    wrong = [
        line
        for (name, found), (_, right) in zip(changes, wanted, strict=True)
        for line in differences(found, right, name)
    ]
    assert wrong == []
    looks = expected_looks(spec, tag, digest)
    strange = [
        (name, found)
        for name, found in asked
        if name.startswith(_LOOKS)
        and all(differences(found, right, name) for right in looks.get(name, []))
    ]
    assert strange == []
    _check_times(labels, spec)


def content_of(request: Any) -> dict[str, Any]:
    """Return the fields of a request that are set."""
    found: dict[str, Any] = json_format.MessageToDict(
        raw(request), preserving_proto_field_name=True
    )
    return found


def differences(found: Any, wanted: Any, where: str) -> list[str]:
    """Tell where a request is another; a pattern stands for a text that is random."""
    if isinstance(wanted, re.Pattern):
        matches = isinstance(found, str) and wanted.fullmatch(found)
        return [] if matches else [f"{where} is {found!r}, not as {wanted.pattern}"]
    if isinstance(wanted, dict) and isinstance(found, dict):
        unlike = [
            f"{where}.{name} is {'missing' if name in wanted else repr(found[name])}"
            for name in sorted(wanted.keys() ^ found.keys())
        ]
        both = sorted(wanted.keys() & found.keys())
        parts = [differences(found[n], wanted[n], f"{where}.{n}") for n in both]
        return [*unlike, *(line for part in parts for line in part)]
    if isinstance(wanted, list) and isinstance(found, list):
        if len(wanted) != len(found):
            return [f"{where} has {len(found)} parts, not {len(wanted)}: {found}"]
        pairs = enumerate(zip(found, wanted, strict=True))
        parts = [differences(one, other, f"{where}[{n}]") for n, (one, other) in pairs]
        return [line for part in parts for line in part]
    return [] if found == wanted else [f"{where} is {found!r}, not {wanted!r}"]


def _tag_and_digest(changes: list[Call]) -> tuple[str, str]:
    """Read the image's tag and digest, which its content decides, where they come first."""
    by_name = dict(changes)
    tag = by_name["CreateBuild"]["build"]["images"][0].rpartition(":")[2]
    digest = by_name["UpdateVersion"]["version"]["name"].rpartition("/")[2]
    assert _TAG.fullmatch(tag), tag
    assert _DIGEST.fullmatch(digest), digest
    return tag, digest


def _check_times(labels: dict[str, str], spec: GKESpec) -> None:
    (claim,) = [value for name, value in labels.items() if name.startswith("claim-")]
    for text, hours in ((labels["expires-at"], spec.ttl_hours), (claim, 1)):
        ends = expiry({"expires-at": text})
        assert ends is not None
        assert 0 <= ends - (START + 3600 * hours) <= _A_WHILE_S


def expected_changes(
    spec: GKESpec, tag: str, digest: str, labels: dict[str, str]
) -> list[Call]:
    """Return all that is to change something, in its order.

    Parameters
    ----------
    spec : GKESpec
    tag, digest : str
        Of the image.
    labels : dict
        Of the GKE cluster; what is random in them comes again later.
    """
    claims = [name for name in labels if re.fullmatch(r"claim-[0-9a-f]{12}", name)]
    assert len(claims) == 1, claims
    released = {name: text for name, text in labels.items() if name != claims[0]}
    repository = _repository(spec)
    version = f"{repository}/packages/dask-hpsearch/versions/{digest}"
    path = f"projects/{spec.project}/locations/{spec.location}/clusters/{spec.name}"
    zone = spec.location.split("-")[2] if spec.location.count("-") > 1 else "region"
    used = {"managed-by": "dask-hpsearch", f"used-by-{spec.name}.{zone}": "true"}
    return [
        ("CreateRepository", _create_repository(spec)),
        ("CreateBuild", _create_build(spec, tag)),
        (
            "UpdateVersion",
            {
                "version": {"name": version, "annotations": used},
                "update_mask": "annotations",
            },
        ),
        ("CreateCluster", _create_cluster(spec, claims[0])),
        (
            "SetLabels",
            {
                "name": path,
                "resource_labels": released,
                "label_fingerprint": re.compile(r"\S+"),
            },
        ),
        ("DeleteCluster", {"name": path}),
        ("DeleteVersion", {"name": version, "force": True}),
        ("DeleteRepository", {"name": repository}),
    ]


def expected_looks(
    spec: GKESpec, tag: str, digest: str
) -> dict[str, list[dict[str, Any]]]:
    """Return what may be looked at, by the method: nothing but what is the spec's own."""
    project, region = spec.project, spec.region
    home = f"projects/{project}/locations/{spec.location}"
    images = f"projects/{project}/locations/{region}"
    repository = _repository(spec)
    package = f"{repository}/packages/dask-hpsearch"
    build = re.compile(rf"{images}/builds/{_UUID}")
    return {
        "GetCluster": [{"name": f"{home}/clusters/{spec.name}"}],
        "ListClusters": [{"parent": f"projects/{project}/locations/-"}],
        "GetOperation": [
            {"name": re.compile(rf"{home}/operations/operation-\d+")},
            {"name": re.compile(rf"{images}/operations/\d+")},
        ],
        "GetRepository": [{"name": repository}],
        "ListPackages": [{"parent": repository}],
        "ListVersions": [{"parent": package}],
        "GetVersion": [{"name": f"{package}/versions/{digest}"}],
        "GetTag": [{"name": f"{package}/tags/{tag}"}],
        "GetBuild": [
            {"project_id": project, "id": re.compile(_UUID), "name": build},
        ],
        "ListBuilds": [
            {"project_id": project, "parent": parent, "filter": f'tags="{tag}"'}
            for parent in (images, f"projects/{project}/locations/global")
        ],
    }


def _repository(spec: GKESpec) -> str:
    place = f"projects/{spec.project}/locations/{spec.region}"
    return f"{place}/repositories/{spec.registry}"


def _create_repository(spec: GKESpec) -> dict[str, Any]:
    return {
        "parent": f"projects/{spec.project}/locations/{spec.region}",
        "repository_id": spec.registry,
        "repository": {
            "format_": "DOCKER",
            "mode": "STANDARD_REPOSITORY",
            "description": "Images that dask-hpsearch built for its Dask clusters",
            "labels": {**spec.labels, "managed-by": "dask-hpsearch"},
        },
    }


def _create_build(spec: GKESpec, tag: str) -> dict[str, Any]:
    host = f"{spec.region}-docker.pkg.dev"
    image = f"{host}/{spec.project}/{spec.registry}/dask-hpsearch:{tag}"
    folder = f"dask-hpsearch-builds/{spec.location}/{spec.name}"
    source = rf"{folder}/source-{re.escape(tag)}-[0-9a-f]{{8}}\.tgz"
    python = "PYTHON_VERSION={}.{}".format(*sys.version_info)
    build: dict[str, Any] = {
        "source": {
            "storage_source": {
                "bucket": spec.store.split("/")[2],
                "object_": re.compile(source),
                "generation": re.compile(r"[1-9]\d*"),
            }
        },
        "steps": [
            {
                "id": "image",
                "name": "gcr.io/cloud-builders/docker",
                "args": ["build", "--tag", image, "--build-arg", python, "."],
            }
        ],
        "images": [image],
        "tags": ["dask-hpsearch", tag, re.compile(r"try-[0-9a-f]{32}")],
        "timeout": "1800s",
        "queue_ttl": "600s",
        "logs_bucket": f"gs://{spec.store.split('/')[2]}/{folder}",
        "options": {
            "logging": "GCS_ONLY",
            "log_streaming_option": "STREAM_ON",
            "source_provenance_hash": ["SHA256"],
        },
    }
    if spec.build_service_account:
        account = (
            f"projects/{spec.project}/serviceAccounts/{spec.build_service_account}"
        )
        build["service_account"] = account
    return {
        "parent": f"projects/{spec.project}/locations/{spec.region}",
        "project_id": spec.project,
        "build": build,
    }


def _create_cluster(spec: GKESpec, claim: str) -> dict[str, Any]:
    zones = list(spec.zones) or [spec.location]
    time = re.compile(r"\d{4}-\d\d-\d\dt\d\d-\d\d-\d\dz")
    labels = {
        **spec.labels,
        "managed-by": "dask-hpsearch",
        "owner": spec.owner,
        "expires-at": time,
        claim: time,
        "creation": re.compile(r"[0-9a-f]{32}"),
    }
    cluster = {
        "name": spec.name,
        "description": "Dask clusters for hyperparameter searches, made by dask-hpsearch",
        "resource_labels": labels,
        "network": "default",
        "locations": zones,
        "node_pools": [_system(spec, zones), _workers(spec, zones)],
        "release_channel": {"channel": "REGULAR"},
        "legacy_abac": {},  # off
        "master_auth": {"client_certificate_config": {}},  # none
        "shielded_nodes": {"enabled": True},
        "autoscaling": {"autoscaling_profile": "OPTIMIZE_UTILIZATION"},
        "control_plane_endpoints_config": _endpoints(spec),
        "rbac_binding_config": {
            "enable_insecure_binding_system_authenticated": False,
            "enable_insecure_binding_system_unauthenticated": False,
        },
        "anonymous_authentication_config": {"mode": "LIMITED"},
        "network_config": {
            "datapath_provider": "ADVANCED_DATAPATH",
            "default_enable_private_nodes": True,
        },
        "ip_allocation_policy": {"use_ip_aliases": True},
        "workload_identity_config": {"workload_pool": f"{spec.project}.svc.id.goog"},
    }
    parent = f"projects/{spec.project}/locations/{spec.location}"
    return {"parent": parent, "cluster": cluster}


def _endpoints(spec: GKESpec) -> dict[str, Any]:
    plane = spec.control_plane
    if not plane.ip_endpoint:
        return {
            "dns_endpoint_config": {"allow_external_traffic": True},
            "ip_endpoints_config": {"enabled": False},
        }
    networks = [{"cidr_block": one} for one in plane.authorized_networks]
    return {
        "dns_endpoint_config": {"allow_external_traffic": plane.dns_endpoint},
        "ip_endpoints_config": {
            "enabled": True,
            "enable_public_endpoint": True,
            "authorized_networks_config": {"enabled": True, "cidr_blocks": networks},
        },
    }


def _system(spec: GKESpec, zones: list[str]) -> dict[str, Any]:
    return {
        "name": "system",
        "config": {
            **_node(spec),
            "machine_type": "e2-standard-4",
            "labels": {"dask-hpsearch/on-demand": "true"},
            "kubelet_config": {"insecure_kubelet_readonly_port_enabled": False},
        },
        "initial_node_count": 1,
        "autoscaling": {
            "enabled": True,
            "location_policy": "ANY",
            "total_min_node_count": 1,
            "total_max_node_count": 3,
        },
        "management": {"auto_upgrade": True, "auto_repair": True},
        "locations": zones[:1],
    }


def _workers(spec: GKESpec, zones: list[str]) -> dict[str, Any]:
    taint = {"value": "true", "effect": "NO_SCHEDULE"}
    return {
        "name": "workers",
        "config": {
            **_node(spec),
            "machine_type": "n2-standard-8",
            "spot": True,
            "max_run_duration": "86400s",
            "labels": {"dask-hpsearch/workers": "true"},
            "taints": [
                {"key": "dask-hpsearch/workers", **taint},
                {"key": "cloud.google.com/gke-spot", **taint},
            ],
            "kubelet_config": {
                "insecure_kubelet_readonly_port_enabled": False,
                "shutdown_grace_period_seconds": 120,
                "shutdown_grace_period_critical_pods_seconds": 15,
            },
        },
        # none to begin with, and none when there is nothing to do
        "autoscaling": {
            "enabled": True,
            "location_policy": "ANY",
            "total_max_node_count": 10,
        },
        "management": {"auto_upgrade": True, "auto_repair": True},
        "locations": zones,
    }


def _node(spec: GKESpec) -> dict[str, Any]:
    return {
        "disk_size_gb": 100,
        "disk_type": "pd-balanced",
        "oauth_scopes": ["https://www.googleapis.com/auth/cloud-platform"],
        "service_account": f"dask-hpsearch-nodes@{spec.project}.iam.gserviceaccount.com",
        "workload_metadata_config": {"mode": "GKE_METADATA"},
        "shielded_instance_config": {
            "enable_secure_boot": True,
            "enable_integrity_monitoring": True,
        },
        "gcfs_config": {"enabled": True},
        "resource_labels": {**spec.labels, "managed-by": "dask-hpsearch"},
    }
