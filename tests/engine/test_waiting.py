"""A search without workers, on a cluster that knows why there are none."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest
from distributed import Client
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB

from dask_hpsearch import DaskSearchCV, local_cluster
from dask_hpsearch.exceptions import HPSearchError, NoWorkersError, VersionSkewError
from tests.estimators import Deed, flowers, seen
from tests.processes import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from distributed import LocalCluster

X, y = flowers()


class Reasons:
    """What a cluster says, and how often it was asked."""

    def __init__(self, cluster: LocalCluster, error: HPSearchError | None) -> None:
        self.error = error
        self.asked = 0
        cluster.why_no_workers = self.why  # type: ignore[attr-defined]

    def why(self, *, permanent: bool = False) -> HPSearchError | None:
        """Answer as a cluster on Kubernetes does."""
        del permanent
        self.asked += 1
        return self.error


@pytest.mark.parametrize("kind", [NoWorkersError, VersionSkewError])
def test_the_clusters_reason_is_told(kind: type[HPSearchError]) -> None:
    """An error of the same kind, which says how long was waited too."""
    search = GridSearchCV(GaussianNB(), {"var_smoothing": [1e-9]}, cv=2)
    with (
        local_cluster(0, 1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        Reasons(cluster, kind("the pods have no quota"))

        with pytest.raises(kind, match=r"within 0.5 s: the pods have no quota"):
            DaskSearchCV(search, client=client, worker_timeout=0.5).fit(X, y)


def test_a_cluster_that_says_nothing_is_waited_for() -> None:
    """As one that knows no reasons at all: the error has general advice."""
    search = GridSearchCV(GaussianNB(), {"var_smoothing": [1e-9]}, cv=2)
    with (
        local_cluster(0, 1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        Reasons(cluster, None)

        with pytest.raises(NoWorkersError, match=r"cluster.scale\(2\)"):
            DaskSearchCV(search, client=client, worker_timeout=0.5).fit(X, y)


@pytest.mark.parametrize("reason", ["crash", None])
def test_workers_that_do_not_come_back_end_a_search_if_the_cluster_says_so(
    tmp_path: Path, reason: str | None
) -> None:
    """One that says nothing is waited for, however long it takes."""
    log, gate = tmp_path / "log", tmp_path / "gate"
    deed = Deed(log=str(log), gate=str(gate), client=os.getpid())
    search = GridSearchCV(deed, {"number": [0, 1]}, cv=2)
    with (
        local_cluster(1, 1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.wait_for_workers(1)
        error = NoWorkersError("pods use too much memory") if reason else None
        reasons = Reasons(cluster, error)

        def lose() -> None:
            wait_until(lambda: seen(log, "wait"))
            cluster.scale(0)
            if reason is None:
                wait_until(lambda: reasons.asked >= 1)
                gate.touch()
                cluster.scale(1)

        losing = threading.Thread(target=lose)
        losing.start()
        own = DaskSearchCV(search, client=client, worker_timeout=1)
        if reason:
            with pytest.raises(NoWorkersError, match="too much memory"):
                own.fit(X, y)
        else:
            assert len(own.fit(X, y).cv_results_["params"]) == 2
        losing.join()
