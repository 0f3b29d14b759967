"""The reaper in its pod: it ends a GKE cluster, with nobody else there to do it."""

from __future__ import annotations

import contextlib
import copy
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from dask_hpsearch.clusters.kubernetes import manifests, operator
from dask_hpsearch.clusters.kubernetes.driver_job import RUN_LABEL
from dask_hpsearch.config.load import load_spec
from dask_hpsearch.deploy.bootstrap import start_reaper
from dask_hpsearch.exceptions import MissingBindingsError, PodStartError
from dask_hpsearch.gcp.gke import reaper_pod
from tests.fakes.certificates import own_certificate
from tests.fakes.tokens import TokenService
from tests.gcp.specs import spec
from tests.kubernetes import far_gke
from tests.kubernetes.conftest import SPEC, asked
from tests.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dask_hpsearch.clusters.kubernetes.api import KubernetesApi

EVERY_S = 5.0  # between two looks of the reaper
DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Google:
    """GKE's fake in a pod.

    Attributes
    ----------
    namespace : str
        Its own.
    files : dict
        Of a Secret, for whoever asks it.
    """

    namespace: str
    files: dict[str, str]

    @property
    def spec(self) -> Any:
        """The spec of the cluster that it has."""
        return at(_host(self.namespace))

    def log(self) -> str:
        """Return what it was asked."""
        text: str = asked(lambda api: api.logs(far_gke.NAME, 500), self.namespace)
        return text


@pytest.fixture
def google(
    image: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Google]:
    """GKE's fake in a namespace of its own, which goes at the end, as the reaper's does.

    Its parameter is how many calls it refuses at first.
    """
    refusals: int = getattr(request, "param", 0)
    namespace = f"google-{uuid.uuid4().hex[:8]}"
    key, roots = own_certificate(_host(namespace))
    files = {
        "tls.key": key.decode(),
        "roots.pem": roots.decode(),
        "credentials.json": TokenService("", url="https://x.invalid")
        .credentials(tmp_path)
        .read_text(),
    }

    place = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}

    async def account(api: KubernetesApi) -> Any:
        return await api.get("ServiceAccount", "default")

    async def create(api: KubernetesApi) -> None:
        for one in (_secret(files), *far_gke.manifests(image, refusals=refusals)):
            await api.create(one)

    asked(lambda api: api.create(place))
    try:
        wait_until(lambda: asked(account, namespace))  # without it there are no pods
        asked(create, namespace)
        yield Google(namespace, files)
    finally:
        for name in (namespace, reaper_pod.NAMESPACE):
            asked(lambda api, name=name: api.delete("Namespace", name))
        wait_until(lambda: asked(_reapers_namespace) is None)


async def _reapers_namespace(api: KubernetesApi) -> Any:
    return await api.get("Namespace", reaper_pod.NAMESPACE)


def _secret(files: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "google"},
        "stringData": files,
    }


def _host(namespace: str) -> str:
    return f"{far_gke.NAME}.{namespace}"


def at(host: str) -> Any:
    """Return the spec of the cluster, where its GKE is reached."""
    return spec(endpoints={"container": f"{host}:{far_gke.PORT}"})


def create_reaper(google: Google, image: str) -> None:
    """Create it with what GKE's metadata server would give it: credentials.

    What is applied later leaves what others have added.
    """
    made = reaper_pod.manifests(google.spec, image, interval=EVERY_S)
    *others, deployment = copy.deepcopy(made)
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
        place = api.in_namespace(reaper_pod.NAMESPACE)
        await place.create(_secret(google.files))
        await place.create(deployment)

    asked(create)


@contextlib.contextmanager
def all_dead(namespace: str, image: str) -> Iterator[None]:
    """Have a driver that finds no node, a scheduler that cannot start, and no operator."""
    cluster = manifests.dask_cluster(DEAD, namespace, load_spec(SPEC, image=image), 0)

    async def create(api: KubernetesApi) -> None:
        await api.create(_driver(image))
        # The account of its pods is missing, which `kube_cluster` would have made.
        await api.create(cluster)

    async def scheduler(api: KubernetesApi) -> Any:
        labels = (
            f"{manifests.CLUSTER_LABEL}={DEAD},{manifests.COMPONENT_LABEL}=scheduler"
        )
        return await api.list("Deployment", labels)

    asked(create, namespace)
    wait_until(lambda: asked(scheduler, namespace))
    _scale_operator(0)
    try:
        wait_until(lambda: not asked(operator.status).ready)
        yield
        (deployment,) = asked(scheduler, namespace)
        assert not deployment["status"].get("availableReplicas")
        driver = asked(lambda api: api.get("Job", DEAD), namespace)
        assert not driver["status"].get("ready")
        assert not driver["status"].get("conditions")  # it is not over
        assert not asked(operator.status).ready
    finally:
        _scale_operator(1)
        wait_until(lambda: asked(operator.status).ready)


def _driver(image: str) -> dict[str, Any]:
    container = {"name": "driver", "image": image, "args": ["true"]}
    pod = {
        "containers": [container],
        "nodeSelector": {"dask-hpsearch/none": "true"},
        "restartPolicy": "Never",
    }
    metadata = {"name": DEAD, "labels": {RUN_LABEL: DEAD}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {"template": {"spec": pod}},
    }


def _scale_operator(replicas: int) -> None:
    change = {"spec": {"replicas": replicas}}
    asked(
        lambda api: api.patch("Deployment", operator.NAME, change), operator.NAMESPACE
    )


@pytest.mark.timeout(400)
@pytest.mark.slow
def test_a_pod_ends_a_cluster_whose_time_is_over(
    namespace: str, google: Google, image: str
) -> None:
    """No notebook; driver, scheduler and operator are dead: its own pod does it alone."""
    del namespace  # it stands for the operator
    with all_dead(google.namespace, image):
        create_reaper(google, image)
        asked(
            lambda api: start_reaper(
                api, google.spec, image, timeout=200, interval=EVERY_S
            )
        )
        assert "DeleteCluster" not in google.log()
        wait_until(lambda: "gone" in google.log(), within_s=150)

    lines = google.log().splitlines()
    said = [line.split()[1] for line in lines if line.startswith("asked")]
    changes = [name for name in said if not name.startswith("Get")]
    assert changes[:2] == ["SetNodePoolAutoscaling", "SetNodePoolSize"]
    assert changes[-1] == "DeleteCluster"


@pytest.mark.timeout(400)
@pytest.mark.slow
@pytest.mark.parametrize("google", [10], indirect=True)
def test_a_reaper_that_comes_before_its_bindings_works_once_they_exist(
    google: Google, image: str
) -> None:
    """The client has given up: nobody starts the reaper again, or has to."""
    create_reaper(google, image)
    with pytest.raises(MissingBindingsError, match="gcloud iam roles create"):
        asked(
            lambda api: start_reaper(
                api,
                google.spec,
                image,
                timeout=200,
                interval=EVERY_S,
                checked_within=15.0,
            )
        )
    assert "DeleteCluster" not in google.log()

    wait_until(lambda: "gone" in google.log(), within_s=200)

    (pod,) = asked(lambda api: api.list("Pod"), reaper_pod.NAMESPACE)
    (container,) = pod["status"]["containerStatuses"]
    assert not container["lastState"]


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_a_reaper_that_cannot_look_is_told(google: Google, image: str) -> None:
    """Its end of the log, and the commands that grant it what it needs."""
    create_reaper(google, image)
    nowhere = at("nowhere.invalid")

    with pytest.raises(PodStartError, match="gcloud iam roles create") as raised:
        asked(lambda api: start_reaper(api, nowhere, image, timeout=150))

    assert "cannot check" in str(raised.value)
