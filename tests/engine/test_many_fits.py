"""Very many fits that wait: what ends them costs little, and its error is told once."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import traceback
from collections import Counter
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pytest
from distributed import Client, LocalCluster
from joblib import Parallel, delayed, parallel_config
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import DaskSearchCV, SearchRun, sklearn_adapter
from dask_hpsearch.data import DataStore
from dask_hpsearch.engine.engine import Engine
from dask_hpsearch.engine.policy import MOST_QUEUED_PER_SLOT
from dask_hpsearch.engine.tasks import TaskState
from dask_hpsearch.exceptions import (
    HPSearchError,
    NoWorkersError,
    RunCancelledError,
    SearchStoppedWarning,
    UnpicklableError,
)
from dask_hpsearch.joblib_backend.backend import EvaluationBackend
from dask_hpsearch.joblib_backend.results import ErrorsInTurn
from dask_hpsearch.joblib_backend.session import FitLog, Session
from dask_hpsearch.messages import FitTask, Outcome
from tests.estimators import Deed, flowers, seen
from tests.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dask_hpsearch.sklearn_adapter import FitCall

X, y = flowers()
N_CANDIDATES, N_SPLITS = 100_000, 2
N_TASKS = 200_000
# Two seconds on a machine of one's own; what is quadratic takes minutes.
ENDED_WITHIN_S = 30.0


# -------------------------------------------------------------------- their ends


@pytest.mark.parametrize("way", ["Ctrl-C", "stop", "cancel"])
def test_a_search_with_very_many_fits_ends_at_once(
    way: str, client: Client, tmp_path: Path
) -> None:
    """Whatever ends it, with the candidates that have finished."""
    log = str(tmp_path / "fits.log")
    deed = Deed(log=log, hold_after=9, client=os.getpid())
    search = GridSearchCV(deed, {"number": list(range(N_CANDIDATES))}, cv=N_SPLITS)

    def newest() -> SearchRun:
        return SearchRun.list(tmp_path)[-1]

    tell: dict[str, Callable[[], Any]] = {
        "Ctrl-C": lambda: os.kill(os.getpid(), signal.SIGINT),
        "stop": lambda: newest().stop(),
        "cancel": lambda: newest().cancel(),
    }
    told_at = []

    def end() -> None:
        wait_until(lambda: seen(log, "wait"))
        wait_until(lambda: newest().progress().fits_done >= 8)
        told_at.append(time.monotonic())
        tell[way]()

    threading.Thread(target=end, daemon=True).start()
    ours = DaskSearchCV(search, client=client, store=tmp_path)

    if way == "cancel":
        with pytest.raises(RunCancelledError):
            ours.fit(X, y)
    else:
        with pytest.warns(SearchStoppedWarning):
            ours.fit(X, y)
        assert 0 < len(ours.cv_results_["params"]) <= 10

    assert time.monotonic() - told_at[0] < ENDED_WITHIN_S


class FewWait(FitLog):
    """Counts the fits that were handed over and have not ended."""

    n_fits = 1_000_000

    def __init__(self) -> None:
        self.waiting = self.most = 0

    def known(self, call: FitCall) -> None:
        self.waiting += 1
        self.most = max(self.most, self.waiting)

    def finished(self, call: FitCall, result: dict[str, Any]) -> dict[str, Any]:
        self.waiting -= 1
        return result


@pytest.mark.parametrize("n_candidates", [100, 800])
def test_no_more_fits_wait_than_may(n_candidates: int, client: Client) -> None:
    """The others are made as those before them end, and each runs once."""
    numbers, log = list(range(n_candidates)), FewWait()
    search = GridSearchCV(Flat(), {"number": numbers}, cv=np_splits(2), refit=False)

    with DataStore() as data_store, Engine(client, data_store) as engine:
        session = Session(engine, log=log, most_queued=50)
        with parallel_config(backend=EvaluationBackend(session)):
            search.fit(X, y)

    np.testing.assert_array_equal(search.cv_results_["mean_test_score"], numbers)
    assert log.waiting == 0
    # Of two slots; a fit that ends may be counted while the next one is made.
    assert log.most <= MOST_QUEUED_PER_SLOT * 2 + 2


def test_slots_get_fits_while_many_outcomes_are_delivered(client: Client) -> None:
    """With thousands of slots, delivering the outcomes of one round takes seconds."""
    sent: list[int] = []
    search = GridSearchCV(Flat(), {"number": [0, 1]}, cv=np_splits(2), refit=False)

    with DataStore() as data_store, Engine(client, data_store) as engine:

        def deliver_slowly() -> None:
            sent.append(engine.tasks_sent)
            time.sleep(0.01)

        for _ in range(200):
            engine.call_soon(deliver_slowly)
        with parallel_config(backend=EvaluationBackend(Session(engine, log=FewWait()))):
            search.fit(X, y)

    assert sent[0] == 0
    assert sent[-1] > 0


class Kept(FewWait):
    """Counts, late in a search, what there is of its fits."""

    def __init__(self, look_at: int) -> None:
        super().__init__()
        self.left, self.kept = look_at, Counter[type]()

    def finished(self, call: FitCall, result: dict[str, Any]) -> dict[str, Any]:
        self.left -= 1
        if not self.left:
            kinds = (TaskState, FitTask, Outcome, sklearn_adapter.FitCall, Flat)
            self.kept.update(type(o) for o in gc.get_objects() if type(o) in kinds)
        return super().finished(call, result)


def test_nothing_but_results_is_kept_of_fits_that_have_ended(client: Client) -> None:
    """Neither clones of the estimator nor tasks: of a million they would not fit."""
    n_candidates = 1500
    log = Kept(look_at=2 * n_candidates - 300)
    grid = {"number": list(range(n_candidates))}
    search = GridSearchCV(Flat(), grid, cv=np_splits(2), refit=False)

    with DataStore() as data_store, Engine(client, data_store) as engine:
        session = Session(engine, log=log, most_queued=50)
        with parallel_config(backend=EvaluationBackend(session)):
            search.fit(X, y)

    # Some hundreds wait, in the engine and in joblib, and some are just being delivered.
    assert log.kept
    assert max(log.kept.values()) < 700


def test_what_cannot_be_sent_ends_a_search_also_later(client: Client) -> None:
    """A fit that is made when another one ends, in no thread of the user's."""
    numbers = [*range(800), threading.Lock()]
    search = GridSearchCV(Flat(), {"number": numbers}, cv=np_splits(2), refit=False)

    with DataStore() as data_store, Engine(client, data_store) as engine:
        session = Session(engine, log=FewWait(), most_queued=50)
        with (
            parallel_config(backend=EvaluationBackend(session)),
            pytest.raises(UnpicklableError, match="candidate 800"),
        ):
            search.fit(X, y)


class Flat(ClassifierMixin, BaseEstimator):
    """Scores by its number, in no time."""

    def __init__(self, number: int = 0, *, fails: str | None = None) -> None:
        self.number = number
        self.fails = fails

    def fit(self, X: Any, y: Any) -> Self:
        if self.fails is not None:
            fail(self.fails)
        self.classes_ = np.unique(y)
        return self

    def score(self, X: Any, y: Any) -> float:
        return float(self.number)


def np_splits(n: int) -> list[tuple[Any, Any]]:
    """Make splits of two rows."""
    return [(np.array([0, 1]), np.array([2, 3])) for _ in range(n)]


@pytest.mark.parametrize("same", [True, False])
def test_errors_of_very_many_tasks_take_no_longer_each(*, same: bool) -> None:
    """One that ends them all is delivered once; others in the order of tasks."""
    errors, delivered = ErrorsInTurn(), []
    one = HPSearchError("the end")
    tasks = [(number, errors.expect(delivered.append)) for number in range(N_TASKS)]

    for number, deliver in tasks[1:]:
        if same:
            errors.end(delivered.append, one)
        else:
            deliver(ValueError(number))
    if not same:
        tasks[0][1]([None])  # all waited for this one, for a second at most

    wait_until(lambda: len(delivered) >= (1 if same else N_TASKS))
    if same:
        assert delivered == [one]
    else:
        numbers = [one.args[0] for one in delivered if isinstance(one, ValueError)]
        assert sorted(numbers) == list(range(1, N_TASKS))


# --------------------------------------------------------------- their tracebacks

MOST_LINES = 150  # scikit-learn's, joblib's and our frames, and the worker's
REPEATED = ValueError("kept by its module")


def fail(how: str) -> None:
    """Raise in one of the ways there are."""
    if how == "cause":
        try:
            {}["the first"]
        except KeyError as error:
            msg = "the second"
            raise ValueError(msg) from error
    if how == "context":
        try:
            fail("cause")
        finally:
            msg = "the third"
            raise TypeError(msg)
    if how == "group":
        msg = "several"
        raise ExceptionGroup(msg, [ValueError("one of them"), TypeError("another")])
    if how == "one for all":
        raise REPEATED
    msg = "the first"
    raise ValueError(msg)


def told(error: BaseException) -> list[str]:
    """Return the lines of an error, as they are printed."""
    return "".join(traceback.format_exception(error)).splitlines()


def check_told_once(error: BaseException, text: str, *, times: int = 2) -> None:
    """Assert that an error is short, and says its text here and on the worker."""
    lines = told(error)
    assert len(lines) < MOST_LINES
    assert sum(line.strip(" |").endswith(text) for line in lines) <= times
    assert lines.count("Traceback (most recent call last):") <= 4


WAYS_TO_FAIL = {
    "plain": "ValueError: the first",
    "cause": "ValueError: the second",
    "context": "TypeError: the third",
    "group": "ExceptionGroup: several (2 sub-exceptions)",
    "one for all": "ValueError: kept by its module",
}


@pytest.mark.parametrize("how", WAYS_TO_FAIL)
def test_the_error_of_very_many_fits_is_told_once(
    how: str, client: Client, tmp_path: Path
) -> None:
    """Every fit fails with it: one of them is raised."""
    search = GridSearchCV(
        Flat(fails=how), {"number": list(range(200))}, cv=5, error_score="raise"
    )
    for _ in range(2):  # slots keep what they have imported
        with pytest.raises((ValueError, TypeError, ExceptionGroup)) as caught:
            DaskSearchCV(search, client=client, store=tmp_path).fit(X, y)

        check_told_once(caught.value, WAYS_TO_FAIL[how])


@pytest.mark.parametrize("how", WAYS_TO_FAIL)
def test_the_error_of_very_many_calls_is_told_once(how: str, client: Client) -> None:
    """So it is with the joblib backend, where a slot runs many calls one by one."""
    for _ in range(3):
        with (
            pytest.raises((ValueError, TypeError, ExceptionGroup)) as caught,
            parallel_config(backend="dask_hpsearch", client=client),
        ):
            Parallel()(delayed(fail)(how) for _ in range(200))

        check_told_once(caught.value, WAYS_TO_FAIL[how])
        notes = getattr(caught.value, "__notes__", ())
        assert len(notes) == 1


def test_the_error_of_a_cluster_without_workers_is_told_once(tmp_path: Path) -> None:
    """All fits wait for the same workers."""
    search = GridSearchCV(Flat(), {"number": list(range(200))}, cv=5)
    with (
        LocalCluster(n_workers=0, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
        pytest.raises(NoWorkersError) as caught,
    ):
        DaskSearchCV(search, client=client, worker_timeout=1, store=tmp_path).fit(X, y)

    lines = told(caught.value)
    assert len(lines) < 80
    assert sum("no Dask worker within 1 s" in line for line in lines) == 1
    help_note, note = caught.value.__notes__
    assert help_note == caught.value.help_note
    assert "SearchRun.attach(" in note
