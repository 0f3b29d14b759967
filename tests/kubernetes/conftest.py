"""A namespace with the operator, and a cluster that many tests share."""

from __future__ import annotations

import asyncio
import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dask_hpsearch.clusters import kubernetes_api, operator
from dask_hpsearch.clusters.kube import kube_cluster
from dask_hpsearch.errors import KubernetesUnreachableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from dask_hpsearch.clusters.kube import SearchKubeCluster
    from dask_hpsearch.clusters.kubernetes_api import KubernetesApi

SPEC = Path(__file__).with_name("spec.yaml")
IMAGE_VARIABLE = "DASK_HPSEARCH_TEST_IMAGE"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this folder."""
    for item in items:
        if item.path.parent == SPEC.parent:
            item.add_marker(pytest.mark.kubernetes)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(240))
            # kr8s' opinion; warnings cannot be ignored for one thread alone.
            ignored = pytest.mark.filterwarnings("ignore:Kubernetes version")
            item.add_marker(ignored)


def asked(
    function: Callable[[KubernetesApi], Awaitable[Any]], namespace: str | None = None
) -> Any:
    """Ask Kubernetes something, in an event loop of its own."""

    async def run() -> Any:
        async with kubernetes_api.connected(namespace=namespace) as api:
            return await function(api)

    return asyncio.run(run())


@pytest.fixture(scope="session")
def image() -> str:
    """Return the image under test; skip where it, or Kubernetes, is not there."""
    name = os.environ.get(IMAGE_VARIABLE)
    if not name:
        pytest.skip(f"no image: name one that the cluster has in {IMAGE_VARIABLE}")

    async def version(api: KubernetesApi) -> None:
        await api.list("Namespace")

    try:
        asked(version)
    except KubernetesUnreachableError as error:
        pytest.skip(f"no Kubernetes: {error}")
    return name


@pytest.fixture(scope="session")
def bare_namespace(image: str) -> Iterator[str]:
    """Return a namespace of the tests' own, and remove it at the end."""
    name = f"hpsearch-{uuid.uuid4().hex[:8]}"
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    asked(lambda api: api.create(manifest))
    yield name
    asked(lambda api: api.delete("Namespace", name))


@pytest.fixture(scope="session")
def namespace(bare_namespace: str, image: str) -> str:
    """Return the namespace once the operator acts."""
    asked(lambda api: operator.install(api, image))
    return bare_namespace


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep certificates and runs of the tests away from the user's."""
    before = os.environ.get("DASK_HPSEARCH_HOME")
    path = tmp_path_factory.mktemp("home")
    os.environ["DASK_HPSEARCH_HOME"] = str(path)
    yield path
    if before is None:
        del os.environ["DASK_HPSEARCH_HOME"]
    else:
        os.environ["DASK_HPSEARCH_HOME"] = before


@pytest.fixture(scope="session")
def cluster(namespace: str, image: str, home: Path) -> Iterator[SearchKubeCluster]:
    """Run a cluster of two workers."""
    with kube_cluster(SPEC, image=image, namespace=namespace) as cluster:
        yield cluster


def objects_of(namespace: str) -> list[str]:
    """Name all objects that clusters have made in a namespace."""
    kinds = (
        "DaskCluster",
        "DaskWorkerGroup",
        "DaskAutoscaler",
        "Deployment",
        "NetworkPolicy",
        "Pod",
        "Secret",
        "Service",
        "ServiceAccount",
    )

    async def listed(api: KubernetesApi) -> list[str]:
        return [
            f"{kind} {one['metadata']['name']}"
            for kind in kinds
            for one in await api.list(kind, "dask.org/cluster-name")
        ]

    found: list[str] = asked(listed, namespace)
    return found
