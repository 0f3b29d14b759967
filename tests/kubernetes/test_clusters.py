"""Clusters on Kubernetes: what they are, and searches on them."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.naive_bayes import GaussianNB

from dask_hpsearch import DaskSearchCV, kube_cluster
from dask_hpsearch.clusters.kubernetes import manifests
from dask_hpsearch.clusters.kubernetes.port_forward import PortForward
from tests.gcs.held import put
from tests.kubernetes.conftest import SPEC, asked, clusters_in
from tests.kubernetes.estimators import Hurried
from tests.kubernetes.test_losses import NOTICE_S
from tests.kubernetes.watching import FitLog, moment_of
from tests.oracle.structure import difference
from tests.processes import wait_until

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator

    from distributed import Client

    from dask_hpsearch.clusters.kubernetes.cluster import SearchKubeCluster
    from tests.kubernetes.bucket import FarBucket

X, y = np.arange(40.0).reshape(20, 2), np.arange(20) % 2
FIRST_FIT_WITHIN_S = 30.0
USED_WITHIN_S = 3.0
_logger = logging.getLogger(__name__)
BUSY_S = 10.0  # what a machine that others use may add


@pytest.fixture
def client(cluster: SearchKubeCluster) -> Iterator[Client]:
    """Connect to the cluster."""
    with cluster.get_client() as client:
        yield client


def test_ten_lines_are_enough(namespace: str, image: str, home: Path) -> None:
    """A script starts a cluster, fits, and leaves nothing behind."""
    script = Path(__file__).with_name("ten_lines.py")
    before = clusters_in(namespace)

    done = subprocess.run(
        [sys.executable, str(script), str(SPEC), image, namespace],
        capture_output=True,
        text=True,
        check=False,
    )

    search = RandomizedSearchCV(
        GaussianNB(), {"var_smoothing": [1e-9, 1e-6, 1e-3]}, n_iter=3, random_state=0
    ).fit(*load_digits(return_X_y=True))
    assert done.returncode == 0, done.stderr
    *steps, found = done.stdout.splitlines()
    assert found == f"{search.best_params_} {search.best_score_:.6f}"
    assert steps[0].startswith("Creating the Dask cluster")
    assert steps[-1].startswith("Ready, dashboard available at http://127.0.0.1:")
    assert clusters_in(namespace) <= before


def test_a_search_uses_what_there_is_as_it_scales(
    cluster: SearchKubeCluster, client: Client, namespace: str, bucket: FarBucket
) -> None:
    """From 2 workers to 4 and down to 1: all are used at once, and no fit runs twice."""
    client.wait_for_workers(2, timeout=60)
    numbers = range(4000, 4400)  # enough for slow pods; once all is seen, fits hurry
    place = bucket.url.removeprefix("gs://").partition("/")[0]
    slow = Hurried(seconds=0.5, sign=f"{place}/hurry")
    own = GridSearchCV(slow, {"number": numbers}, cv=2, error_score="raise")

    with FitLog(cluster.name, namespace) as log, ThreadPoolExecutor(1) as pool:
        wait_until(lambda: len(log.followed) >= 2)
        changing = pool.submit(scale_up_and_down, cluster, client, log, numbers)
        changing.add_done_callback(lambda _: put(bucket.port, place, "hurry", b""))
        found = DaskSearchCV(own, client=client).fit(X, y)
        ready = changing.result()
        wait_until(lambda: len(log.counts("ended", numbers)) == 2 * len(numbers))
        ended, begun = log.counts("ended", numbers), log.first_begun(numbers)

    assert_equal_but_for_pauses(found.search_, own)
    assert set(ended.values()) == {1}
    started = min(begun.values())  # who was ready before, had nothing to do
    for pod, since in ready.items():
        waited = (begun[pod] - max(since, started)).total_seconds()
        _logger.info("%s took its first fit after %.1f s", pod, waited)
        assert waited < USED_WITHIN_S + BUSY_S
    wait_until(lambda: len(client.scheduler_info(n_workers=-1)["workers"]) == 1)


def scale_up_and_down(
    cluster: SearchKubeCluster, client: Client, log: FitLog, numbers: range
) -> dict[str, dt.datetime]:
    """Have 4 workers until all have had a fit; then 1. Tell since when each was ready."""
    try:
        cluster.scale(4)
        client.wait_for_workers(4, timeout=90)
        wait_until(lambda: len(ready_since(cluster)) == 4)
        ready = ready_since(cluster)
        wait_until(lambda: ready.keys() <= log.first_begun(numbers).keys())
    finally:
        cluster.scale(1)
        time.sleep(NOTICE_S)  # some workers drain while the other fits
    return ready


def assert_equal_but_for_pauses(found: GridSearchCV, own: GridSearchCV) -> None:
    """Assert that a search comes out as one here whose fits take no time."""
    plain = clone(own).set_params(estimator__seconds=0).fit(X, y)
    found.set_params(estimator__seconds=0)
    found.best_estimator_.set_params(seconds=0)
    assert difference(plain, found) is None


def ready_since(cluster: SearchKubeCluster) -> dict[str, dt.datetime]:
    """Tell since when each worker's pod has been ready; Kubernetes notes whole seconds."""
    labels = f"dask.org/cluster-name={cluster.name},dask.org/component=worker"
    pods = asked(lambda api: api.list("Pod", labels), cluster.namespace)
    return {
        pod["metadata"]["name"]: moment_of(one["lastTransitionTime"])
        for pod in pods
        for one in pod["status"]["conditions"]
        if one["type"] == "Ready" and one["status"] == "True"
    }


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("starts", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_every_start_succeeds(
    namespace: str,
    image: str,
    home: Path,
    starts: int,
) -> None:
    """Clusters one after the other, each with a worker that fits before long."""
    own = GridSearchCV(GaussianNB(), {"var_smoothing": [1e-9]}, cv=2, refit=False)
    for number in range(starts):
        began = time.monotonic()
        with (
            kube_cluster(SPEC, image=image, namespace=namespace, n_workers=1) as made,
            made.get_client() as client,
        ):
            DaskSearchCV(own, client=client, worker_timeout=90).fit(X, y)
            took = time.monotonic() - began
        _logger.info("start %d: first fits after %.1f s", number, took)
        assert took < FIRST_FIT_WITHIN_S + 6 * BUSY_S


def test_every_pod_may_do_little(cluster: SearchKubeCluster, client: Client) -> None:
    """Read back from the API: no root, no token, nothing to write, limits as requests."""
    client.wait_for_workers(1, timeout=60)
    labels = f"dask.org/cluster-name={cluster.name}"

    pods = asked(lambda api: api.list("Pod", labels), cluster.namespace)
    policies = asked(lambda api: api.list("NetworkPolicy", labels), cluster.namespace)

    assert len(pods) >= 2
    for pod in pods:
        assert_little(pod["spec"])
        assert pod["metadata"]["labels"]["purpose"] == "tests"
    assert len(policies) == 2


def assert_little(pod: dict[str, Any]) -> None:
    """Assert what a pod's specification promises."""
    [container] = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert pod["serviceAccountName"] != "default"
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["resources"]["limits"] == container["resources"]["requests"]
    volumes = {name for volume in pod["volumes"] for name in volume if name != "name"}
    assert volumes == {"emptyDir", "secret"}  # no projected token, no path of the node
    for variable in container["env"]:
        assert "PRIVATE" not in variable.get("value", "")


def answer(url: str) -> int:
    """Return the status of an answer over HTTP."""
    try:
        with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_the_scheduler_tells_nothing_over_http(
    cluster: SearchKubeCluster, namespace: str
) -> None:
    """Only what the operator asks is answered; the dashboard is on loopback."""
    ports = [manifests.HTTP_PORT, manifests.DASHBOARD_PORT]
    where = {"namespace": namespace}
    forward = PortForward(f"{cluster.name}-scheduler", ports, where).start()
    try:
        base = f"http://127.0.0.1:{forward.port(manifests.HTTP_PORT)}"
        assert answer(f"{base}/health") == 200
        assert answer(f"{base}/api/v1/check_idle") == 200
        for path in ("info/main/workers.html", "json/counts.json", "status", "metrics"):
            assert answer(f"{base}/{path}") == 404
        assert answer(f"{base}/api/v1/get_workers") == 404
        own = f"http://127.0.0.1:{forward.port(manifests.DASHBOARD_PORT)}/status"
        assert answer(own) == 200
    finally:
        forward.close()
    assert answer(cluster.dashboard_link) == 200


def test_a_cluster_is_found_by_its_name(
    cluster: SearchKubeCluster, namespace: str
) -> None:
    """Another object for the same cluster; closing it ends nothing."""
    with (
        kube_cluster(name=cluster.name, namespace=namespace) as again,
        again.get_client() as client,
    ):
        client.wait_for_workers(1, timeout=60)
        assert client.submit(sum, [1, 2]).result(timeout=30) == 3

    assert asked(lambda api: api.get("DaskCluster", cluster.name), namespace)
