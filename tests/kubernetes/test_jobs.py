"""Runs that one can walk away from: driven by a Job beside the cluster, whatever is lost."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from dask_hpsearch import DaskSearchCV, MlflowTracker, SearchRun, kube_cluster
from dask_hpsearch.clusters.kubernetes import driver_job
from dask_hpsearch.clusters.kubernetes.driver_job import DriverJobSpec
from dask_hpsearch.config.load import load_spec
from dask_hpsearch.exceptions import PodStartError, RunCancelledError, TrackerError
from dask_hpsearch.journal.events import FitEvent, StateEvent
from tests.gcs.held import put
from tests.kubernetes.accounts import kubeconfig_with, token_of, tried
from tests.kubernetes.conftest import SPEC, USERS_SECRET, asked, objects_of
from tests.kubernetes.test_losses import X, as_plain, search, y
from tests.kubernetes.watching import FitLog
from tests.oracle.structure import difference
from tests.processes import ROOT, wait_until
from tests.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from distributed import Client

    from dask_hpsearch.clusters.kubernetes.api import KubernetesApi
    from dask_hpsearch.clusters.kubernetes.cluster import SearchKubeCluster
    from tests.kubernetes.bucket import FarBucket

# What is promised, and as much again for a machine that others use too.
RESUMED_WITHIN_S = 60.0 + 30.0
PATIENT_S = 180.0
# By the first value that a fit sees: its split.
SPLITS = {
    int(X[train][0][0]): split
    for split, (train, _) in enumerate(StratifiedKFold(2).split(X, y))
}
BESIDE = """
from tests.kubernetes.estimators import Sleeper

class Beside(Sleeper):
    pass
"""
SCRIPT = """
import os, signal, sys
from beside import Beside
from sklearn.model_selection import GridSearchCV
from dask_hpsearch import DaskSearchCV, kube_cluster
from dask_hpsearch.config.load import load_spec
from tests.kubernetes.test_losses import X, y

spec, image, namespace, inside, store, how = sys.argv[1:]
environment = {"STORAGE_EMULATOR_HOST": inside}
spec = load_spec(spec, image=image, namespace=namespace, environment=environment)
own = GridSearchCV(Beside(seconds=0.3), {"number": range(20)}, cv=2)
with kube_cluster(spec, n_workers=1, quiet=True) as cluster:
    client = cluster.get_client()
    run = DaskSearchCV(
        own, client=client, store=store, keep_cluster=how == "left"
    ).submit(X, y)
    print(cluster.name, run.url, flush=True)
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    client.close()
"""

FITS = """
import sys
from dask_hpsearch import DaskSearchCV, kube_cluster
from tests.kubernetes.test_losses import search

name, namespace, store, X, y = sys.argv[1:]
with kube_cluster(name=name, namespace=namespace, quiet=True) as cluster:
    with cluster.get_client() as client:
        own = DaskSearchCV(
            search(range(8000, 8100), 0.3), client=client, store=store, progress=True
        )
        own.fit(X, y)
print(own.stopped_, len(own.cv_results_["params"]), own.run_url_)
"""


@pytest.fixture
def client(cluster: SearchKubeCluster) -> Iterator[Client]:
    """Connect to the cluster."""
    with cluster.get_client() as client:
        yield client


def pods_of(run: SearchRun, namespace: str) -> list[dict[str, Any]]:
    """Return the pods of a run's driver."""
    labels = f"{driver_job.RUN_LABEL}={run.run_id}"
    found: list[dict[str, Any]] = asked(lambda api: api.list("Pod", labels), namespace)
    return found


def force_delete(name: str, namespace: str) -> None:
    """Delete a pod as if its node were gone."""

    async def delete(api: KubernetesApi) -> None:
        async with api.connection.call_api(
            "DELETE",
            url=f"pods/{name}",
            namespace=namespace,
            json={"gracePeriodSeconds": 0, "propagationPolicy": "Background"},
        ):
            pass

    asked(delete, namespace)


def finished(run: SearchRun) -> dict[tuple[int, int], float]:
    """Return the fits that the journal has, by candidate and split, and when they ended."""
    return {
        (one.candidate, one.split): one.time
        for one in run._reader.events()
        if isinstance(one, FitEvent)
    }


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "how", ["killed", pytest.param("left", marks=pytest.mark.slow)]
)
def test_a_search_outlives_who_submitted_it_and_ends_its_cluster(
    how: str, namespace: str, image: str, bucket: FarBucket, tmp_path: Path
) -> None:
    """The client is killed at once, or leaves its block; the cluster ends with the search."""
    before = objects_of(namespace)
    (tmp_path / "beside.py").write_text(BESIDE)
    inside = bucket.environment["STORAGE_EMULATOR_HOST"]
    done = subprocess.run(
        [
            *(sys.executable, "-c", SCRIPT, str(SPEC), image, namespace),
            *(inside, bucket.url, how),
        ],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"},
    )
    assert done.stdout, done.stderr
    name, url = done.stdout.split()

    run = SearchRun.attach(url)
    run.wait(240)

    sys.path.insert(0, str(tmp_path))
    try:
        found = run.result()
        plain = GridSearchCV(type(found.estimator)(), {"number": range(20)}, cv=2)
    finally:
        sys.path.remove(str(tmp_path))
    found.set_params(estimator__seconds=0.2)
    found.best_estimator_.set_params(seconds=0.2)
    assert difference(plain.fit(X, y), found) is None
    # What was going when this began is gone as well.
    wait_until(lambda: set(objects_of(namespace)) <= set(before))
    assert asked(lambda api: api.get("DaskCluster", name), namespace) is None
    assert (
        f"the cluster {name} ends with its run" in run.logs() or "driver" in run.logs()
    )


class Losses:
    """Takes pods away from a run, and knows what was finished before each time."""

    def __init__(self, run: SearchRun, cluster: SearchKubeCluster) -> None:
        self._run = run
        self._namespace = str(cluster.namespace)
        self._labels = f"dask.org/cluster-name={cluster.name},dask.org/component="
        self.kept: dict[tuple[int, int], int] = {}  # losses before it had finished
        self.gone: list[str] = []

    def lose(self, component: str) -> float:
        """Delete a pod once some more fits have ended; return the moment."""
        known = len(finished(self._run))
        wait_until(lambda: len(finished(self._run)) >= known + 10, within_s=PATIENT_S)
        for fit in finished(self._run):
            self.kept.setdefault(fit, len(self.gone))
        labels = self._labels + component
        pods = asked(lambda api: api.list("Pod", labels), self._namespace)
        living = [one for one in pods if one["status"]["phase"] == "Running"]
        self.gone.append(living[0]["metadata"]["name"])
        force_delete(self.gone[-1], self._namespace)
        return time.time()

    def resumed_after(self, moment: float) -> float:
        """Wait until the driver has begun again, and a fit has ended; return the seconds."""

        def later() -> list[float]:
            states = [
                one for one in self._run._reader.events() if isinstance(one, StateEvent)
            ]
            began = [one.time for one in states if one.state == "running"]
            ends = finished(self._run).values()
            return [t for t in ends if t > max(began) > moment]

        wait_until(later, within_s=PATIENT_S)
        return min(later()) - moment


@pytest.mark.timeout(600)
def test_whatever_is_lost_a_submitted_run_goes_on(
    cluster: SearchKubeCluster, client: Client, namespace: str, bucket: FarBucket
) -> None:
    """A worker, the driver, the scheduler: the same result, no finished fit runs again."""
    numbers = range(5000, 5080)
    cluster.scale(2)
    client.wait_for_workers(2, timeout=90)
    with FitLog(cluster.name, namespace) as log:
        own = DaskSearchCV(search(numbers, 0.5), client=client, store=bucket.url)
        run = own.submit(X, y)
        losses = Losses(run, cluster)
        losses.lose("worker")
        losses.lose("driver")
        resumed_after = losses.resumed_after(losses.lose("scheduler"))
        found = run.result(300)
        began = log.counts("began", numbers)

    as_plain(found, numbers)
    sys.stdout.write(f"resumed {resumed_after:.1f} s after the scheduler was lost\n")
    assert resumed_after < RESUMED_WITHIN_S
    times = {
        (int(number) - numbers.start, SPLITS[int(first)]): count
        for key, count in began.items()
        for number, _, first in [key.split()]
    }  # what a pod had on its tongue when it went is missing
    # Each loss may have cut a fit that had not finished; what had, begins no more.
    again = {fit: n for fit, n in losses.kept.items() if times.get(fit, 1) > 1 + n}
    assert again == {}
    logs = run.logs()
    assert [name for name in losses.gone if f"{name}\n" not in logs] == []
    assert "PRIVATE KEY" not in logs
    wait_until(lambda: pods_of(run, namespace) == [])


def data_in(bucket: FarBucket) -> list[str]:
    """Put X and y in a bucket; return their URLs."""
    place = bucket.url.removeprefix("gs://").partition("/")[0]
    for name, values in (("X", X), ("y", y)):
        content = io.BytesIO()
        np.save(content, values)
        put(bucket.port, place, f"data/{name}.npy", content.getvalue())
    return [f"gs://{place}/data/{name}.npy" for name in ("X", "y")]


def test_a_fit_on_data_in_a_bucket_is_driven_from_there(
    client: Client, namespace: str, bucket: FarBucket
) -> None:
    """The process that fits looks on, and has the fitted search in the end."""
    data = data_in(bucket)
    numbers = range(6000, 6010)
    own = DaskSearchCV(
        search(numbers, 0.1), client=client, store=bucket.url, progress=True
    )

    own.fit(*data)

    as_plain(own.search_, numbers)
    assert own.stopped_ is None
    run = SearchRun.attach(str(own.run_url_))
    assert "== driver run-" in run.logs()
    snapshot = run.progress()
    assert snapshot.fits_done == snapshot.fits_total == 20


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_fit_driven_elsewhere_shows_its_progress_and_heeds_ctrl_c(
    cluster: SearchKubeCluster, namespace: str, bucket: FarBucket
) -> None:
    """As in a terminal: it ends with what it has, and leaves no driver behind."""
    arguments = [cluster.name, namespace, bucket.url, *data_in(bucket)]
    terminal = Terminal()

    def shown() -> set[str]:
        return set(re.findall(r"(\d+)/200 fits", terminal.text)) - {"0", "200"}

    with subprocess.Popen(
        [sys.executable, "-c", FITS, *arguments],
        stdout=subprocess.PIPE,
        stderr=terminal.stream,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        start_new_session=True,
    ) as process:
        try:
            wait_until(lambda: len(shown()) >= 3, within_s=PATIENT_S)
            os.killpg(process.pid, signal.SIGINT)
            output, _ = process.communicate(timeout=PATIENT_S)
        finally:
            process.kill()
    assert process.returncode == 0, terminal.close()
    terminal.close()

    stopped, done, url = output.split()
    assert stopped == "interrupted"
    assert 0 < int(done) < 100
    run = SearchRun.attach(url)
    assert run.state == "stopped"
    wait_until(lambda: pods_of(run, namespace) == [])


def test_a_driver_that_cannot_start_is_told(
    client: Client,
    cluster: SearchKubeCluster,
    namespace: str,
    bucket: FarBucket,
) -> None:
    """With what Kubernetes says; given up, nothing is left of it."""
    own = cluster.spec
    assert own is not None
    account = own.driver.model_copy(update={"service_account": "nosuch"})
    cluster.spec = own.model_copy(update={"driver": account})
    try:
        run = DaskSearchCV(
            search(range(2), 0.1), client=client, store=bucket.url
        ).submit(X, y)
        with pytest.raises(PodStartError, match="nosuch"):
            run.result(60)
    finally:
        cluster.spec = own

    run.cancel()
    with pytest.raises(RunCancelledError):
        run.result(10)
    wait_until(lambda: not any(run.run_id in one for one in objects_of(namespace)))


def test_a_tracker_of_this_machine_is_refused(
    client: Client, bucket: FarBucket
) -> None:
    """The driver's pod does not reach it; no run is left."""
    before = [run.run_id for run in SearchRun.list(bucket.url)]
    tracker = MlflowTracker(tracking_uri="sqlite:///mlflow.db")
    own = DaskSearchCV(
        search(range(2), 0.1), client=client, store=bucket.url, tracker=tracker
    )

    with pytest.raises(TrackerError, match="is a pod, which does not reach sqlite"):
        own.submit(X, y)

    assert [run.run_id for run in SearchRun.list(bucket.url)] == before


def test_a_driver_may_do_what_it_does_and_is_refused_more(
    cluster: SearchKubeCluster, namespace: str, tmp_path: Path
) -> None:
    """Asked of Kubernetes itself, for every verb on all that there is; and tried."""
    spec = cluster.spec
    assert spec is not None
    order = DriverJobSpec(
        run_id="20261125-000000-00000000",
        job="run-rights",
        module="none",
        request={},
        signing_key="none",
    )

    async def made(api: KubernetesApi) -> None:  # without a pod
        job = driver_job.driver_job(cluster.name, namespace, spec, order)
        owner = await api.create(job)
        for one in driver_job.companions(cluster.name, spec, order, owner):
            await api.create(one)

    asked(made, namespace)
    try:
        allowed = asked(lambda api: rights_of(api, order.job, cluster.name), namespace)
        with token_of(namespace, order.job) as token:
            own = kubeconfig_with(token, namespace, tmp_path / "kubeconfig")
            answers = {call: tried(own, *call, namespace) for call in REFUSED}
            good = tried(own, "GET", "pods", namespace)
    finally:
        asked(lambda api: api.delete("Job", order.job), namespace)

    assert set(answers.values()) == {403}, answers
    assert good == 200  # it was not for a bad token
    assert allowed == {
        ("list", "pods", ""),
        ("list", "deployments", ""),
        ("get", "pods/log", ""),
        ("get", "daskclusters", cluster.name),
        ("delete", "daskclusters", cluster.name),
        ("delete", "daskautoscalers", cluster.name),
        ("patch", "daskworkergroups", f"{cluster.name}-default"),
        ("delete", "jobs", order.job),
    }


REFUSED = (
    ("GET", "secrets"),
    ("GET", f"secrets/{USERS_SECRET}"),
    ("POST", "pods"),
    ("DELETE", "pods/some"),
    ("POST", "pods/some/exec"),
    ("POST", "batch/v1 jobs"),
    ("DELETE", "batch/v1 jobs/another"),
    ("GET", "kubernetes.dask.org/v1 daskclusters"),
    ("DELETE", "kubernetes.dask.org/v1 daskclusters/another"),
    ("PATCH", "kubernetes.dask.org/v1 daskworkergroups/another-default"),
    ("POST", "rbac.authorization.k8s.io/v1 rolebindings"),
)
GROUPS = {
    "": ("pods", "pods/log", "pods/exec", "secrets", "configmaps", "services", "nodes"),
    "apps": ("deployments",),
    "batch": ("jobs",),
    "kubernetes.dask.org": ("daskclusters", "daskworkergroups", "daskautoscalers"),
    "rbac.authorization.k8s.io": ("roles", "rolebindings", "clusterroles"),
}
VERBS = (
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
)


async def rights_of(
    api: KubernetesApi, account: str, cluster: str
) -> set[tuple[str, str, str]]:
    """Ask what an account may do, to anything, to its own, and elsewhere."""
    found = set()
    for group, resources in GROUPS.items():
        for resource in resources:
            for verb in VERBS:
                for name in ("", cluster, f"{cluster}-default", account, "another"):
                    if await may(api, account, group, resource, verb, name):
                        found.add((verb, resource, name))
    # What is allowed without a name is so for every name.
    general = {(verb, resource) for verb, resource, name in found if not name}
    return {one for one in found if not one[2] or one[:2] not in general}


async def may(
    api: KubernetesApi, account: str, group: str, resource: str, verb: str, name: str
) -> bool:
    """Ask one question."""
    resource, _, part = resource.partition("/")
    attributes = {
        "namespace": api.namespace,
        "group": group,
        "resource": resource,
        "subresource": part,
        "verb": verb,
        "name": name,
    }
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": f"system:serviceaccount:{api.namespace}:{account}",
            "groups": ["system:serviceaccounts", "system:authenticated"],
            "resourceAttributes": attributes,
        },
    }
    async with api.connection.call_api(
        "POST",
        version="authorization.k8s.io/v1",
        url="subjectaccessreviews",
        json=review,
    ) as answer:
        return bool(answer.json()["status"]["allowed"])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_goes_on_with_another_job(
    cluster: SearchKubeCluster, client: Client, namespace: str, bucket: FarBucket
) -> None:
    """Cancelled, and resumed by a Job of its own; who attaches by name can do that."""
    numbers = range(7000, 7020)
    run = DaskSearchCV(search(numbers, 0.3), client=client, store=bucket.url).submit(
        X, y
    )
    wait_until(lambda: run.progress().fits_done > 5, within_s=PATIENT_S)
    [pod] = pods_of(run, namespace)
    assert_drivers_pod(pod["spec"])
    run.cancel()
    with pytest.raises(RunCancelledError):
        run.result(90)

    with (
        kube_cluster(name=cluster.name, namespace=namespace) as again,
        again.get_client() as other,
    ):
        assert again.spec == load_spec(cluster.spec)
        run.resume(other)
        found = run.result(PATIENT_S)

    as_plain(found, numbers)


def assert_drivers_pod(pod: dict[str, Any]) -> None:
    """Assert what a driver's pod promises, as Kubernetes has it."""
    [container] = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["serviceAccountName"].startswith("run-")
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["resources"]["limits"] == container["resources"]["requests"]
    for variable in container["env"]:
        assert "PRIVATE" not in variable.get("value", "")
