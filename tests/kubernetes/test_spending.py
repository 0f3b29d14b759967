"""A submitted search that has spent what it may lets its workers go, with nobody there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import DaskSearchCV, Tariff
from tests.kubernetes.conftest import asked
from tests.kubernetes.estimators import Sleeper
from tests.kubernetes.test_losses import X, y

if TYPE_CHECKING:
    from dask_hpsearch.clusters.kubernetes.cluster import SearchKubeCluster
    from tests.kubernetes.bucket import FarBucket

# A second of a worker costs ten dollars here, so that a test need not wait for an hour.
DEAR = Tariff(fixed_usd_hour=0.0, worker_usd_hour=36_000.0)
LIMIT = 400.0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_workers_go_when_a_submitted_search_has_spent_what_it_may(
    cluster: SearchKubeCluster, bucket: FarBucket
) -> None:
    """Its driver, in a Job, scales the cluster to zero; the candidates it has are kept."""
    own = GridSearchCV(Sleeper(seconds=0.3), {"number": range(400)}, cv=2)
    cluster.tariff = DEAR
    try:
        with cluster.get_client() as client:
            run = DaskSearchCV(
                own, client=client, store=bucket.url, max_cost=LIMIT
            ).submit(X, y)

        run.wait(200)

        assert run.state == "stopped", run.logs()
        assert 0 < len(run.result().cv_results_["params"]) < 400
        assert run.progress().cost_usd >= LIMIT
        assert workers_wanted(cluster) == 0
    finally:
        cluster.tariff = None
        cluster.scale(2)
        with cluster.get_client() as client:
            client.wait_for_workers(2, timeout=120)


def workers_wanted(cluster: SearchKubeCluster) -> int:
    """How many workers the cluster is to have, as Kubernetes knows it."""
    group = f"{cluster.name}-default"
    found: Any = asked(
        lambda api: api.get("DaskWorkerGroup", group), str(cluster.namespace)
    )
    return int(found["spec"]["worker"]["replicas"])
