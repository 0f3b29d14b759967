"""A project of Google Cloud whose GKE clusters are the Kubernetes that is here.

Google's services are fakes; the Kubernetes API, all pods, and the bucket are real.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dask_hpsearch.config.gke_parts import ON_DEMAND_LABEL, WORKERS_LABEL
from tests.fakes.cloud import Cloud, cloud
from tests.fakes.gke import Place
from tests.fakes.project import SERVICES, FakeProject, project_at
from tests.fakes.tokens import token_service
from tests.kubernetes.accounts import own_kubeconfig, token_of
from tests.kubernetes.conftest import asked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NODE_LABELS = {ON_DEMAND_LABEL: "true", WORKERS_LABEL: "true"}
_RBAC = "rbac.authorization.k8s.io"


@dataclass(frozen=True, slots=True)
class GoogleHere:
    """What a client needs to work there.

    Attributes
    ----------
    cloud : Cloud
        The fakes of GKE, Cloud Build and Artifact Registry.
    project_url : str
        Where all the services are that `doctor` asks.
    """

    cloud: Cloud
    project_url: str

    @property
    def addresses(self) -> dict[str, str]:
        """What `examine` takes."""
        return dict.fromkeys(SERVICES, self.project_url)


@contextlib.contextmanager
def google_here(
    namespace: str, storage_port: int, folder: Path
) -> Iterator[GoogleHere]:
    """Serve the project; who has its credentials is an administrator of Kubernetes.

    Parameters
    ----------
    namespace : str
        Of the account whose token Google hands out.
    storage_port : int
        Of the emulator that holds the project's buckets.
    folder : Path
        For the file of credentials.
    """
    here = own_kubeconfig()["clusters"][0]["cluster"]
    place = Place(
        address=here["server"].removeprefix("https://"),
        authority=here["certificate-authority-data"],
    )
    with (
        _administrator(namespace) as token,
        _labelled_nodes(),
        token_service(token) as tokens,
        cloud(storage_port, place) as found,
        project_at(FakeProject()) as url,
        _environment("GOOGLE_APPLICATION_CREDENTIALS", str(tokens.credentials(folder))),
    ):
        found.gke.durations = dict.fromkeys(found.gke.durations, 0.0)
        yield GoogleHere(found, url)


def for_here(namespace: str, image: str, environment: dict[str, str]) -> dict[str, Any]:
    """Return fields of a GKE cluster's spec with which it fits on one small machine."""
    workers = {"cpu": "250m", "memory": "1Gi", "slots": 1, "cache": "1Gi", "max": 4}
    return {
        "image": image,
        "reaper": False,
        "control_plane": {
            "dns_endpoint": False,
            "ip_endpoint": True,
            "authorized_networks": ["127.0.0.1/32"],
        },
        "dask": {
            "namespace": namespace,
            "scheduler": {"cpu": "300m", "memory": "512Mi"},
            "workers": {**workers, "one_per_node": False},
            "environment": environment,
        },
    }


@contextlib.contextmanager
def _administrator(namespace: str) -> Iterator[str]:
    """Have a token of an account that may do everything."""
    name = f"google-{namespace}"
    metadata = {"name": name}
    subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    binding = {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [subject],
    }
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
    asked(lambda api: api.create(account), namespace)
    asked(lambda api: api.create(binding))
    try:
        with token_of(namespace, name) as token:
            yield token
    finally:
        asked(lambda api: api.delete("ClusterRoleBinding", name))
        asked(lambda api: api.delete("ServiceAccount", name), namespace)


@contextlib.contextmanager
def _labelled_nodes() -> Iterator[None]:
    """Let all nodes be of both pools."""
    nodes = [one["metadata"]["name"] for one in asked(lambda api: api.list("Node"))]

    def label(labels: dict[str, str | None]) -> None:
        change = {"metadata": {"labels": labels}}
        for node in nodes:
            asked(lambda api, node=node: api.patch("Node", node, change))

    label(dict(_NODE_LABELS))
    try:
        yield
    finally:
        label(dict.fromkeys(_NODE_LABELS))


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
