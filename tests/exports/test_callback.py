"""``on_candidate``: called in the driver with each candidate that has ended."""

from __future__ import annotations

import math
import os
import threading
import time
import uuid
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.tree import DecisionTreeClassifier

from dask_hpsearch import CandidateResult, DaskSearchCV, SearchRun
from dask_hpsearch.exceptions import CallbackWarning, UnpicklableError
from dask_hpsearch.journal.callback_events import CallbackEvent
from dask_hpsearch.journal.folder import RunFolder
from dask_hpsearch.stores import open_store
from tests.estimators import Deed, flowers
from tests.exports.kinds import KINDS, GatedSearch, known_of, search_of
from tests.processes import wait_until
from tests.runs.kills import kill_driver
from tests.runs.recorded import events_of

if TYPE_CHECKING:
    from pathlib import Path

    from distributed import Client

X, y = flowers()
SLOW = {"number": list(range(12))}


def slow(seconds: float = 0.1) -> GridSearchCV:
    """Make a search of 12 candidates."""
    return GridSearchCV(Deed(client=os.getpid(), seconds=seconds), SLOW, cv=2)


def numbers_in(path: Path) -> list[str]:
    """Return the names of candidates in a file."""
    return path.read_text().split() if path.exists() else []


@pytest.mark.parametrize("kind", KINDS)
def test_it_gets_what_the_journal_has(kind: str, client: Client) -> None:
    """Candidates of all kinds of searches: parameters, scores, states."""
    found: list[CandidateResult] = []
    store = f"memory://{uuid.uuid4().hex}"
    own = DaskSearchCV(
        search_of(kind), client=client, store=store, on_candidate=found.append
    )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of failing fits
        own.fit(X, y)

    assert own.run_url_ is not None
    _, stored = SearchRun.attach(own.run_url_)._candidates()
    assert known_of(found) == known_of(stored)
    now = {one.name: one.split_scores for one in stored}
    for one in found:
        for name, scores in one.split_scores.items():
            known = np.isfinite(scores)
            np.testing.assert_array_equal(
                np.array(scores)[known], np.array(now[one.name][name])[known]
            )
    assert len(found) == len(stored) > 0
    states = {str(one.state) for one in found}
    assert states <= {"complete", "failed", "dropped"}
    assert ("failed" in states) == (kind == "failing")
    assert ("dropped" in states) == (kind == "optuna, pruned")


def test_scores_are_those_of_the_results(client: Client) -> None:
    """Each mean equals that of ``cv_results_``, to the last digit."""
    found: list[CandidateResult] = []
    search = GridSearchCV(
        DecisionTreeClassifier(random_state=0), {"max_depth": [1, 2, 3]}
    )

    own = DaskSearchCV(search, client=client, on_candidate=found.append).fit(X, y)

    results = own.cv_results_
    for one in found:
        assert one.params == results["params"][one.number]
        assert one.score == results["mean_test_score"][one.number]
        assert one.split_scores["score"] == tuple(
            results[f"split{split}_test_score"][one.number] for split in range(5)
        )
        assert one.started < one.ended <= time.time()
        assert one.n_finished == 5


def test_it_is_called_from_one_thread_in_order(client: Client) -> None:
    """Of completion; never by two threads at once."""
    called: list[tuple[float, int]] = []

    def note(one: CandidateResult) -> None:
        called.append((one.ended, threading.get_ident()))
        time.sleep(0.01)

    DaskSearchCV(slow(0.0), client=client, on_candidate=note).fit(X, y)

    assert [ended for ended, _ in called] == sorted(ended for ended, _ in called)
    assert len({thread for _, thread in called}) == 1
    assert len(called) == 12


def test_its_errors_become_one_warning(client: Client) -> None:
    """The search ends as without it; the function is called for the others too."""
    called: list[int] = []

    def fails(one: CandidateResult) -> None:
        called.append(one.number)
        if one.number != 3:
            msg = "no such table"
            raise KeyError(msg)

    own = DaskSearchCV(slow(0.0), client=client, on_candidate=fails)
    with pytest.warns(
        CallbackWarning, match="KeyError.*no such table.*of 11 errors"
    ) as seen:
        own.fit(X, y)

    assert len(seen) == 1
    assert seen[0].filename == __file__
    assert sorted(called) == list(range(12))
    assert own.best_params_ == slow().fit(X, y).best_params_


def test_it_is_called_without_a_journal(
    client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A search that cannot be pickled has none."""
    found: list[CandidateResult] = []
    search = slow(0.0)
    search.lock = threading.Lock()

    own = DaskSearchCV(search, client=client, on_candidate=found.append).fit(X, y)

    assert own.run_url_ is None
    assert sorted(one.number for one in found) == list(range(12))
    assert len({one.run_id for one in found}) == 1


def test_a_dropped_candidate_is_reported_as_dropped(client: Client) -> None:
    """With the scores that it had; complete ones are complete."""
    found: dict[int, CandidateResult] = {}
    # The first and the fourth are good; the others are far behind.
    space = {"number": [36, 0, 4, 40, 8, 12, 16, 20, 1, 2, 3, 5]}
    search = GridSearchCV(Deed(client=os.getpid(), seconds=0.02), space, cv=4)

    own = DaskSearchCV(
        search,
        client=client,
        racing=True,
        on_candidate=lambda one: found.setdefault(one.number, one),
    ).fit(X, y)

    dropped = [one for one in found.values() if one.state == "dropped"]
    assert len(found) == 12
    assert len(own.dropped_["params"]) == len(dropped) > 0
    assert all(0 < one.n_finished < 4 for one in dropped)
    assert all(any(map(math.isnan, one.split_scores["score"])) for one in dropped)


def test_a_submitted_search_calls_it_in_the_driver(
    client: Client, tmp_path: Path
) -> None:
    """A function of a test module or a closure is pickled by value or by name."""
    log = tmp_path / "called"

    def note(one: Any) -> None:
        with log.open("a") as file:
            file.write(f"{one.name}-{os.getpid()} ")

    run = DaskSearchCV(
        slow(0.0), client=client, store=tmp_path / "store", on_candidate=note
    ).submit(X, y)
    run.result(60)

    names = [one.split("-")[0] for one in numbers_in(log)]
    pids = {one.split("-")[1] for one in numbers_in(log)}
    assert sorted(names) == sorted(f"0.{number}" for number in range(12))
    assert len(pids) == 1
    assert str(os.getpid()) not in pids


def test_a_killed_and_resumed_run_calls_it_once_for_each(
    client: Client, tmp_path: Path
) -> None:
    """But for those of the last second before the driver was killed, at most."""
    log = tmp_path / "called"

    def note(one: Any) -> None:
        with log.open("a") as file:
            file.write(f"{one.name} ")

    gated = GatedSearch(tmp_path, 4)
    run = DaskSearchCV(
        gated.search, client=client, store=tmp_path / "store", on_candidate=note
    ).submit(X, y)
    wait_until(lambda: len(noted_in(run)) >= 3)
    kill_driver(run)
    noted = noted_in(run)
    gated.let(1000)
    run.resume(client)
    run.result(60)

    calls = Counter(numbers_in(log))
    assert set(calls) == {f"0.{number}" for number in range(12)}
    assert {calls[name] for name in noted} == {1}
    assert max(calls.values()) <= 2


def noted_in(run: SearchRun) -> set[str]:
    """Return with which candidates a run's journal says that the callback was called."""
    events = events_of(RunFolder.open(open_store(run.url)))
    notes = [one for one in events if isinstance(one, CallbackEvent)]
    return {f"{call}.{number}" for one in notes for call, number, _ in one.candidates}


def test_an_extended_run_calls_it_for_new_candidates_only(
    client: Client, tmp_path: Path
) -> None:
    """Although their ordinals change."""
    log = tmp_path / "called"

    def note(one: Any) -> None:
        with log.open("a") as file:
            file.write(f"{one.params['number']} ")

    search = RandomizedSearchCV(
        Deed(client=os.getpid()),
        {"number": list(range(50))},
        n_iter=5,
        random_state=0,
        cv=2,
    )
    run = DaskSearchCV(
        search, client=client, store=tmp_path / "store", on_candidate=note
    ).submit(X, y)
    run.result(60)
    run.extend(4, client)
    run.result(60)

    numbers = numbers_in(log)
    found = set(map(str, run.trials()["param_number"]))
    assert len(numbers) == len(set(numbers))
    assert found <= set(numbers)


def test_one_that_cannot_be_pickled_is_refused_by_submit(
    client: Client, tmp_path: Path
) -> None:
    """The error names it, and a way out; nothing is submitted."""
    lock = threading.Lock()
    own = DaskSearchCV(
        slow(),
        client=client,
        store=tmp_path,
        on_candidate=lambda one: lock.acquire(timeout=one.number),
    )

    with pytest.raises(UnpicklableError, match=r"on_candidate cannot be pickled.*lock"):
        own.submit(X, y)

    assert SearchRun.list(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_candidate": "print"}, "on_candidate must be a function.*got 'print'"),
        ({"tracker": "wandb"}, "tracker must be 'mlflow' or an MlflowTracker.*'wandb'"),
        ({"on_candidate": print, "backend": "joblib"}, "needs backend='trials'"),
    ],
)
def test_other_values_are_refused(options: dict[str, Any], message: str) -> None:
    """Before anything runs."""
    with pytest.raises(ValueError, match=message):
        DaskSearchCV(slow(), **options).fit(X, y)
