"""What Kubernetes ends, or does not start, while a search runs: named, and counted."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import DaskSearchCV
from dask_hpsearch.errors import PodStartError, RunFailedError
from tests.kubernetes.estimators import ROWS, Hoarder, Swelling
from tests.kubernetes.test_jobs import pods_of
from tests.kubernetes.test_losses import X, y
from tests.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dask_hpsearch import SearchRun
    from dask_hpsearch.clusters.kube import SearchKubeCluster
    from tests.kubernetes.bucket import FarBucket

NAMED_WITHIN_S = 120.0


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
        client.wait_for_workers(1, timeout=60)
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

        with pytest.raises(
            PodStartError, match=r"asks for cpu 64, .*Nodes.*of cpu 2, memory"
        ):
            run.wait(NAMED_WITHIN_S)

    assert "asks for cpu 64" in run.logs()
    assert "asks for cpu 64" in run.watch.text
    run.cancel()


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
    assert "ended 3 times" in said
    assert "its limit of 768Mi (OOMKilled), in the refit" in said
    assert "driver: {memory: 2Gi}" in said
    assert "an earlier pod of this driver has ended" in run.logs()
    wait_until(lambda: pods_of(run, namespace) == [])
