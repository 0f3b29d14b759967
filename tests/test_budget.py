"""Searches tell what they cost, and stop when they have spent what they may."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import DaskSearchCV, SearchRun, Tariff, local_cluster
from dask_hpsearch.budget import Budget, CostMeter
from dask_hpsearch.exceptions import SearchStoppedWarning
from dask_hpsearch.progress import text
from dask_hpsearch.progress.state import ProgressSnapshot
from tests.estimators import Deed, flowers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from distributed import LocalCluster

X, y = flowers()
# A fit's time costs dollars here, so that a test need not wait for an hour.
DEAR = Tariff(fixed_usd_hour=36_000.0, worker_usd_hour=36_000.0, dated="2026-01-01")


class Clock:
    """Seconds that a test lets pass."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Cluster:
    """Remembers how far it was scaled."""

    def __init__(self) -> None:
        self.scaled: list[int] = []

    def scale(self, n: int) -> None:
        self.scaled.append(n)


def test_workers_cost_as_long_as_they_are_there() -> None:
    """The cluster all the time, each worker from its coming to its going."""
    clock = Clock()
    meter = CostMeter(Tariff(1.0, 10.0), clock=clock)
    for now, workers in ((0.0, 0), (1800.0, 2), (3600.0, 1), (7200.0, 0)):
        clock.now = now
        meter.count(workers)
    clock.now = 10_800.0

    assert meter.usd == pytest.approx(3 * 1.0 + 0.5 * 20.0 + 1.0 * 10.0)


def test_a_driver_in_the_cluster_costs_its_node() -> None:
    """One on this machine does not: the tariff is the same."""
    clock, tariff = Clock(), Tariff(1.0, 10.0, driver_usd_hour=5.0)
    in_cluster = CostMeter(tariff, with_driver=True, clock=clock)
    here = CostMeter(tariff, clock=clock)
    clock.now = 7200.0

    assert in_cluster.usd == pytest.approx(2 * (1.0 + 5.0))
    assert here.usd == pytest.approx(2 * 1.0)


def test_what_earlier_drivers_have_spent_counts() -> None:
    """A limit is that of the run, not of one driver."""
    clock = Clock()
    meter = CostMeter(Tariff(1.0, 0.0), spent_usd=4.0, limit_usd=5.0, clock=clock)

    assert not meter.is_over
    clock.now = 3600.0
    assert meter.is_over


def test_a_spent_budget_stops_once_and_scales_to_zero() -> None:
    """Not before there is something to stop."""
    clock, cluster, stopped = Clock(), Cluster(), []
    budget = Budget(CostMeter(Tariff(1.0, 1.0), limit_usd=1.0, clock=clock), cluster)
    clock.now = 7200.0
    budget.count(1)
    budget.stop = stopped.append

    budget.count(1)
    budget.count(1)
    budget.close()

    assert stopped == ["max_cost"]
    assert cluster.scaled == [0]


def test_a_cluster_that_cannot_be_scaled_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The search stops all the same."""
    clock, stopped = Clock(), []
    budget = Budget(CostMeter(Tariff(1.0, 1.0), limit_usd=1.0, clock=clock), None)
    budget.stop = stopped.append
    clock.now = 7200.0

    budget.count(1)
    budget.close()

    assert stopped == ["max_cost"]
    assert "scale the cluster down where you created it" in caplog.text


@pytest.fixture
def dear_cluster() -> Iterator[LocalCluster]:
    """A cluster with two slots, where seconds cost dollars."""
    with local_cluster(1, 2, dashboard_address=":0") as cluster:
        cluster.tariff = DEAR
        yield cluster


def slow_search(n_candidates: int) -> GridSearchCV:
    """A search that takes a moment for each fit."""
    fit = Deed(seconds=0.1, client=os.getpid())
    return GridSearchCV(fit, {"number": list(range(n_candidates))}, cv=2)


def test_a_search_stops_at_its_limit_and_lets_the_workers_go(
    dear_cluster: LocalCluster, tmp_path: Path
) -> None:
    """With the candidates that are complete; the run tells what was spent."""
    gone = threading.Event()
    with dear_cluster.get_client() as client:
        found = DaskSearchCV(
            slow_search(500), client=client, max_cost=100.0, store=tmp_path / "store"
        )

        with pytest.warns(SearchStoppedWarning, match="max_cost"):
            found.fit(X, y)

        assert found.stopped_ == "max_cost"
        assert 0 < len(found.cv_results_["params"]) < 500
        snapshot = SearchRun.attach(found.run_url_).progress()
        assert snapshot.cost_usd >= 100.0
        while dear_cluster.scheduler.workers:
            gone.wait(0.05)


def test_a_search_without_a_limit_tells_its_cost(
    dear_cluster: LocalCluster, tmp_path: Path
) -> None:
    """In its run, for whoever looks from elsewhere."""
    with dear_cluster.get_client() as client:
        store = tmp_path / "store"
        found = DaskSearchCV(slow_search(2), client=client, store=store).fit(X, y)

    run = SearchRun.attach(found.run_url_)
    assert found.stopped_ is None
    assert run.progress().cost_usd > 0
    assert "about $" in run._repr_html_()


def test_a_cluster_without_prices_has_no_cost(client: object, tmp_path: Path) -> None:
    """And a limit there is refused, with the way out."""
    store = tmp_path / "store"
    found = DaskSearchCV(slow_search(1), client=client, store=store).fit(X, y)

    assert SearchRun.attach(found.run_url_).progress().cost_usd is None
    with pytest.raises(ValueError, match="gke_cluster"):
        DaskSearchCV(slow_search(1), client=client, max_cost=1.0).fit(X, y)


@pytest.mark.parametrize("limit", [0, -1.0, "10", True])
def test_a_limit_is_a_positive_number(limit: object) -> None:
    """What else it could mean is not guessed at."""
    with pytest.raises(ValueError, match="positive number of US dollars"):
        DaskSearchCV(slow_search(1), max_cost=limit).fit(X, y)


def test_the_cost_is_written_where_the_progress_is() -> None:
    """In a terminal and in a notebook alike."""
    snapshot = ProgressSnapshot(fits_done=1, fits_total=2, cost_usd=1.234)

    assert "about $1.23" in text.pace(snapshot)
    assert "about $1.23" in text.summary(snapshot)
    assert text.cost(0.001) == "less than $0.01"
