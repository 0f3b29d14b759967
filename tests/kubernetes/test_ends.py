"""What Kubernetes ends, or does not start, while a search runs: named, and counted."""

from __future__ import annotations

import getpass
import re
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import DaskSearchCV, kube_cluster
from dask_hpsearch.clusters import tls
from dask_hpsearch.config.load import load_spec
from dask_hpsearch.exceptions import NoWorkersError, PodStartError, RunFailedError
from tests.kubernetes.conftest import SPEC
from tests.kubernetes.estimators import ROWS, Hoarder, Swelling
from tests.kubernetes.test_jobs import pods_of
from tests.kubernetes.test_losses import X, y
from tests.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dask_hpsearch import SearchRun
    from dask_hpsearch.clusters.kubernetes.cluster import SearchKubeCluster
    from tests.kubernetes.bucket import FarBucket

NAMED_WITHIN_S, PATIENT_S = 120.0, 180.0
NO_ROOM = r"requests cpu 64, .*nodes.*of cpu \d+, memory"


@contextmanager
def driver_with(cluster: SearchKubeCluster, **changes: Any) -> Iterator[None]:
    """Give drivers of a cluster other sizes for a while."""
    own = cluster.spec
    assert own is not None
    driver = own.driver.model_copy(update=changes)
    cluster.spec = own.model_copy(update={"driver": driver})
    try:
        yield
    finally:
        cluster.spec = own


def submitted(
    search: GridSearchCV, cluster: SearchKubeCluster, bucket: FarBucket
) -> SearchRun:
    """Submit a search, to be driven by a Job."""
    with cluster.get_client() as client:
        return DaskSearchCV(search, client=client, store=bucket.url).submit(X, y)


@pytest.mark.timeout(400)
def test_a_fit_that_fills_its_disk_fails_by_name(cluster: SearchKubeCluster) -> None:
    """Its worker stays, and the others have their scores."""
    assert len(X) == ROWS
    halves = [(np.arange(10), np.arange(10, 20))]
    search = GridSearchCV(
        Hoarder(seconds=0.1), {"number": range(4)}, cv=halves, error_score=-1.0
    )
    search.set_params(refit=False)
    cluster.scale(2)

    with cluster.get_client() as client:
        client.wait_for_workers(1, timeout=180)
        with pytest.warns(FitFailedWarning, match=r"(?s)FitDiskError.*workers.cache"):
            found = DaskSearchCV(search, client=client).fit(X, y)

    scores = found.cv_results_["split0_test_score"]
    assert [score == -1.0 for score in scores] == [False, True, False, False]


def test_a_driver_that_finds_no_room_is_told(
    cluster: SearchKubeCluster, bucket: FarBucket
) -> None:
    """With what it asks for, and what nodes have; it is not waited for for ever."""
    search = GridSearchCV(Hoarder(), {"number": [0]}, cv=2)
    with driver_with(cluster, cpu="64"):
        run = submitted(search, cluster, bucket)

        with pytest.raises(PodStartError, match=NO_ROOM):
            run.wait(NAMED_WITHIN_S)

    assert "requests cpu 64" in run.logs()
    assert "requests cpu 64" in run._job_watch.text
    run.cancel()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_workers_that_find_no_room_are_told(
    namespace: str, image: str, home: Path
) -> None:
    """In the search's error, and in the list of clusters meanwhile."""
    del home
    workers = load_spec(SPEC).workers.model_dump() | {"cpu": "64"}
    spec = load_spec(SPEC, image=image, namespace=namespace, workers=workers)
    search = GridSearchCV(Hoarder(), {"number": [0]}, cv=2)

    with (
        kube_cluster(spec, n_workers=1, timeout=240) as made,
        made.get_client() as client,
    ):
        with pytest.raises(NoWorkersError, match=NO_ROOM):
            DaskSearchCV(search, client=client).fit(X, y)
        shown = listed(namespace)

    assert made.name in shown
    assert re.search(NO_ROOM, shown)


def listed(namespace: str, *options: str) -> str:
    """Call ``dask-hpsearch clusters`` as in a terminal; return what it shows."""
    program = [sys.executable, "-W", "ignore", "-m", "dask_hpsearch.cli", "clusters"]
    done = subprocess.run(
        [*program, "--namespace", namespace, *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENT_S,
    )
    return done.stdout + done.stderr


@pytest.mark.timeout(400)
def test_clusters_are_listed_and_ended(
    cluster: SearchKubeCluster, namespace: str, image: str
) -> None:
    """With their owner, and since when there has been no work; another one stays."""
    with kube_cluster(
        SPEC, image=image, namespace=namespace, n_workers=0, timeout=240
    ) as made:
        before = listed(namespace)
        ended = listed(namespace, "--end", made.name)
        after = listed(namespace)

    row = next(line for line in before.splitlines() if line.startswith(made.name))
    assert getpass.getuser() in row
    assert "0/0" in row
    assert "idle for" in row
    assert ended == f"deleted the Dask cluster {made.name}\n"
    assert made.name not in after
    assert cluster.name in after
    assert "there is no Dask cluster 'nosuch'" in listed(namespace, "--end", "nosuch")


def test_certificates_of_an_earlier_cluster_of_the_name_are_renewed(
    cluster: SearchKubeCluster, namespace: str, home: Path
) -> None:
    """It was deleted elsewhere and created again under its name."""
    folder = home / "clusters" / f"{namespace}.{cluster.name}"
    current = (folder / tls.CA_FILE).read_text()
    tls.issue(cluster.name).of("client").save(folder)

    with (
        kube_cluster(name=cluster.name, namespace=namespace) as again,
        again.get_client() as client,
    ):
        assert client.submit(int).result(60) == 0

    assert (folder / tls.CA_FILE).read_text() == current


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_driver_that_is_oom_killed_again_and_again_fails(
    cluster: SearchKubeCluster, namespace: str, bucket: FarBucket
) -> None:
    """It is named at once, and given up after three times, with what it needs."""
    search = GridSearchCV(Swelling(seconds=0.1), {"number": [0, 1]}, cv=2)
    cluster.scale(1)
    with driver_with(cluster, memory="768Mi"):
        run = submitted(search, cluster, bucket)
    wait_until(lambda: "OOMKilled" in run.logs(), within_s=NAMED_WITHIN_S)

    with pytest.raises(RunFailedError) as caught:
        run.result(400)

    assert run.state == "failed"
    said = str(caught.value)
    assert "was killed 3 times" in said
    assert "its limit of 768Mi (OOMKilled), in the refit" in said
    assert "driver: {memory: 2Gi}" in said
    assert "an earlier pod of this driver has ended" in run.logs()
    wait_until(lambda: pods_of(run, namespace) == [])
