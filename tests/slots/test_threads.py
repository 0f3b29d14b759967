"""A fit whose estimator asks for threads gets those of slots that no other fit needs."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from threadpoolctl import threadpool_info

from dask_hpsearch import DaskSearchCV, local_cluster
from dask_hpsearch.slots import threads
from tests.oracle.structure import difference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client

X, Y = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 2
N_SLOTS = 4


class CountsThreads(ClassifierMixin, BaseEstimator):
    """Notes how many threads parallel calls, BLAS and joblib have while it is fitted."""

    def __init__(
        self, log: str = "", number: int = 0, n_jobs: Any = None, seconds: float = 0.3
    ) -> None:
        self.log = log
        self.number = number
        self.n_jobs = n_jobs
        self.seconds = seconds

    def fit(self, X: Any, y: Any) -> CountsThreads:
        """Write a line."""
        found = {
            joblib.effective_n_jobs(8),
            *(one["num_threads"] for one in threadpool_info()),
            int(os.environ["LOKY_MAX_CPU_COUNT"]),
        }
        with Path(self.log).open("a") as file:
            file.write(f"{self.number} {' '.join(map(str, sorted(found)))}\n")
        time.sleep(self.seconds)
        self.classes_ = np.unique(y)
        return self

    def predict(self, X: Any) -> Any:
        """Return the first class."""
        return np.zeros(len(X), int)


@pytest.fixture(scope="module")
def four_slots() -> Iterator[Client]:
    """Return the client of one worker with four slots."""
    with (
        local_cluster(1, N_SLOTS, dashboard_address=":0") as cluster,
        cluster.get_client() as client,
    ):
        yield client


def threads_of(
    client: Client, log: Path, numbers: range, **settings: Any
) -> list[list[int]]:
    """Fit candidates on one split each; return the threads of each fit, in order."""
    grid = {"number": list(numbers)}
    one_split = [(np.arange(30), np.arange(30, 60))]
    search = GridSearchCV(
        CountsThreads(str(log), **settings), grid, cv=one_split, refit=False
    )
    DaskSearchCV(search, client=client).fit(X, Y)
    lines = sorted(log.read_text().splitlines())
    return [[int(one) for one in line.split()[1:]] for line in lines]


def test_a_single_fit_has_the_threads_of_all_slots(
    four_slots: Client, tmp_path: Path
) -> None:
    """joblib's, those of BLAS and those of OpenMP."""
    found = threads_of(four_slots, tmp_path / "log", range(1), n_jobs=-1)

    assert found == [[N_SLOTS]]


def test_few_fits_share_the_threads_of_all_slots(
    four_slots: Client, tmp_path: Path
) -> None:
    """Half of them each, if the one that was sent first begins first."""
    found = threads_of(four_slots, tmp_path / "log", range(2), n_jobs=-1)

    assert found in ([[2], [2]], [[1], [N_SLOTS]])


@pytest.mark.parametrize("n_jobs", [None, 1])
def test_a_fit_that_does_not_ask_has_one_thread(
    n_jobs: Any, four_slots: Client, tmp_path: Path
) -> None:
    """Its sums are those of a fit among others."""
    found = threads_of(four_slots, tmp_path / "log", range(1), n_jobs=n_jobs)

    assert found == [[1]]


def test_fits_among_many_have_one_thread_each(
    four_slots: Client, tmp_path: Path
) -> None:
    """Those of a full cluster, and never more threads than slots at the end."""
    found = threads_of(four_slots, tmp_path / "log", range(12), n_jobs=-1)

    assert found[:8] == [[1]] * 8
    assert sum(one for (one,) in found[8:]) <= 2 * N_SLOTS


def test_a_slot_that_had_more_threads_has_one_again(
    four_slots: Client, tmp_path: Path
) -> None:
    """Threads are lent for one fit."""
    threads_of(four_slots, tmp_path / "first", range(1), n_jobs=-1)

    found = threads_of(four_slots, tmp_path / "second", range(8), n_jobs=-1)

    assert found[:4] == [[1]] * 4


def test_a_forest_with_more_threads_is_the_same(four_slots: Client) -> None:
    """What scikit-learn promises of ``n_jobs`` holds."""
    forest = RandomForestClassifier(20, random_state=0, n_jobs=-1)
    search = GridSearchCV(forest, {"max_depth": [2]}, cv=KFold(2))

    found = DaskSearchCV(search, client=four_slots).fit(X, Y)

    assert difference(search.fit(X, Y), found.search_) is None


@pytest.mark.parametrize(
    ("estimator", "parameters", "expected"),
    [
        (RandomForestClassifier(), None, False),
        (RandomForestClassifier(n_jobs=1), None, False),
        (RandomForestClassifier(n_jobs=2), None, True),
        (RandomForestClassifier(), {"n_jobs": -1}, True),
        (RandomForestClassifier(n_jobs=-1), {"n_jobs": 1}, False),
        (make_pipeline(RandomForestClassifier(n_jobs=-1)), None, True),
        (make_pipeline(LogisticRegression()), {"memory": None}, False),
        (object(), None, False),
    ],
)
def test_an_estimator_asks_by_its_n_jobs(
    estimator: Any, parameters: Any, expected: Any
) -> None:
    """That of any of its parts, with the candidate's parameters."""
    assert threads.asks_for_more(estimator, parameters) == expected
