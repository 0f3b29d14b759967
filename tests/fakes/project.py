"""A project as Google's REST interfaces tell of it: what is enabled, allowed and there."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROJECT, NUMBER = "some-project", "123456789"
BUCKET = "some-bucket"
NODES = f"dask-hpsearch-nodes@{PROJECT}.iam.gserviceaccount.com"
BUILDER = f"{NUMBER}-compute@developer.gserviceaccount.com"
PODS = (
    f"principalSet://iam.googleapis.com/projects/{NUMBER}/locations/global/"
    f"workloadIdentityPools/{PROJECT}.svc.id.goog/namespace/dask-hpsearch"
)
REAPER_ROLE = f"projects/{PROJECT}/roles/daskHpsearchReaper"
REAPER = (
    f"principal://iam.googleapis.com/projects/{NUMBER}/locations/global/"
    f"workloadIdentityPools/{PROJECT}.svc.id.goog/subject/ns/dask-hpsearch-system/sa/reaper"
)
TOKEN = "a-token-that-nobody-may-see"
SERVICES = (
    "cloudbilling",
    "cloudbuild",
    "cloudresourcemanager",
    "compute",
    "iam",
    "serviceusage",
    "storage",
)


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
    roles, bucket_roles : dict
        Members by role, of the project and of the bucket.
    quotas, project_quotas : dict
        Limit and usage by metric, of the region and of the project.
    may_not_act_as : set of str
        Service accounts that the user may not act as.
    outages : int
        How many requests are still answered with 503.
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
    lacking: set[str] = field(default_factory=set)
    hidden: set[str] = field(default_factory=set)
    disabled: dict[str, str] = field(default_factory=dict)
    roles: dict[str, list[str]] = field(
        default_factory=lambda: {
            "roles/container.defaultNodeServiceAccount": [f"serviceAccount:{NODES}"],
            "roles/artifactregistry.reader": [f"serviceAccount:{NODES}"],
            "roles/artifactregistry.writer": [f"serviceAccount:{BUILDER}"],
            REAPER_ROLE: [REAPER],
        }
    )
    bucket_roles: dict[str, list[str]] = field(
        default_factory=lambda: {
            "roles/storage.objectUser": [PODS, f"serviceAccount:{BUILDER}"]
        }
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
                "container.operations.get",
            ]
        }
    )
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
    private_access: bool = True
    outages: int = 0
    seen: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Add what image streaming and the logs of builds need."""
        self.enabled.add("containerfilesystem.googleapis.com")
        nodes, builder = f"serviceAccount:{NODES}", f"serviceAccount:{BUILDER}"
        self.roles.setdefault("roles/serviceusage.serviceUsageConsumer", [nodes])
        self.roles.setdefault("roles/storage.bucketViewer", [builder])

    def answer(self, method: str, path: str, query: Any, body: Any) -> tuple[int, Any]:
        """Answer a request, as the service does that it is for."""
        self.seen.append((method, path))
        if self.outages > 0:
            self.outages -= 1
            return _error(HTTPStatus.SERVICE_UNAVAILABLE, "try again")
        if any(part in path for part in self.hidden):
            return _error(HTTPStatus.FORBIDDEN, f"no permission for {path}")
        for part, api in self.disabled.items():
            if part in path:
                return _disabled(api)
        for pattern, function in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match:
                found = function(self, match, query, body)
                if found is None:
                    return _error(HTTPStatus.NOT_FOUND, f"{path} was not found")
                return HTTPStatus.OK, found
        return _error(HTTPStatus.NOT_FOUND, f"no route for {path}")


def _error(status: HTTPStatus, message: str) -> tuple[int, Any]:
    return status, {"error": {"code": int(status), "message": message}}


def _disabled(api: str) -> tuple[int, Any]:
    message = f"{api} has not been used in project {NUMBER} before or it is disabled."
    status, body = _error(HTTPStatus.FORBIDDEN, message)
    info = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "SERVICE_DISABLED",
        "domain": "googleapis.com",
        "metadata": {"service": api, "consumer": f"projects/{NUMBER}"},
    }
    body["error"]["details"] = [info]
    return status, body


def _project(project: FakeProject, *_: Any) -> Any:
    if not project.there:
        return None
    return {
        "name": f"projects/{NUMBER}",
        "projectId": PROJECT,
        "state": project.state,
    }


def _policy(project: FakeProject, *_: Any) -> Any:
    return {"bindings": _as_bindings(project.roles)}


def _bucket_policy(project: FakeProject, *_: Any) -> Any:
    if project.bucket is None:
        return None
    return {"bindings": _as_bindings(project.bucket_roles)}


def _as_bindings(roles: dict[str, list[str]]) -> list[dict[str, Any]]:
    return [{"role": role, "members": members} for role, members in roles.items()]


def _held(project: FakeProject, _: Any, query: Any, body: Any) -> Any:
    asked = body.get("permissions") or query.get("permissions", [])
    return {"permissions": [one for one in asked if one not in project.lacking]}


def _held_in_bucket(project: FakeProject, *more: Any) -> Any:
    return None if project.bucket is None else _held(project, *more)


def _services(project: FakeProject, _: Any, query: Any, __: Any) -> Any:
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
    state = "ENABLED" if match[1] in project.enabled else "DISABLED"
    return {"name": f"projects/{NUMBER}/services/{match[1]}", "state": state}


def _own_role(project: FakeProject, match: re.Match[str], *_: Any) -> Any:
    name = match[1]
    if name not in project.own_roles:
        return None
    return {"name": name, "includedPermissions": project.own_roles[name]}


def _account(project: FakeProject, match: re.Match[str], *_: Any) -> Any:
    return {"email": match[1]} if match[1] in project.accounts else None


def _held_on_account(project: FakeProject, match: re.Match[str], *more: Any) -> Any:
    found = _held(project, match, *more)["permissions"]
    acts = "iam.serviceAccounts.actAs"
    if match[1] in project.may_not_act_as and acts in found:
        found.remove(acts)
    return {"permissions": found}


def _region(project: FakeProject, *_: Any) -> Any:
    return {"quotas": _as_quotas(project.quotas)}


def _compute_project(project: FakeProject, *_: Any) -> Any:
    return {"name": PROJECT, "quotas": _as_quotas(project.project_quotas)}


def _as_quotas(quotas: dict[str, tuple[float, float]]) -> list[dict[str, Any]]:
    return [
        {"metric": metric, "limit": limit, "usage": usage}
        for metric, (limit, usage) in quotas.items()
    ]


def _machine_type(project: FakeProject, match: re.Match[str], *_: Any) -> Any:
    return {"name": match[1]} if match[1] in project.machine_types else None


def _network(project: FakeProject, match: re.Match[str], *_: Any) -> Any:
    return {"name": match[1]} if match[1] in project.networks else None


def _subnetwork(project: FakeProject, match: re.Match[str], *_: Any) -> Any:
    if match[1] not in project.networks:
        return None
    return {"name": match[1], "privateIpGoogleAccess": project.private_access}


_P = f"/v1/projects/{PROJECT}"
_V3 = f"/v3/projects/{PROJECT}"
_COMPUTE = f"/compute/v1/projects/{PROJECT}"
_B = "/storage/v1/b/[^/]+"
_ROUTES: tuple[tuple[str, Callable[..., Any]], ...] = (
    (_V3, _project),
    (f"{_V3}:getIamPolicy", _policy),
    (f"{_V3}:testIamPermissions", _held),
    (f"{_P}/billingInfo", lambda one, *_: {"billingEnabled": one.billing}),
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
    (_B, lambda one, *_: one.bucket),
    (f"{_B}/iam", _bucket_policy),
    (f"{_B}/iam/testPermissions", _held_in_bucket),
    (_COMPUTE, _compute_project),
    (f"{_COMPUTE}/regions/[^/]+", _region),
    (f"{_COMPUTE}/zones/[^/]+/machineTypes/([^/]+)", _machine_type),
    (f"{_COMPUTE}/global/networks/([^/]+)", _network),
    (f"{_COMPUTE}/regions/[^/]+/subnetworks/([^/]+)", _subnetwork),
    ("/token", lambda *_: {"access_token": TOKEN, "expires_in": 3600}),
)


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
            self._answer(json.loads(content) if json_sent else {})

        def _answer(self, body: Any) -> None:
            url = urlsplit(self.path)
            path, query = unquote(url.path), parse_qs(url.query)
            status, found = project.answer(self.command, path, query, body)
            content = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Say nothing."""

    return Handler
