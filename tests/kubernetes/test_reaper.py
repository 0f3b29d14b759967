"""The reaper in its pod: it ends a GKE cluster, with nobody else there to do it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest

from dask_hpsearch.deploy.preparing import start_reaper
from dask_hpsearch.errors import PodStartError
from dask_hpsearch.gcp import reaper
from tests.fakes.certificates import own_certificate
from tests.fakes.tokens import TokenService
from tests.gcp.specs import spec
from tests.kubernetes import far_gke
from tests.kubernetes.conftest import asked
from tests.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dask_hpsearch.clusters.kubernetes_api import KubernetesApi


@pytest.fixture
def google(bare_namespace: str, image: str, tmp_path: Path) -> Iterator[str]:
    """GKE's fake in a pod, with a cluster whose time is over soon; return its host."""
    host = f"{far_gke.NAME}.{bare_namespace}"
    key, roots = own_certificate(host)
    files = {
        "tls.key": key.decode(),
        "roots.pem": roots.decode(),
        "credentials.json": TokenService("", url="https://x.invalid")
        .credentials(tmp_path)
        .read_text(),
    }

    async def create(api: KubernetesApi) -> None:
        for one in (_secret(files), *far_gke.manifests(image)):
            await api.create(one)

    asked(create, bare_namespace)
    _create_reaper(host, image, files)
    yield host
    asked(lambda api: api.delete("Namespace", reaper.NAMESPACE))
    wait_until(lambda: asked(_namespace) is None)


async def _namespace(api: KubernetesApi) -> Any:
    return await api.get("Namespace", reaper.NAMESPACE)


def _secret(files: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "google"},
        "stringData": files,
    }


def at(host: str) -> Any:
    """Return the spec of the cluster, where its GKE is reached."""
    return spec(endpoints={"container": f"{host}:{far_gke.PORT}"})


def _create_reaper(host: str, image: str, files: dict[str, str]) -> None:
    """Create it with what GKE's metadata server would give it: credentials.

    What is applied later leaves what others have added.
    """
    *others, deployment = copy.deepcopy(reaper.manifests(at(host), image))
    pod = deployment["spec"]["template"]["spec"]
    pod["volumes"].append({"name": "google", "secret": {"secretName": "google"}})
    (container,) = pod["containers"]
    container["volumeMounts"].append({"name": "google", "mountPath": far_gke.FOLDER})
    container["env"] += [
        {
            "name": "GOOGLE_APPLICATION_CREDENTIALS",
            "value": f"{far_gke.FOLDER}/credentials.json",
        },
        {
            "name": "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
            "value": f"{far_gke.FOLDER}/roots.pem",
        },
    ]

    async def create(api: KubernetesApi) -> None:
        for one in others:
            await api.create(one)
        place = type(api)(api.connection, reaper.NAMESPACE)
        await place.create(_secret(files))
        await place.create(deployment)

    asked(create)


@pytest.mark.timeout(400)
@pytest.mark.slow
def test_a_pod_ends_a_cluster_whose_time_is_over(
    google: str, bare_namespace: str, image: str
) -> None:
    """No notebook, driver, scheduler or operator: its own pod, which may nothing else."""
    asked(lambda api: start_reaper(api, at(google), image, timeout_s=200))

    def log() -> str:
        text: str = asked(lambda api: api.logs(far_gke.NAME, 500), bare_namespace)
        return text

    assert "DeleteCluster" not in log()
    wait_until(lambda: "gone" in log(), within_s=150)
    said = [line.split()[1] for line in log().splitlines() if line.startswith("asked")]
    changes = [name for name in said if not name.startswith("Get")]
    assert changes[:2] == ["SetNodePoolAutoscaling", "SetNodePoolSize"]
    assert changes[-1] == "DeleteCluster"


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_a_reaper_that_cannot_look_is_told(google: str, image: str) -> None:
    """Its end of the log, and the commands that grant it what it needs."""
    nowhere = at("nowhere.invalid")

    with pytest.raises(PodStartError, match="gcloud iam roles create") as raised:
        asked(lambda api: start_reaper(api, nowhere, image, timeout_s=150))

    assert "cannot look after" in str(raised.value)
