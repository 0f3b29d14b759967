"""What a search may ask of its cluster, from any provider."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from distributed import LocalCluster

from dask_hpsearch import Tariff, local_cluster
from dask_hpsearch.engine.client import no_workers, why_no_workers
from dask_hpsearch.engine.cluster_features import (
    ClusterFeatures,
    as_features,
    features_of,
)
from dask_hpsearch.exceptions import HPSearchError, NoWorkersError
from dask_hpsearch.execution.cluster_end import end_cluster
from dask_hpsearch.execution.cost import tariff_of

if TYPE_CHECKING:
    from distributed import Client

TARIFF = Tariff(fixed_usd_hour=1.0, worker_usd_hour=2.0)


class Closing:
    """A cluster that knows nothing of dask_hpsearch."""

    closed = False

    def close(self) -> None:
        """Note that it is closed."""
        self.closed = True


class Silent(ClusterFeatures):
    """A cluster that does not answer."""

    def why_no_workers(self, *, permanent: bool = False) -> HPSearchError | None:
        """Fail, as a cluster whose Kubernetes is not reached."""
        raise OSError(permanent)


def client_of(cluster: Any) -> Client:
    """Return as much of a client as has a cluster."""
    client: Any = SimpleNamespace(cluster=cluster)
    return client  # type: ignore[no-any-return]


@pytest.mark.parametrize("client", [None, client_of(None), client_of(Closing())])
def test_another_cluster_knows_nothing(client: Client | None) -> None:
    """The defaults are what a search does without."""
    features = features_of(client)

    assert not features.on_kubernetes
    assert not features.runs_drivers
    assert features.attach_options is None
    assert features.tariff is None
    assert features.why_no_workers() is None
    assert list(features.problems()) == []


def test_any_cluster_may_be_given_a_tariff() -> None:
    """By its attribute, as the error about max_cost says."""
    cluster: Any = Closing()
    cluster.tariff = TARIFF

    found = tariff_of(client_of(cluster))

    assert found is not None
    assert Tariff(**found) == TARIFF


def test_something_else_is_no_tariff() -> None:
    """A number could be anything."""
    cluster: Any = Closing()
    cluster.tariff = 2.0

    assert tariff_of(client_of(cluster)) is None


def test_another_cluster_is_closed_at_its_end() -> None:
    """As its user would close it."""
    cluster = Closing()

    end_cluster(client_of(cluster))

    assert cluster.closed


def test_a_local_cluster_has_features_of_its_own() -> None:
    """It is used as it is, and remains Dask's."""
    with local_cluster(0, 1, dashboard_address=":0") as cluster:
        assert as_features(cluster) is cluster
        assert isinstance(cluster, LocalCluster)
        as_features(cluster).end()
        assert cluster.status.name == "closed"


def test_a_cluster_that_does_not_answer_is_no_reason() -> None:
    """The search has an error of its own."""
    assert why_no_workers(Silent()) is None
    assert isinstance(no_workers(1.0, Silent()), NoWorkersError)
