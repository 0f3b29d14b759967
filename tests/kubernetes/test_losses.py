"""What is lost on the way: connections, pods; and what of a search is not."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import DaskSearchCV, SearchRun, kube_cluster
from tests.kubernetes.conftest import asked
from tests.kubernetes.estimators import Sleeper
from tests.kubernetes.watching import FitLog, breaking_kubeconfig
from tests.oracle.structure import difference
from tests.processes import ROOT, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from distributed import Client

    from dask_hpsearch.clusters.kubernetes.cluster import SearchKubeCluster

X, y = np.arange(40.0).reshape(20, 2), np.arange(20) % 2
NOTICE_S = 8  # of the tests' spec
MARGIN_S = (
    12  # until Kubernetes has told the pod, and has seen its end, on a busy machine
)
_logger = logging.getLogger(__name__)


def search(numbers: range, seconds: float) -> GridSearchCV:
    """Make a search whose fits say in their pods' logs what they do."""
    return GridSearchCV(
        Sleeper(seconds=seconds), {"number": numbers}, cv=2, error_score="raise"
    )


def as_plain(found: GridSearchCV, numbers: range) -> None:
    """Assert that a fitted search equals one of this process."""
    found.set_params(estimator__seconds=0)
    found.best_estimator_.set_params(seconds=0)
    assert difference(search(numbers, 0).fit(X, y), found) is None


def test_a_cut_connection_is_not_noticed(
    cluster: SearchKubeCluster, namespace: str, tmp_path: Path
) -> None:
    """Five cuts in one search: the same result, and no fit runs twice."""
    numbers = range(1000, 1030)
    cut = []
    done = threading.Event()
    with (
        breaking_kubeconfig(tmp_path) as (kubeconfig, proxy),
        FitLog(cluster.name, namespace) as log,
        kube_cluster(
            name=cluster.name, namespace=namespace, kubeconfig=kubeconfig
        ) as again,
        again.get_client() as client,
    ):
        client.wait_for_workers(1, timeout=60)

        def cut_often() -> None:
            while len(cut) < 5 and not done.wait(0.8):
                if log.counts("began", numbers):
                    cut.append(proxy.cut())

        cutting = threading.Thread(target=cut_often)
        cutting.start()
        found = DaskSearchCV(search(numbers, 0.5), client=client).fit(X, y)
        done.set()
        cutting.join()
        wait_until(lambda: len(log.counts("ended", numbers)) == 60)
        began = log.counts("began", numbers)

    as_plain(found.search_, numbers)
    assert len(cut) == 5
    assert all(cut)
    assert set(began.values()) == {1}


SUBMIT = """
import os, signal, sys
import numpy as np
from dask_hpsearch import DaskSearchCV, SearchRun, kube_cluster
from tests.kubernetes.test_losses import X, search, y
name, namespace, store = sys.argv[1:]
cluster = kube_cluster(name=name, namespace=namespace, quiet=True)
client = cluster.get_client()
client.wait_for_workers(1)
run = DaskSearchCV(search(range(3000, 3020), 0.3), client=client, store=store).submit(X, y)
print(run.url, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_submitted_search_outlives_its_client(
    cluster: SearchKubeCluster, namespace: str, tmp_path: Path
) -> None:
    """The client is killed at once; the result is there for another process."""
    done = subprocess.run(
        [sys.executable, "-c", SUBMIT, cluster.name, namespace, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.stdout, done.stderr

    run = SearchRun.attach(done.stdout.strip())
    run.wait(120)

    as_plain(run.result(), range(3000, 3020))


def longest_there(cluster: str, namespace: str) -> dict[str, Any]:
    """Return the worker's pod that has been there longest, and so has work."""
    labels = f"dask.org/cluster-name={cluster},dask.org/component=worker"
    pods = asked(lambda api: api.list("Pod", labels), namespace)
    working = [one for one in pods if "deletionTimestamp" not in one["metadata"]]
    oldest: dict[str, Any] = min(working, key=lambda one: one["status"]["startTime"])
    return oldest


def workers_of(client: Client) -> list[str]:
    """Return the workers' addresses, as the scheduler knows them."""
    return list(client.scheduler_info(n_workers=-1)["workers"])


@pytest.mark.parametrize(
    ("deletions", "candidates"),
    [
        (2, 24),
        pytest.param(5, 100, marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
)
def test_a_worker_that_is_told_to_end_loses_nothing(
    cluster: SearchKubeCluster, namespace: str, deletions: int, candidates: int
) -> None:
    """Its fits end or are given back within the notice; no finished one runs again."""
    first = 20_000 + 1000 * deletions  # pods' logs have what earlier tests fitted, too
    numbers = range(first, first + candidates)
    gone_after: list[float] = []
    with cluster.get_client() as client, FitLog(cluster.name, namespace) as log:
        cluster.scale(2)
        client.wait_for_workers(2, timeout=60)

        def delete_one() -> None:
            client.wait_for_workers(2, timeout=90)
            pod = longest_there(cluster.name, namespace)
            address = pod["status"]["podIP"]
            began = time.monotonic()
            asked(lambda api: api.delete("Pod", pod["metadata"]["name"]), namespace)
            wait_until(lambda: not any(address in one for one in workers_of(client)))
            gone_after.append(time.monotonic() - began)

        def delete_some() -> None:
            wait_until(lambda: log.counts("began", numbers))
            for _ in range(deletions):
                delete_one()

        deleting = threading.Thread(target=delete_some)
        deleting.start()
        found = DaskSearchCV(search(numbers, 1.0), client=client).fit(X, y)
        deleting.join()
        wait_until(lambda: len(log.counts("ended", numbers)) == 2 * candidates)
        ended = log.counts("ended", numbers)

    as_plain(found.search_, numbers)
    _logger.info("workers were gone after %s s", [round(one, 1) for one in gone_after])
    assert set(ended.values()) == {1}
    assert len(gone_after) == deletions
    assert max(gone_after) < NOTICE_S + MARGIN_S
