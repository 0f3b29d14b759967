"""The public joblib backend tells the truth, and runs any joblib code."""

from __future__ import annotations

import os
import threading
from typing import Any

import joblib
import numpy as np
import pytest
from distributed import Client
from sklearn.datasets import load_iris
from sklearn.ensemble import BaggingClassifier, RandomForestClassifier
from sklearn.feature_selection import RFECV
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import pairwise_distances
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.tree import DecisionTreeClassifier

from dask_hpsearch import local_cluster
from dask_hpsearch.exceptions import ClientClosedError, FitKilledError, UnpicklableError
from dask_hpsearch.joblib_backend.session import gathering, slots_for

X, y = load_iris(return_X_y=True)


def pid_and_threads(_: int) -> tuple[int, int]:
    """Say where a task runs, and how many threads joblib would give it."""
    return os.getpid(), joblib.effective_n_jobs(-1)


def fill(array: np.ndarray, value: float) -> float:
    """Write to an argument, as some functions do."""
    array[:] = value
    return float(array.sum())


@pytest.mark.parametrize(
    ("n_jobs", "slots", "expected"),
    [
        (-1, 8, 8),
        (None, 8, 8),
        (3, 8, 3),
        (12, 8, 8),
        (-2, 8, 7),
        (-1, 0, 1),
        (2, 1, 1),
    ],
)
def test_n_jobs_means_slots(n_jobs: int | None, slots: int, expected: int) -> None:
    """n_jobs is resolved against the slots that there are."""
    assert slots_for(n_jobs, slots) == expected


def test_no_jobs_have_no_meaning() -> None:
    """Zero is refused, as by joblib."""
    with pytest.raises(ValueError, match="no meaning"):
        slots_for(0, 2)


def test_effective_n_jobs_is_the_truth(client: Client) -> None:
    """Whoever asks hears how many tasks really run at once."""
    with joblib.parallel_config("dask_hpsearch", client=client):
        told = [joblib.effective_n_jobs(n) for n in (-1, None, 1, 2, 9)]

    assert told == [2, 2, 1, 2, 2]


def test_tasks_run_in_slots_of_one_thread(client: Client) -> None:
    """Tasks leave this process; inside, all cores are one."""
    with joblib.parallel_config("dask_hpsearch", client=client):
        where = joblib.Parallel(n_jobs=-1)(
            joblib.delayed(pid_and_threads)(i) for i in range(40)
        )

    assert os.getpid() not in {pid for pid, _ in where}
    assert {threads for _, threads in where} == {1}


def test_one_job_stays_in_this_process(client: Client) -> None:
    """n_jobs=1 is one, here."""
    with joblib.parallel_config("dask_hpsearch", client=client):
        where = joblib.Parallel(n_jobs=1)(joblib.delayed(os.getpid)() for _ in range(3))

    assert set(where) == {os.getpid()}


def test_a_cluster_of_one_slot_runs_its_tasks_itself() -> None:
    """One slot is no reason to run anything in the client."""
    search = GridSearchCV(PidClassifier(), {"a": [1, 2, 3]}, cv=2, n_jobs=-1)
    with (
        local_cluster(1, 1, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
        joblib.parallel_config("dask_hpsearch", client=client),
    ):
        told = joblib.effective_n_jobs(-1)
        where = joblib.Parallel(n_jobs=-1)(
            joblib.delayed(os.getpid)() for _ in range(3)
        )
        search.fit(X, y)

    assert told == 1
    assert os.getpid() not in where
    assert os.getpid() not in search.cv_results_["mean_test_score"]


class PidClassifier(DecisionTreeClassifier):
    """Scores with the number of its process."""

    def __init__(self, a: int = 0) -> None:
        super().__init__()
        self.a = a

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        return os.getpid()


@pytest.mark.parametrize(
    "work",
    [
        lambda: pairwise_distances(X, n_jobs=-1),
        lambda: (
            RandomForestClassifier(10, n_jobs=-1, random_state=0).fit(X, y).predict(X)
        ),
        lambda: BaggingClassifier(random_state=0).fit(X, y).predict_proba(X),
        lambda: cross_val_score(LogisticRegression(max_iter=500), X, y),
        lambda: (
            cross_validate(
                DecisionTreeClassifier(random_state=0), X, y, return_estimator=True
            )["estimator"][0].tree_.threshold
        ),
        lambda: (
            permutation_importance(
                DecisionTreeClassifier(random_state=0).fit(X, y), X, y, random_state=0
            ).importances
        ),
        lambda: RFECV(DecisionTreeClassifier(random_state=0)).fit(X, y).ranking_,
    ],
    ids=["pairwise", "forest", "bagging", "cv-score", "cv", "permutation", "rfecv"],
)
def test_scikit_learn_computes_the_same_under_it(work: Any, client: Client) -> None:
    """Any scikit-learn code gives its plain result, without a crowd of threads."""
    plain = work()
    before = threading.active_count()

    with joblib.parallel_config("dask_hpsearch", client=client):
        ours = work()
        threads = threading.active_count()

    np.testing.assert_array_equal(ours, plain)
    assert threads - before < 20


def test_small_arrays_are_the_tasks_own(client: Client) -> None:
    """A task may write to an array of less than a megabyte, as under loky."""
    array = np.ones(20_000)

    with joblib.parallel_config("dask_hpsearch", client=client):
        sums = joblib.Parallel(n_jobs=2)(
            joblib.delayed(fill)(array, value) for value in (0.0, 2.0, 3.0)
        )

    assert sums == [0.0, 40_000.0, 60_000.0]
    assert array.sum() == 20_000.0


@pytest.mark.parametrize("size", [10, 20_000, 200_000])
def test_calls_write_to_arrays_of_their_own(client: Client, size: int) -> None:
    """Large ones are mapped, one copy for all; what a call writes stays its own."""
    array = np.ones(size)

    with joblib.parallel_config("dask_hpsearch", client=client):
        parallel = joblib.Parallel(n_jobs=2, batch_size=5)
        sums = parallel(joblib.delayed(doubled)(array, array) for _ in range(20))

    assert sums == [(2.0 * size, True)] * 20
    assert array.sum() == size


def doubled(array: np.ndarray, same: np.ndarray) -> tuple[float, bool]:
    """Double an array in place; return its sum, and whether its two names name it."""
    array *= 2
    return float(array.sum()), array is same


def test_results_come_as_they_are_done(client: Client) -> None:
    """joblib's generators work."""
    with joblib.parallel_config("dask_hpsearch", client=client):
        parallel = joblib.Parallel(n_jobs=2, return_as="generator_unordered")
        results = sorted(parallel(joblib.delayed(abs)(-i) for i in range(9)))

    assert results == list(range(9))


def test_an_error_is_the_first_in_order_with_its_traceback(client: Client) -> None:
    """The task's own exception is raised, with where it happened as a note."""
    with (
        joblib.parallel_config("dask_hpsearch", client=client),
        pytest.raises(ValueError, match="invalid literal") as caught,
    ):
        joblib.Parallel(n_jobs=2)(joblib.delayed(int)(text) for text in ("1", "x", "y"))

    assert "'x'" in str(caught.value)
    assert any("Traceback" in note for note in caught.value.__notes__)


def test_a_call_that_fails_leaves_nothing_to_the_next(client: Client) -> None:
    """Not even a task that joblib had made ready and not handed over by then."""
    with (
        joblib.parallel_config("dask_hpsearch", client=client),
        joblib.Parallel(n_jobs=2) as parallel,
    ):
        assert parallel(joblib.delayed(abs)(number) for number in (1, -2)) == [1, 2]
        backend = parallel._backend.get_nested_backend()
        left = joblib.parallel.BatchedCalls([joblib.delayed(abs)(-9)], backend)
        parallel._ready_batches.put(left)

        assert parallel(joblib.delayed(abs)(number) for number in (3, -4)) == [3, 4]


def test_a_task_that_kills_its_process_fails_by_name(client: Client) -> None:
    """Any joblib task is told as such, and the client stays usable."""
    with joblib.parallel_config("dask_hpsearch", client=client):
        with pytest.raises(FitKilledError, match=r"_exit was ended.* exit code 7"):
            joblib.Parallel(n_jobs=2)(joblib.delayed(os._exit)(7) for _ in range(2))
        after = joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(-1) for _ in range(2))

    assert after == [1, 1]


def test_what_does_not_pickle_is_named(client: Client) -> None:
    """A lock among the arguments is an error at once."""
    with (
        joblib.parallel_config("dask_hpsearch", client=client),
        pytest.raises(UnpicklableError, match="a call of id cannot be sent"),
    ):
        joblib.Parallel(n_jobs=2)(
            joblib.delayed(id)(threading.Lock()) for _ in range(2)
        )


def test_without_a_client_it_says_what_to_do() -> None:
    """No client is an error that names the way out."""
    with pytest.raises(ClientClosedError, match="local_cluster"):
        joblib.parallel_config("dask_hpsearch")


def test_a_batch_is_delivered_whole_and_in_order() -> None:
    """Fits of one joblib batch end in any order; their results do not."""
    delivered: list[Any] = []
    take = gathering(3, delivered.append)

    take(2, "c")
    take(0, "a")
    take(1, "b")

    assert delivered == [["a", "b", "c"]]


def test_a_batch_with_an_error_is_delivered_once() -> None:
    """The error stands for the batch; what comes later is dropped."""
    delivered: list[Any] = []
    take = gathering(3, delivered.append)
    error = ValueError()

    take(1, error)
    take(0, "a")
    take(2, "c")

    assert delivered == [error]
