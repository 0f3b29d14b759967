"""A project as Google's REST interfaces tell of it: what is enabled, allowed and there."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import threading
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from google.protobuf.json_format import ParseError

from tests.fakes import gke_rest
from tests.fakes.iam import FakePolicy, RestRefused
from tests.fakes.iam_requests import check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PROJECT, NUMBER = "some-project", "123456789"
BUCKET = "some-bucket"
NODES = f"dask-hpsearch-nodes@{PROJECT}.iam.gserviceaccount.com"
BUILDER = f"{NUMBER}-compute@developer.gserviceaccount.com"
PODS = (
    f"principalSet://iam.googleapis.com/projects/{NUMBER}/locations/global/"
    f"workloadIdentityPools/{PROJECT}.svc.id.goog/namespace/dask-hpsearch"
)
WORKLOAD_POOL = f"{PROJECT}.svc.id.goog"
ZONE = "europe-west4-a"
REAPER_ROLE = f"projects/{PROJECT}/roles/daskHpsearchReaper"
OPERATIONS_ROLE = f"projects/{PROJECT}/roles/daskHpsearchReaperOperations"
REAPER = (
    f"principal://iam.googleapis.com/projects/{NUMBER}/locations/global/"
    f"workloadIdentityPools/{PROJECT}.svc.id.goog/subject/ns/dask-hpsearch-system/sa/"
    f"reaper-searches-{ZONE}"
)
ONE_CLUSTER = (
    "resource.type == 'container.googleapis.com/Clusters' && "
    f"resource.name == 'projects/{PROJECT}/zones/{ZONE}/clusters/searches'"
)
POD_ROLE = "roles/storage.objectUser"
FOLDER = (
    "resource.type == 'storage.googleapis.com/Bucket' || "
    f"resource.name.startsWith('projects/_/buckets/{BUCKET}/objects/runs/')"
)
TOKEN = "a-token-that-nobody-may-see"
USER_TOKEN = "a-users-token-that-nobody-may-see"
GCLOUD_NUMBER = "764086051850"  # the project that user credentials belong to
SERVICES = (
    "cloudbilling",
    "cloudbuild",
    "cloudresourcemanager",
    "compute",
    "container",
    "iam",
    "serviceusage",
    "storage",
)


def pods_bound(expression: str, member: str = PODS) -> dict[str, Any]:
    """Return the binding of pods to a bucket, under a condition."""
    condition = {"title": "one-folder", "expression": expression}
    return {"role": POD_ROLE, "members": [member], "condition": condition}


@dataclass(slots=True)
class FakeProject:
    """A project that has all that it needs; a test takes something away.

    Attributes
    ----------
    enabled : set of str
        APIs.
    lacking : set of str
        Permissions that the user has not, anywhere.
    hidden : set of str
        Paths, or parts of them, that the user may not look at.
    disabled : dict
        By parts of paths, the API without which they are refused.
    policy, bucket_policy : FakePolicy
        Allow policies of the project and of the bucket.
    own_roles : dict
        Permissions of the project's own roles.
    deleted_roles : set of str
        Those of them that are deleted, and can be restored.
    clusters : list of dict
        GKE clusters, as the REST interface lists them.
    channels : dict
        Versions of new GKE clusters.
    pools : set of str
        Identity pools: GKE creates one with the first cluster that has Workload Identity.
    host : str
        Project that has the networks.
    quotas, project_quotas : dict
        Limit and usage by metric, of the region and of the project.
    may_not_act_as : set of str
        Service accounts that the user may not act as.
    outages : int
        How many requests are still answered with 503.
    latency : float
        Seconds that each answer takes.
    seen : list of (str, str)
        Methods and paths, in order.
    quota_projects : list of str
        The header ``x-goog-user-project`` of each request.
    """

    there: bool = True
    state: str = "ACTIVE"
    billing: bool = True
    enabled: set[str] = field(
        default_factory=lambda: {
            f"{name}.googleapis.com"
            for name in (
                "artifactregistry",
                "cloudbuild",
                "compute",
                "container",
                "iam",
                "storage",
            )
        }
    )
    lacking: Any = field(default_factory=set)
    hidden: set[str] = field(default_factory=set)
    disabled: dict[str, str] = field(default_factory=dict)
    policy: FakePolicy = field(
        default_factory=lambda: FakePolicy(
            {
                "roles/container.defaultNodeServiceAccount": [
                    f"serviceAccount:{NODES}"
                ],
                "roles/artifactregistry.reader": [f"serviceAccount:{NODES}"],
                "roles/artifactregistry.writer": [f"serviceAccount:{BUILDER}"],
                OPERATIONS_ROLE: [REAPER],
            },
            [
                {
                    "role": REAPER_ROLE,
                    "members": [REAPER],
                    "condition": {"title": "one-cluster", "expression": ONE_CLUSTER},
                }
            ],
        )
    )
    bucket_policy: FakePolicy = field(
        default_factory=lambda: FakePolicy(
            {POD_ROLE: [f"serviceAccount:{BUILDER}"]}, [pods_bound(FOLDER)]
        )
    )
    bucket: dict[str, Any] | None = field(
        default_factory=lambda: {
            "name": BUCKET,
            "location": "EUROPE-WEST4",
            "iamConfiguration": {"uniformBucketLevelAccess": {"enabled": True}},
        }
    )
    own_roles: dict[str, list[str]] = field(
        default_factory=lambda: {
            REAPER_ROLE: [
                "container.clusters.get",
                "container.clusters.update",
                "container.clusters.delete",
            ],
            OPERATIONS_ROLE: ["container.operations.get"],
        }
    )
    deleted_roles: set[str] = field(default_factory=set)
    disabled_accounts: set[str] = field(default_factory=set)
    clusters: list[dict[str, Any]] = field(default_factory=list)
    channels: dict[str, str] = field(default_factory=lambda: dict(gke_rest.CHANNELS))
    pools: set[str] = field(default_factory=lambda: {WORKLOAD_POOL})
    host: str = PROJECT
    accounts: set[str] = field(default_factory=lambda: {NODES})
    quotas: dict[str, tuple[float, float]] = field(
        default_factory=lambda: {
            "CPUS": (200, 8),
            "PREEMPTIBLE_CPUS": (500, 0),
            "N2_CPUS": (200, 0),
            "INSTANCES": (100, 3),
            "SSD_TOTAL_GB": (5000, 100),
        }
    )
    project_quotas: dict[str, tuple[float, float]] = field(
        default_factory=lambda: {"CPUS_ALL_REGIONS": (200, 8), "NETWORKS": (5, 1)}
    )
    may_not_act_as: set[str] = field(default_factory=set)
    machine_types: set[str] = field(
        default_factory=lambda: {"e2-standard-4", "n2-standard-8"}
    )
    networks: set[str] = field(default_factory=lambda: {"default"})
    subnetworks: dict[str, set[str]] = field(
        default_factory=lambda: {"europe-west4": {"default"}}
    )
    private_access: bool = True
    outages: int = 0
    latency: float = 0.0
    seen: list[tuple[str, str]] = field(default_factory=list)
    quota_projects: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Add what image streaming and the logs of builds need."""
        self.enabled.add("containerfilesystem.googleapis.com")
        nodes, builder = f"serviceAccount:{NODES}", f"serviceAccount:{BUILDER}"
        self.roles.setdefault("roles/serviceusage.serviceUsageConsumer", [nodes])
        self.roles.setdefault("roles/storage.bucketViewer", [builder])

    @property
    def roles(self) -> dict[str, list[str]]:
        """Members by role of the project, where no condition is set."""
        return self.policy.roles

    @property
    def bucket_roles(self) -> dict[str, list[str]]:
        """Members by role of the bucket, where no condition is set."""
        return self.bucket_policy.roles

    def cluster_came(self, name: str, location: str = ZONE) -> None:
        """Note a GKE cluster with Workload Identity: its pool stays when it goes."""
        found = {
            "name": name,
            "location": location,
            "workloadIdentityConfig": {"workloadPool": WORKLOAD_POOL},
        }
        self.clusters.append(found)
        self.pools.add(WORKLOAD_POOL)

    def answer(
        self,
        method: str,
        path: str,
        query: Any,
        body: Any,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Any]:
        """Answer a request, as the service does that it is for."""
        self.seen.append((method, path))
        time.sleep(self.latency)
        refused = self._refusal(path, headers or {})
        if refused is not None:
            return refused
        try:
            check(method, path, body)
        except ParseError as error:
            message = f"Invalid JSON payload received. {error}"
            return _error(HTTPStatus.BAD_REQUEST, message)
        for pattern, function in (*_CHANGES.get(method, ()), *_ROUTES):
            match = re.fullmatch(pattern, path)
            if match:
                call = functools.partial(function, self, match, query, body)
                return self._found(path, call)
        return _error(HTTPStatus.NOT_FOUND, f"no route for {path}")

    def _found(self, path: str, function: Callable[[], Any]) -> tuple[int, Any]:
        try:
            found = function()
        except RestRefused as refusal:
            return _error(refusal.status, refusal.message, refusal.reason)
        if found is None:
            return _error(HTTPStatus.NOT_FOUND, f"{path} was not found")
        return HTTPStatus.OK, found

    def _refusal(self, path: str, headers: Mapping[str, str]) -> tuple[int, Any] | None:
        """Refuse a request before it reaches its service."""
        if self.outages > 0:
            self.outages -= 1
            return _error(HTTPStatus.SERVICE_UNAVAILABLE, "try again")
        if path == "/token":
            return None
        refused = self._quota_refusal(headers)
        if refused is not None:
            return refused
        if any(part in path for part in self.hidden):
            return _error(HTTPStatus.FORBIDDEN, f"no permission for {path}")
        for part, api in self.disabled.items():
            if part in path:
                return _disabled(api)
        return None

    def _quota_refusal(self, headers: Mapping[str, str]) -> tuple[int, Any] | None:
        """Refuse a user's request that is on no project's quota, or on one he may not use."""
        quota_project = headers.get("x-goog-user-project", "")
        self.quota_projects.append(quota_project)
        if quota_project and "serviceusage.services.use" in self.lacking:
            message = (
                "Caller does not have required permission to use project "
                f"{quota_project}. Grant the caller the roles/serviceusage."
                "serviceUsageConsumer role."
            )
            return _error(HTTPStatus.FORBIDDEN, message, "USER_PROJECT_DENIED")
        if headers.get("authorization") == f"Bearer {USER_TOKEN}" and not quota_project:
            return _disabled("cloudresourcemanager.googleapis.com", GCLOUD_NUMBER)
        return None

    def need(self, permission: str) -> None:
        """Refuse what the user may not do."""
        if permission in self.lacking:
            message = f"Permission '{permission}' denied."
            raise RestRefused(HTTPStatus.FORBIDDEN, message, "IAM_PERMISSION_DENIED")


def _error(status: HTTPStatus, message: str, reason: str = "") -> tuple[int, Any]:
    error: dict[str, Any] = {"code": int(status), "message": message}
    if reason:
        info = "type.googleapis.com/google.rpc.ErrorInfo"
        error["details"] = [{"@type": info, "reason": reason}]
    return status, {"error": error}


def _disabled(api: str, number: str = NUMBER) -> tuple[int, Any]:
    message = f"{api} has not been used in project {number} before or it is disabled."
    status, body = _error(HTTPStatus.FORBIDDEN, message, "SERVICE_DISABLED")
    (info,) = body["error"]["details"]
    info["domain"] = "googleapis.com"
    info["metadata"] = {"service": api, "consumer": f"projects/{number}"}
    return status, body


def _project(project: FakeProject, *_: Any) -> Any:
    if not project.there:
        return None
    project.need("resourcemanager.projects.get")
    return {
        "name": f"projects/{NUMBER}",
        "projectId": PROJECT,
        "state": project.state,
    }


def _policy(project: FakeProject, _: Any, __: Any, body: Any) -> Any:
    project.need("resourcemanager.projects.getIamPolicy")
    version = body.get("options", {}).get("requestedPolicyVersion", 1)
    return project.policy.read(version, strict=False)


def _set_policy(project: FakeProject, _: Any, __: Any, body: Any) -> Any:
    project.need("resourcemanager.projects.setIamPolicy")
    wanted = body["policy"]
    for one in wanted["bindings"]:
        role = one["role"]
        own = role.startswith("projects/")
        if own and (role not in project.own_roles or role in project.deleted_roles):
            message = f"Role ({role}) does not exist in the resource's hierarchy."
            raise RestRefused(HTTPStatus.BAD_REQUEST, message)
    return project.policy.write(wanted, project.pools)


def _bucket(project: FakeProject, *_: Any) -> Any:
    if project.bucket is not None:
        project.need("storage.buckets.get")
    return project.bucket


def _bucket_policy(project: FakeProject, _: Any, query: Any, __: Any) -> Any:
    if project.bucket is None:
        return None
    project.need("storage.buckets.getIamPolicy")
    (version,) = query.get("optionsRequestedPolicyVersion", ["1"])
    return project.bucket_policy.read(int(version), strict=True)


def _set_bucket_policy(project: FakeProject, _: Any, __: Any, body: Any) -> Any:
    if project.bucket is None:
        return None
    project.need("storage.buckets.setIamPolicy")
    return project.bucket_policy.write(body, project.pools)


def _billing(project: FakeProject, *_: Any) -> Any:
    project.need("resourcemanager.projects.get")
    return {"billingEnabled": project.billing}


def _held(project: FakeProject, _: Any, query: Any, body: Any) -> Any:
    asked = body.get("permissions") or query.get("permissions", [])
    return {"permissions": [one for one in asked if one not in project.lacking]}


def _held_in_bucket(project: FakeProject, *more: Any) -> Any:
    return None if project.bucket is None else _held(project, *more)


def _services(project: FakeProject, _: Any, query: Any, __: Any) -> Any:
    project.need("serviceusage.services.get")
    return {
        "services": [
            {
                "name": name.replace(PROJECT, NUMBER),
                "state": "ENABLED"
                if name.rpartition("/")[2] in project.enabled
                else "DISABLED",
            }
            for name in query["names"]
        ]
    }


def _service(project: FakeProject, match: re.Match[str], *_: Any) -> Any:
    project.need("serviceusage.services.get")
    state = "ENABLED" if match[1] in project.enabled else "DISABLED"
    return {"name": f"projects/{NUMBER}/services/{match[1]}", "state": state}


def _own_role(project: FakeProject, match: re.Match[str], *_: Any) -> Any:
    project.need("iam.roles.get")
    name = match[1]
    if name not in project.own_roles:
        return None
    found = {"name": name, "includedPermissions": project.own_roles[name]}
    return found | ({"deleted": True} if name in project.deleted_roles else {})


def _create_role(project: FakeProject, _: Any, __: Any, body: Any) -> Any:
    project.need("iam.roles.create")
    name = f"projects/{PROJECT}/roles/{body['roleId']}"
    if name in project.own_roles:
        message = f"A role named {name} already exists."
        raise RestRefused(HTTPStatus.CONFLICT, message)
    project.own_roles[name] = list(body["role"]["includedPermissions"])
    return {"name": name}


def _update_role(
    project: FakeProject, match: re.Match[str], query: Any, body: Any
) -> Any:
    project.need("iam.roles.update")
    assert query["updateMask"] == ["includedPermissions"], query
    project.own_roles[match[1]] = list(body["includedPermissions"])
    return {"name": match[1]}


def _undelete_role(project: FakeProject, match: re.Match[str], *_: Any) -> Any:
    project.need("iam.roles.undelete")
    project.deleted_roles.discard(match[1])
    return {"name": match[1]}


def _account(project: FakeProject, match: re.Match[str], *_: Any) -> Any:
    project.need("iam.serviceAccounts.get")
    if match[1] not in project.accounts:
        return None
    return {"email": match[1], "disabled": match[1] in project.disabled_accounts}


def _token(_: FakeProject, __: Any, ___: Any, body: Any) -> Any:
    is_users = body.get("grant_type") == ["refresh_token"]
    return {"access_token": USER_TOKEN if is_users else TOKEN, "expires_in": 3600}


def _held_on_account(project: FakeProject, match: re.Match[str], *more: Any) -> Any:
    found = _held(project, match, *more)["permissions"]
    acts = "iam.serviceAccounts.actAs"
    if match[1] in project.may_not_act_as and acts in found:
        found.remove(acts)
    return {"permissions": found}


def _region(project: FakeProject, *_: Any) -> Any:
    project.need("compute.regions.get")
    return {"quotas": _as_quotas(project.quotas)}


def _compute_project(project: FakeProject, *_: Any) -> Any:
    project.need("compute.projects.get")
    return {"name": PROJECT, "quotas": _as_quotas(project.project_quotas)}


def _as_quotas(quotas: dict[str, tuple[float, float]]) -> list[dict[str, Any]]:
    return [
        {"metric": metric, "limit": limit, "usage": usage}
        for metric, (limit, usage) in quotas.items()
    ]


def _machine_type(project: FakeProject, match: re.Match[str], *_: Any) -> Any:
    project.need("compute.machineTypes.get")
    return {"name": match[1]} if match[1] in project.machine_types else None


def _network(project: FakeProject, match: re.Match[str], *_: Any) -> Any:
    project.need("compute.networks.get")
    there = match[1] == project.host and match[2] in project.networks
    return {"name": match[2]} if there else None


def _subnetwork(project: FakeProject, match: re.Match[str], *_: Any) -> Any:
    project.need("compute.subnetworks.get")
    _, region, name = match.groups()
    if match[1] != project.host or name not in project.subnetworks.get(region, ()):
        return None
    return {"name": name, "privateIpGoogleAccess": project.private_access}


_P = f"/v1/projects/{PROJECT}"
_V3 = f"/v3/projects/{PROJECT}"
_COMPUTE = f"/compute/v1/projects/{PROJECT}"
_B = "/storage/v1/b/[^/]+"
_ROUTES: tuple[tuple[str, Callable[..., Any]], ...] = (
    (_V3, _project),
    (f"{_V3}:getIamPolicy", _policy),
    (f"{_V3}:testIamPermissions", _held),
    (f"{_P}/billingInfo", _billing),
    (f"{_P}/services:batchGet", _services),
    (f"{_P}/services/([^/]+)", _service),
    (f"/v1/(projects/{PROJECT}/roles/[^/]+)", _own_role),
    (f"{_P}/serviceAccounts/([^:]+)", _account),
    (f"{_P}/serviceAccounts/([^:]+):testIamPermissions", _held_on_account),
    (
        f"{_P}/locations/[^/]+/defaultServiceAccount",
        lambda *_: {
            "serviceAccountEmail": f"projects/{PROJECT}/serviceAccounts/{BUILDER}"
        },
    ),
    (_B, _bucket),
    (f"{_B}/iam", _bucket_policy),
    (f"{_B}/iam/testPermissions", _held_in_bucket),
    (_COMPUTE, _compute_project),
    (f"{_COMPUTE}/regions/[^/]+", _region),
    (f"{_COMPUTE}/zones/[^/]+/machineTypes/([^/]+)", _machine_type),
    ("/compute/v1/projects/([^/]+)/global/networks/([^/]+)", _network),
    (
        "/compute/v1/projects/([^/]+)/regions/([^/]+)/subnetworks/([^/]+)",
        _subnetwork,
    ),
    (f"{_P}/locations/-/clusters", gke_rest.clusters),
    (f"{_P}/locations/[^/]+/serverConfig", gke_rest.server_config),
    ("/token", _token),
)
_CHANGES: dict[str, tuple[tuple[str, Callable[..., Any]], ...]] = {
    "POST": (
        (f"{_V3}:setIamPolicy", _set_policy),
        (f"{_P}/roles", _create_role),
        (f"/v1/(projects/{PROJECT}/roles/[^/]+):undelete", _undelete_role),
    ),
    "PUT": ((f"{_B}/iam", _set_bucket_policy),),
    "PATCH": ((f"/v1/(projects/{PROJECT}/roles/[^/]+)", _update_role),),
}


@contextlib.contextmanager
def project_at(project: FakeProject) -> Iterator[str]:
    """Serve a project over HTTP while the context lasts.

    Yields
    ------
    str
        The URL that all its services are at.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(project))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(project: FakeProject) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            json_sent = "json" in self.headers.get("Content-Type", "")
            body = json.loads(content) if json_sent else parse_qs(content.decode())
            self._answer(body)

        def do_PUT(self) -> None:
            self.do_POST()

        def do_PATCH(self) -> None:
            self.do_POST()

        def _answer(self, body: Any) -> None:
            url = urlsplit(self.path)
            path, query = unquote(url.path), parse_qs(url.query)
            headers = {name.lower(): text for name, text in self.headers.items()}
            status, found = project.answer(self.command, path, query, body, headers)
            content = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Say nothing."""

    return Handler
