"""A namespace with the operator, and a cluster that many tests share."""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dask_hpsearch.clusters.kubernetes import api as kubernetes_api
from dask_hpsearch.clusters.kubernetes import manifests, operator
from dask_hpsearch.clusters.kubernetes.api import ObjectMissingError
from dask_hpsearch.clusters.kubernetes.cluster import kube_cluster
from dask_hpsearch.config.load import load_spec
from dask_hpsearch.exceptions import KubernetesUnreachableError
from tests.kubernetes import tidying
from tests.kubernetes.bucket import far_bucket

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterator

    from dask_hpsearch.clusters.kubernetes.api import KubernetesApi
    from dask_hpsearch.clusters.kubernetes.cluster import SearchKubeCluster
    from tests.kubernetes.bucket import FarBucket

SPEC = Path(__file__).with_name("spec.yaml")
USERS_SECRET, PASSWORD = "users-own", f"sesame-{uuid.uuid4().hex}"
IMAGE_VARIABLE = "DASK_HPSEARCH_TEST_IMAGE"
# What a cluster consists of.
KINDS = (
    "DaskCluster",
    "DaskWorkerGroup",
    "DaskAutoscaler",
    "Deployment",
    "Job",
    "NetworkPolicy",
    "Pod",
    "Role",
    "RoleBinding",
    "Secret",
    "Service",
    "ServiceAccount",
)


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


_FAILED = pytest.StashKey[bool]()
_SHARED = pytest.StashKey[set[str]]()  # names of the clusters that tests share


def pytest_configure(config: pytest.Config) -> None:
    """No cluster is shared yet."""
    config.stash[_SHARED] = set()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell with each failure which pods there were; remember it for `tidy`."""
    report = yield
    if report.failed and os.environ.get(IMAGE_VARIABLE):
        item.stash[_FAILED] = True
        with contextlib.suppress(Exception):  # the failure itself says more
            report.sections.append(("pods", tidying.pods_there()))
    return report


@pytest.fixture(autouse=True)
def _tidy(request: pytest.FixtureRequest) -> Iterator[None]:
    """Remove what a test that failed has left; clusters that tests share are as before."""
    yield
    failed = request.node.stash.get(_FAILED, False)
    names = set(request.fixturenames)
    if failed and "namespace" in names and "attempts" not in names:
        kept = request.config.stash[_SHARED]
        tidying.remove_leftovers(request.getfixturevalue("namespace"), kept)
        if kept and "cluster" in names:
            request.getfixturevalue("cluster").scale(2)


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
    try:
        asked(lambda api: api.list("Namespace"))
    except KubernetesUnreachableError as error:
        pytest.skip(f"no Kubernetes: {error}")
    return name


@pytest.fixture(scope="session")
def bare_namespace(image: str) -> Iterator[str]:
    """Return a namespace of the tests' own, and remove it at the end."""
    name = f"hpsearch-{uuid.uuid4().hex[:8]}"
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    tidying.remove_earlier_namespaces()
    asked(lambda api: api.create(manifest))
    yield name
    tidying.remove_namespace(name)


@pytest.fixture(scope="session")
def namespace(bare_namespace: str, image: str) -> str:
    """Return the namespace once the operator acts; one that does is left alone."""

    async def prepare(api: KubernetesApi) -> None:
        found = await operator.status(api)
        if not found.ready or found.version != version("dask-kubernetes"):
            await operator.install(api, image)

    asked(prepare)
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
def bucket(namespace: str, image: str) -> Iterator[FarBucket]:
    """Run a bucket that pods and this process reach."""
    with far_bucket(image, namespace) as bucket:
        yield bucket


@pytest.fixture(scope="session")
def cluster(
    request: pytest.FixtureRequest,
    namespace: str,
    image: str,
    home: Path,
    bucket: FarBucket,
) -> Iterator[SearchKubeCluster]:
    """Run a cluster of two workers, which know the bucket, and have a user's secret."""
    secret = {"metadata": {"name": USERS_SECRET}, "stringData": {"PASSWORD": PASSWORD}}
    asked(
        lambda api: api.create({"apiVersion": "v1", "kind": "Secret", **secret}),
        namespace,
    )
    spec = load_spec(
        SPEC,
        image=image,
        namespace=namespace,
        secrets=[USERS_SECRET],
        environment=bucket.environment,
    )
    with kube_cluster(spec) as cluster:
        request.config.stash[_SHARED].add(cluster.name)
        yield cluster


def objects_of(namespace: str) -> list[str]:
    """Name all objects that clusters have made in a namespace."""

    async def listed(api: KubernetesApi) -> list[str]:
        found: list[str] = []
        for kind in KINDS:
            with contextlib.suppress(ObjectMissingError):  # there is no operator
                objects = await api.list(kind, manifests.CLUSTER_LABEL)
                found += [f"{kind} {one['metadata']['name']}" for one in objects]
        return found

    found: list[str] = asked(listed, namespace)
    return found


def clusters_in(namespace: str) -> set[str]:
    """Name the clusters of which any object is in a namespace."""

    async def listed(api: KubernetesApi) -> set[str]:
        found: set[str] = set()
        for kind in KINDS:
            with contextlib.suppress(ObjectMissingError):  # there is no operator
                for one in await api.list(kind, manifests.CLUSTER_LABEL):
                    found.add(one["metadata"]["labels"][manifests.CLUSTER_LABEL])
        return found

    clusters: set[str] = asked(listed, namespace)
    return clusters
