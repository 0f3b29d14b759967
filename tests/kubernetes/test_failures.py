"""What cannot work is told in words, and leaves nothing behind."""

from __future__ import annotations

import re
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from distributed import Client
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import DaskSearchCV, kube_cluster
from dask_hpsearch.config.load import load_spec
from dask_hpsearch.exceptions import (
    ClusterError,
    ClusterExistsError,
    ClusterNotFoundError,
    HPSearchError,
    KubernetesUnreachableError,
    NoWorkersError,
    PodStartError,
)
from tests.kubernetes.accounts import own_kubeconfig
from tests.kubernetes.conftest import SPEC, asked, clusters_in, objects_of
from tests.kubernetes.estimators import Sleeper

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dask_hpsearch.clusters.kubernetes.api import KubernetesApi
    from dask_hpsearch.clusters.kubernetes.cluster import SearchKubeCluster

X, y = np.arange(40.0).reshape(20, 2), np.arange(20) % 2
WORKER_WAIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of something that cannot work.

    Attributes
    ----------
    error : HPSearchError or None
    left : list of str
        Objects that are there afterwards.
    """

    error: HPSearchError | None
    left: list[str]


Attempts = dict[str, Future[Attempt]]


@pytest.fixture(scope="module")
def attempts(namespace: str, image: str, home: Path) -> Iterator[Attempts]:
    """Begin all that takes its time to fail, at the same moment."""
    del home
    own = {"namespace": namespace, "image": image}
    broken = {"DASK_DISTRIBUTED__ADMIN__LOW_LEVEL_LOG_LENGTH": "many"}
    greedy = {"DASK_DISTRIBUTED__WORKER__PRELOAD": "tests.kubernetes.eater"}
    no_scheduler, no_worker = f"{namespace}-a", f"{namespace}-b"
    asked(lambda api: add_namespace(api, no_scheduler, {"requests.cpu": "100m"}))
    asked(lambda api: add_namespace(api, no_worker, {"requests.memory": "800Mi"}))
    small = {"cpu": "100m", "memory": "512Mi", "nodes": "any"}  # all fit on one node
    ways: dict[str, dict[str, Any]] = {
        "image": own | {"image": "localhost/nowhere:1", "scheduler": small},
        "crash": own | {"environment": broken, "scheduler": small},
        "memory": own | {"environment": greedy},
        "no-scheduler": own | {"namespace": no_scheduler},
        "no-worker": own | {"namespace": no_worker},
        "vast-scheduler": own | {"scheduler": small | {"cpu": "64"}},
    }
    with ThreadPoolExecutor(len(ways)) as pool:
        yield {name: pool.submit(attempt, name, **way) for name, way in ways.items()}
    for place in (no_scheduler, no_worker):
        asked(lambda api, place=place: api.delete("Namespace", place))


def attempt(name: str, **spec: Any) -> Attempt:
    """Start a cluster, with a worker if its scheduler can run, and fit a search on it."""
    search = GridSearchCV(Sleeper(), {"number": range(2)}, cv=2)
    n_workers = int(name in ("memory", "no-worker"))
    # It has to begin, beside all others here, before it can use too much.
    wait_s = 3 * WORKER_WAIT_S if name == "memory" else WORKER_WAIT_S
    error: HPSearchError | None = None
    try:
        with (
            kube_cluster(
                load_spec(SPEC, **spec), name=name, n_workers=n_workers
            ) as made,
            Client(made, set_as_default=False) as client,
        ):
            DaskSearchCV(search, client=client, worker_timeout=wait_s).fit(X, y)
    except HPSearchError as caught:
        error = caught
    left = [one for one in objects_of(spec["namespace"]) if name in one]
    return Attempt(error, left)


async def add_namespace(api: KubernetesApi, name: str, quota: dict[str, str]) -> None:
    """Make a namespace with a quota."""
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    await api.create(manifest)
    limits = {"metadata": {"name": "small"}, "spec": {"hard": quota}}
    async with api.connection.call_api(
        "POST",
        url="resourcequotas",
        namespace=name,
        json={"apiVersion": "v1", "kind": "ResourceQuota", **limits},
    ):
        pass


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("image", PodStartError, r"localhost/nowhere:1.*cannot be pulled"),
        ("crash", PodStartError, r"(?s)ends repeatedly.*log:.*TypeError"),
        ("no-scheduler", PodStartError, "exceeded quota: small"),
        ("no-worker", NoWorkersError, "within 60 s: .*exceeded quota: small"),
        ("memory", NoWorkersError, r"within 180 s: .*pod memory-.*\(OOMKilled\)"),
        (
            "vast-scheduler",
            PodStartError,
            "requests cpu 64, .*nodes.*of cpu .*, memory",
        ),
    ],
)
def test_what_keeps_pods_from_running_is_told(
    attempts: Attempts, name: str, kind: type[HPSearchError], says: str
) -> None:
    """In the words of Kubernetes' events, or of the pod's log; nothing is left."""
    found = attempts[name].result()

    assert type(found.error) is kind
    assert re.search(says, str(found.error)), found.error
    assert found.left == []


def test_a_block_that_fails_leaves_nothing(
    namespace: str, image: str, home: Path
) -> None:
    """Whatever is raised in it, the cluster goes, and the certificates with it."""
    before = clusters_in(namespace)

    def work() -> None:
        with kube_cluster(SPEC, image=image, namespace=namespace, n_workers=1) as made:
            assert any(made.name in name for name in objects_of(namespace))
            assert (home / "clusters" / f"{namespace}.{made.name}").is_dir()
            raise LookupError(made.name)

    with pytest.raises(LookupError) as caught:
        work()

    assert clusters_in(namespace) <= before
    assert not (home / "clusters" / f"{namespace}.{caught.value.args[0]}").exists()


def test_a_taken_name_is_told(cluster: SearchKubeCluster, image: str) -> None:
    """The cluster that has it is left alone."""
    with pytest.raises(ClusterExistsError, match=cluster.name):
        kube_cluster(SPEC, name=cluster.name, image=image, namespace=cluster.namespace)

    assert asked(lambda api: api.get("DaskCluster", cluster.name), cluster.namespace)


def test_a_name_that_is_not_there_is_told(namespace: str) -> None:
    """Attaching does not make a cluster."""
    with pytest.raises(ClusterNotFoundError, match="nosuch"):
        kube_cluster(name="nosuch", namespace=namespace)


def test_a_namespace_that_is_not_there_is_told(namespace: str, image: str) -> None:
    """The error says how to make one."""
    with pytest.raises(ClusterError, match="no namespace 'nosuch'"):
        kube_cluster(SPEC, image=image, namespace="nosuch")


def test_a_wrong_context_is_told(image: str) -> None:
    """The error has the context's name."""
    with pytest.raises(KubernetesUnreachableError, match="nosuch"):
        kube_cluster(SPEC, image=image, context="nosuch")


def test_a_kubeconfig_that_is_not_there_is_told(image: str, tmp_path: Path) -> None:
    """The error says where to look."""
    with pytest.raises(KubernetesUnreachableError, match="kubeconfig"):
        kube_cluster(SPEC, image=image, kubeconfig=str(tmp_path / "none"))


def test_a_kubernetes_that_does_not_answer_is_told(image: str, tmp_path: Path) -> None:
    """A context may lead to a cluster that is gone."""
    del image
    config = own_kubeconfig()
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))

    with pytest.raises(KubernetesUnreachableError, match="does not respond"):
        kube_cluster(SPEC, image="image:1", kubeconfig=str(path))
