"""A project of Google Cloud whose GKE clusters are the Kubernetes of the tests.

Google's services are fakes; the bucket is an emulator in a pod; the Kubernetes API that a
"GKE cluster" has is the real one, reached by a kubeconfig and tokens as on GKE.
"""

from __future__ import annotations

import base64
import contextlib
import os
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession

from dask_hpsearch.concurrency import Clock
from dask_hpsearch.config.gke_parts import ON_DEMAND_LABEL, WORKERS_LABEL
from dask_hpsearch.config.load import load_gke_spec
from dask_hpsearch.gcp.doctor.doctor import examine
from dask_hpsearch.gcp.rest import GoogleRest, with_retries
from tests.fakes import gcloud
from tests.fakes.cloud import cloud
from tests.fakes.fresh import REGION, fresh_project
from tests.fakes.gke import Place
from tests.fakes.project import SERVICES, project_at
from tests.fakes.tokens import token_service
from tests.kubernetes.accounts import RBAC, own_kubeconfig, token_of
from tests.kubernetes.conftest import asked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dask_hpsearch.clusters.kubernetes.api import KubernetesApi
    from dask_hpsearch.config.gke import GKESpec
    from dask_hpsearch.gcp.doctor.findings import Report
    from tests.fakes.cloud import Cloud
    from tests.fakes.project import FakeProject
    from tests.kubernetes.bucket import FarBucket

# Under this digest the Kubernetes of the tests has their image, by the name that a
# build of Cloud Build would give it: `GKESpec.image_name` of the project below.
DIGEST_VARIABLE = "DASK_HPSEARCH_TEST_DIGEST"
PROJECT = "some-project"


@dataclass(frozen=True, slots=True)
class LabProject:
    """A project, and how it is used.

    Attributes
    ----------
    cloud : Cloud
    bucket : FarBucket
    namespace : str
        For Dask clusters.
    token : str
        What Google's token service hands out; it must be seen nowhere.
    iam : FakeProject
        Its REST services.
    owner : Owner
    """

    cloud: Cloud
    bucket: FarBucket
    namespace: str
    token: str
    iam: FakeProject
    owner: Owner

    def spec(self, **changes: Any) -> GKESpec:
        """Return the spec of a small GKE cluster, with some fields changed."""
        return load_gke_spec(self.content | changes)

    @property
    def content(self) -> dict[str, Any]:
        """What a file of that spec holds."""
        workers = {"cpu": "250m", "memory": "1Gi", "slots": 1, "cache": "1Gi"}
        return {
            "project": PROJECT,
            "location": "europe-west4-a",
            "name": "searches",
            "store": self.bucket.url,
            "owner": "ada",
            "reaper": False,  # no pod reaches a fake of this process
            "control_plane": {
                "dns_endpoint": False,
                "ip_endpoint": True,
                "authorized_networks": ["127.0.0.0/8"],
            },
            "dask": {
                "namespace": self.namespace,
                "scheduler": {"cpu": "200m", "memory": "512Mi"},
                "workers": workers
                | {"initial": 1, "max": 3, "one_per_node": False, "notice": 8},
                "driver": {"cpu": "150m", "memory": "1Gi"},
                "environment": self.bucket.environment,
            },
        }

    @property
    def options(self) -> dict[str, Any]:
        """What `gke_cluster` takes to use the project."""
        return {
            "clients": self.cloud.clients,
            "options": self.deployment_options,
            "quiet": False,  # shown if a test fails
        }

    @property
    def deployment_options(self) -> dict[str, Any]:
        """Options of `DeployContext`: fake time, in which the owner acts after a while."""
        clock = self.cloud.time.clock

        def sleep(seconds: float) -> None:
            clock.sleep(seconds)
            self.owner.act(self.report)

        return {**self.cloud.options, "clock": Clock(clock.now, sleep)}

    def report(self) -> Report:
        """Return what `doctor` says of the project."""
        return examine(self.spec(), rest=self.cloud.clients.rest)


@dataclass(slots=True)
class Owner:
    """The project's owner, who runs the commands that a user is told, as soon as they work.

    Attributes
    ----------
    iam : FakeProject
    acted : list of str
        What the owner was told.
    """

    iam: FakeProject
    acted: list[str] = field(default_factory=list)
    _seen: int = 0

    def act(self, report: Callable[[], Report]) -> None:
        """Run the commands of a report, once a user of a GKE cluster has missed bindings."""
        if not self.iam.pools or self.acted:
            return
        since, self._seen = self._seen, len(self.iam.seen)
        policies = (":getIamPolicy", "/iam")
        if since and any(path.endswith(policies) for _, path in self.iam.seen[since:]):
            self.acted.append(str(report()))
            gcloud.run(self.iam, self.acted[0])


@contextlib.contextmanager
def lab_project(
    bucket: FarBucket, namespace: str, folder: Path
) -> Iterator[LabProject]:
    """Serve a project that has nothing yet, not even an identity pool; log in there."""
    digest = os.environ.get(DIGEST_VARIABLE)
    if not digest:
        pytest.skip(f"no image under a digest: name it in {DIGEST_VARIABLE}")
    with contextlib.ExitStack() as stack:
        token = stack.enter_context(_administrator(namespace))
        tokens = stack.enter_context(token_service(token))
        iam = fresh_project()
        found = stack.enter_context(cloud(bucket.port, place(iam)))
        found.builds.digest = digest
        rest = stack.enter_context(rest_of(iam))
        found = replace(found, clients=replace(found.clients, rest=rest))
        stack.enter_context(_logged_in(tokens.credentials(folder)))
        yield LabProject(found, bucket, namespace, token, iam, Owner(iam))


@contextlib.contextmanager
def rest_of(iam: FakeProject) -> Iterator[GoogleRest]:
    """Serve a project's REST interfaces."""
    with (
        project_at(iam) as url,
        AuthorizedSession(AnonymousCredentials()) as session,
    ):
        session.headers["x-goog-user-project"] = PROJECT  # as of a user's credentials
        yield GoogleRest(with_retries(session), dict.fromkeys(SERVICES, url))


@contextlib.contextmanager
def acting(owner: Owner, report: Callable[[], Report]) -> Iterator[None]:
    """Let the owner act while the context lasts, beside commands that wait for it."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.5):
            owner.act(report)

    with ThreadPoolExecutor(1) as threads:
        watching = threads.submit(watch)
        try:
            yield
        finally:
            ended.set()
            watching.result()


def restrict(cloud: Cloud, iam: FakeProject) -> None:
    """Let a project refuse builds in its region, and calls that a user has no role for."""
    cloud.builds.restricted = {REGION}
    cloud.traffic.lacking = iam.lacking


def place(iam: FakeProject) -> Place:
    """Return the Kubernetes of the tests as what new GKE clusters are.

    Parameters
    ----------
    iam : FakeProject
        Gets its identity pool with the first of them.
    """
    own = own_kubeconfig()["clusters"][0]["cluster"]
    authority = own.get("certificate-authority-data")
    if authority is None:
        content = Path(own["certificate-authority"]).read_bytes()
        authority = base64.b64encode(content).decode()
    return Place(
        address=own["server"].removeprefix("https://"),
        authority=authority,
        came=lambda made: _came(iam, made.name),
        gone=lambda _: _label_nodes(None),
    )


def _came(iam: FakeProject, name: str) -> None:
    _label_nodes("true")
    iam.cluster_came(name)


def _label_nodes(value: str | None) -> None:
    """Let every node be one of both pools, as far as its labels go; or of none."""
    labels = {ON_DEMAND_LABEL: value, WORKERS_LABEL: value}

    async def label(api: KubernetesApi) -> None:
        for node in await api.list("Node"):
            change = {"metadata": {"labels": labels}}
            await api.patch("Node", node["metadata"]["name"], change)

    asked(label)


@contextlib.contextmanager
def _administrator(namespace: str) -> Iterator[str]:
    """Have a token of whoever may do all, as the maker of a GKE cluster may."""
    name = f"gke-{uuid.uuid4().hex[:8]}"
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
    binding = {
        "apiVersion": f"{RBAC}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
    }
    for one in (account, binding):
        asked(lambda api, one=one: api.create(one), namespace)
    try:
        with token_of(namespace, name) as token:
            yield token
    finally:
        asked(lambda api: api.delete("ClusterRoleBinding", name))
        asked(lambda api: api.delete("ServiceAccount", name), namespace)


@contextlib.contextmanager
def _logged_in(file: Path) -> Iterator[None]:
    variable = "GOOGLE_APPLICATION_CREDENTIALS"
    before = os.environ.get(variable)
    os.environ[variable] = str(file)
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before
