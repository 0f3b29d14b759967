"""What cannot work is told in words, and leaves nothing behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dask_hpsearch import kube_cluster
from dask_hpsearch.config.reading import load_spec
from dask_hpsearch.errors import (
    ClusterError,
    ClusterExistsError,
    ClusterNotFoundError,
    KubernetesUnreachableError,
    PodStartError,
)
from tests.kubernetes.conftest import SPEC, asked, clusters_in, objects_of

if TYPE_CHECKING:
    from pathlib import Path

    from dask_hpsearch.clusters.kube import SearchKubeCluster
    from dask_hpsearch.clusters.kubernetes_api import KubernetesApi


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


def test_an_image_that_is_nowhere_is_told(namespace: str, home: Path) -> None:
    """The error has the image's name; nothing is left."""
    before = clusters_in(namespace)

    with pytest.raises(PodStartError, match=r"localhost/nowhere:1.*cannot be pulled"):
        kube_cluster(SPEC, image="localhost/nowhere:1", namespace=namespace)

    assert clusters_in(namespace) <= before


def test_a_scheduler_that_crashes_is_told_with_its_log(
    namespace: str, image: str, home: Path
) -> None:
    """The error has the end of what it wrote."""
    before = clusters_in(namespace)
    broken = {"DASK_DISTRIBUTED__ADMIN__LOW_LEVEL_LOG_LENGTH": "many"}
    spec = load_spec(SPEC, image=image, namespace=namespace, environment=broken)

    with pytest.raises(PodStartError, match=r"(?s)ends again and again.*TypeError"):
        kube_cluster(spec, n_workers=0)

    assert clusters_in(namespace) <= before


def test_a_used_up_quota_is_told(namespace: str, image: str, home: Path) -> None:
    """The error has what Kubernetes says of it."""
    name = f"{namespace}-quota"

    async def prepare(api: KubernetesApi) -> None:
        await api.create(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        )
        async with api.connection.call_api(
            "POST",
            url="resourcequotas",
            namespace=name,
            json={
                "apiVersion": "v1",
                "kind": "ResourceQuota",
                "metadata": {"name": "small"},
                "spec": {"hard": {"requests.cpu": "100m"}},
            },
        ):
            pass

    asked(prepare)
    try:
        with pytest.raises(PodStartError, match="exceeded quota: small"):
            kube_cluster(SPEC, image=image, namespace=name)
        assert objects_of(name) == []
    finally:
        asked(lambda api: api.delete("Namespace", name))


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
