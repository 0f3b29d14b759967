"""A cluster that adapts; by itself, since four workers and others' do not fit on a small node."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import DaskSearchCV, kube_cluster
from dask_hpsearch.config.load import load_spec
from tests.kubernetes.conftest import SPEC, asked
from tests.kubernetes.estimators import Sleeper
from tests.processes import wait_until

if TYPE_CHECKING:
    from pathlib import Path

X, y = np.arange(40.0).reshape(20, 2), np.arange(20) % 2


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_cluster_grows_with_work_and_ends_without(
    namespace: str, image: str, home: Path
) -> None:
    """Adapting from no worker to four and back; then the idle time-out."""
    spec = load_spec(SPEC, image=image, namespace=namespace, idle_timeout=60)
    with kube_cluster(spec, n_workers=0) as cluster, cluster.get_client() as client:
        cluster.adapt(0, 4)
        own = GridSearchCV(Sleeper(seconds=1), {"number": range(30)}, cv=2)
        counts: set[int] = set()
        done = threading.Event()

        def count() -> None:
            while not done.wait(0.2):
                counts.add(len(client.scheduler_info(n_workers=-1)["workers"]))

        counting = threading.Thread(target=count)
        counting.start()
        found = DaskSearchCV(own, client=client).fit(X, y)
        wait_until(lambda: client.scheduler_info(n_workers=-1)["workers"] == {})
        done.set()
        counting.join()
        wait_until(
            lambda: (
                asked(lambda api: api.get("DaskCluster", cluster.name), namespace)
                is None
            ),
            within_s=150,
        )

    assert found.best_params_ == {"number": 0}
    assert {0, 4} <= counts <= {0, 1, 2, 3, 4}
