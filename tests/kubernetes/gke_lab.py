"""A project of Google Cloud whose GKE clusters are the Kubernetes of the tests.

Google's services are fakes; the bucket is an emulator in a pod; the Kubernetes API that a
"GKE cluster" has is the real one, reached by a kubeconfig and tokens as on GKE.
"""

from __future__ import annotations

import base64
import contextlib
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dask_hpsearch.config.gke_parts import ON_DEMAND_LABEL, WORKERS_LABEL
from dask_hpsearch.config.load import load_gke_spec
from tests.fakes.cloud import cloud
from tests.fakes.gke import Place
from tests.fakes.tokens import token_service
from tests.kubernetes.accounts import RBAC, own_kubeconfig, token_of
from tests.kubernetes.conftest import asked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dask_hpsearch.clusters.kubernetes.api import KubernetesApi
    from dask_hpsearch.config.gke import GKESpec
    from tests.fakes.cloud import Cloud
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
    """

    cloud: Cloud
    bucket: FarBucket
    namespace: str
    token: str

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
            "options": self.cloud.options,
            "quiet": False,  # shown if a test fails
        }


@contextlib.contextmanager
def lab_project(
    bucket: FarBucket, namespace: str, folder: Path
) -> Iterator[LabProject]:
    """Serve a project that has nothing yet; log in there."""
    digest = os.environ.get(DIGEST_VARIABLE)
    if not digest:
        pytest.skip(f"no image under a digest: name it in {DIGEST_VARIABLE}")
    with contextlib.ExitStack() as stack:
        token = stack.enter_context(_administrator(namespace))
        tokens = stack.enter_context(token_service(token))
        found = stack.enter_context(cloud(bucket.port, place()))
        found.builds.digest = digest
        stack.enter_context(_logged_in(tokens.credentials(folder)))
        yield LabProject(found, bucket, namespace, token)


def place() -> Place:
    """Return the Kubernetes of the tests as what new GKE clusters are."""
    own = own_kubeconfig()["clusters"][0]["cluster"]
    authority = own.get("certificate-authority-data")
    if authority is None:
        content = Path(own["certificate-authority"]).read_bytes()
        authority = base64.b64encode(content).decode()
    return Place(
        address=own["server"].removeprefix("https://"),
        authority=authority,
        came=lambda _: _label_nodes("true"),
        gone=lambda _: _label_nodes(None),
    )


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
