"""Runs whose scores drop candidates or end the search: submitted, looked at, resumed."""

from __future__ import annotations

import math
import os
import signal
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV

from dask_hpsearch import DaskSearchCV, SearchRun
from dask_hpsearch.data import DataStore
from dask_hpsearch.execution.settings import Settings
from dask_hpsearch.journal.events import (
    AskEvent,
    CallEvent,
    DropEvent,
    FitEvent,
    StateEvent,
)
from dask_hpsearch.journal.folder import SEARCH, RunFolder
from dask_hpsearch.progress import text
from dask_hpsearch.runs.create import Work
from dask_hpsearch.runs.driver.drive import drive_run
from dask_hpsearch.stores import open_store
from tests.estimators import Deed, flowers, seen, times_begun
from tests.oracle.structure import difference
from tests.processes import wait_until
from tests.runs.recorded import RecordedRun, events_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from distributed import Client

    from dask_hpsearch.execution.fitted import Fitted
    from dask_hpsearch.journal.events import Event

X, y = flowers()
N_SPLITS = 4
NUMBERS = [36, 0, 4, 40, 8, 12, 16, 20, 24, 28, 32, 44, 48, 52, 56, *range(1, 4)]


def grid(
    log: str = "", *, seconds: float = 0.02, numbers: Any = NUMBERS
) -> GridSearchCV:
    """Make a search whose scores follow from a number."""
    deed = Deed(log=log or None, client=os.getpid(), seconds=seconds)
    return GridSearchCV(deed, {"number": numbers}, cv=N_SPLITS)


def bayes(log: str) -> Any:
    """Make a Bayesian search of candidates most of which are bad."""
    from skopt import BayesSearchCV

    return BayesSearchCV(
        Deed(log=log, client=os.getpid(), seconds=0.02),
        {"number": (0.0, 60.0)},
        n_iter=14,
        cv=N_SPLITS,
        random_state=0,
        optimizer_kwargs={"n_initial_points": 30},
    )


def recorded_of(search: Any, client: Client) -> RecordedRun:
    """Run a race to its end."""
    store = f"memory://{uuid.uuid4().hex}"
    found = DaskSearchCV(search, client=client, store=store, racing=True).fit(X, y)
    assert found.run_url_ is not None
    folder = RunFolder.open(open_store(found.run_url_))
    kinds = (CallEvent, AskEvent, FitEvent, DropEvent)
    events: list[Event] = [one for one in events_of(folder) if isinstance(one, kinds)]
    events.sort(key=lambda event: event.time)  # a segment has its fits last
    return RecordedRun(folder, found.search_, events)


def drive(folder: RunFolder, client: Client) -> Fitted:
    """Go on with a race where its journal ends."""
    settings = Settings(client=client, racing=True)
    with DataStore() as data_store:
        work = Work(folder.load_pickle(SEARCH), X, y, {})
        return drive_run(folder, work, data_store, settings)


def drops_in(events: Iterable[Event]) -> list[int]:
    """Return the candidates whose drops are noted."""
    return [one.candidate for one in events if isinstance(one, DropEvent)]


def fits_in(events: Iterable[Event]) -> set[tuple[int, int]]:
    """Return the fits whose results are noted."""
    return {(one.candidate, one.split) for one in events if isinstance(one, FitEvent)}


@pytest.mark.parametrize("kind", ["grid", "bayes"])
def test_a_resumed_race_repeats_no_fit_and_no_drop(
    kind: str, client: Client, tmp_path: Path
) -> None:
    """Wherever it was cut: what is noted stays, and the same candidate wins."""
    log = str(tmp_path / "fits.log")
    search = grid(log) if kind == "grid" else bayes(log)
    recorded = recorded_of(search, client)
    assert drops_in(recorded.events)
    cuts = np.linspace(0, recorded.n_fits, 6 if kind == "grid" else 4).astype(int)
    for number in cuts:
        before = recorded.before_fit(int(number))
        begun_before = len(seen(log, "start"))

        folder = recorded.copy(before)
        fitted = drive(folder, client)

        events = events_of(folder)
        dropped = drops_in(events)
        assert set(drops_in(before)) <= set(dropped)
        assert max(Counter(dropped).values(), default=0) <= 1
        begun = len(seen(log, "start")) - begun_before
        assert begun >= len(fits_in(events) - fits_in(before))
        again = {
            fit
            for fit in fits_in(events) - fits_in(before)
            if fit[0] in drops_in(before)
        }
        assert not again
        counts = Counter(
            (one.candidate, one.split) for one in events if isinstance(one, FitEvent)
        )
        assert max(counts.values()) == 1
        if kind == "grid":
            assert fitted.search.best_params_ == recorded.fitted.best_params_
        if number == recorded.n_fits:
            assert begun == 0
            assert (
                difference(recorded.fitted.cv_results_, fitted.search.cv_results_)
                is None
            )


def test_a_killed_driver_of_a_race_goes_on(client: Client, tmp_path: Path) -> None:
    """The next one begins no fit of a candidate that was dropped."""
    log = str(tmp_path / "fits.log")
    good = [float(number) for number in np.linspace(36, 52, 40)]  # all take a while
    numbers = [*good, *range(12)]
    search = grid(log, seconds=0.1, numbers=numbers)
    ours = DaskSearchCV(search, client=client, store=tmp_path / "store", racing=True)
    run = ours.submit(X, y)
    wait_until(lambda: len(drops_in(run._reader.events())) >= 4)
    states = [one for one in run._reader.events() if isinstance(one, StateEvent)]

    os.kill(states[-1].process.pid, signal.SIGKILL)
    wait_until(lambda: run.state == "interrupted")
    before = run._reader.events()
    result = SearchRun.attach(run.url, client).result(60)

    events = run._reader.events()
    assert set(drops_in(before)) <= set(drops_in(events))
    new = fits_in(events) - fits_in(before)
    assert not [fit for fit in new if fit[0] in drops_in(before)]
    plain = GridSearchCV(Deed(client=os.getpid()), {"number": numbers}, cv=N_SPLITS)
    assert result.best_score_ == plain.fit(X, y).best_score_
    numbered = Counter(fits_in(events))
    assert max(numbered.values()) == 1
    assert len(result.dropped_["params"]) + len(result.cv_results_["params"]) == len(
        numbers
    )


def test_a_submitted_race_is_seen_from_anywhere(client: Client, tmp_path: Path) -> None:
    """Its table has the dropped candidates, its progress counts them, so does its result."""
    log = str(tmp_path / "fits.log")
    search = grid(log)

    ours = DaskSearchCV(search, client=client, store=tmp_path / "store", racing=True)
    run = SearchRun.attach(ours.submit(X, y).url)
    result = run.result(60)

    assert run.state == "finished"
    table, dropped = run.trials(), result.dropped_
    n_dropped = len(dropped["params"])
    assert n_dropped
    assert len(table) == len(NUMBERS)
    assert table["dropped"].sum() == n_dropped
    assert (table["n_fits"][~table["dropped"]] == N_SPLITS).all()
    assert table["n_fits"][table["dropped"]].tolist() == dropped["n_splits"].tolist()
    assert list(table["params"][table["dropped"]]) == dropped["params"]
    complete = table[~table["dropped"]]
    np.testing.assert_array_equal(
        complete["mean_test_score"], result.cv_results_["mean_test_score"]
    )
    snapshot = run.progress()
    assert snapshot.dropped == n_dropped
    assert snapshot.fits_done == snapshot.fits_total == table["n_fits"].sum()
    assert f"{n_dropped} candidates dropped" in text.summary(snapshot)
    assert snapshot.best_params == result.best_params_
    assert set(times_begun(log).values()) == {1}


def test_a_run_that_has_reached_its_score_can_go_on_without_it(
    client: Client, tmp_path: Path
) -> None:
    """The result so far stays, and the other candidates follow."""
    numbers = [0, 40, *[1] * 40]
    search = grid(seconds=0.05, numbers=numbers)
    ours = DaskSearchCV(search, client=client, store=tmp_path, stop_score=0.9)

    run = ours.submit(X, y)
    first = run.result(60)
    stopped = run.state, run.progress()
    again = run.resume(client, stop_score=math.inf).result(60)

    assert stopped[0] == "stopped"
    assert stopped[1].reason == "stop_score"
    assert text.summary(stopped[1]).startswith("Search stopped: score reached: ")
    assert first.best_params_ == {"number": 40}
    assert len(first.cv_results_["params"]) < len(numbers)
    assert run.state == "finished"
    assert (
        difference(grid(numbers=numbers).fit(X, y).cv_results_, again.cv_results_)
        is None
    )


def test_patience_holds_in_a_driver_of_its_own(client: Client, tmp_path: Path) -> None:
    """Its request and the run's manifest carry it; a resumed run may have another."""
    numbers = [40, *range(40)]
    search = grid(seconds=0.02, numbers=numbers)
    ours = DaskSearchCV(search, client=client, store=tmp_path, patience=3)

    run = ours.submit(X, y)
    first = len(run.result(60).cv_results_["params"])
    reason = run.progress().reason
    more = run.resume(client, patience=12).result(60)

    assert reason == "patience"
    assert 4 <= first < len(more.cv_results_["params"]) < len(numbers)
    with pytest.raises(ValueError, match="patience must be a positive integer, got 0"):
        run.resume(client, patience=0)


@pytest.mark.parametrize("rule", [{"stop_score": 0.9}, {"patience": 3}])
def test_a_driver_that_was_killed_at_the_end_of_a_search_ends_again(
    rule: dict[str, Any], client: Client, tmp_path: Path
) -> None:
    """The journal's scores decide: no further fit begins."""
    log = str(tmp_path / "fits.log")
    numbers = [0, 40, *[1] * 40]
    search = grid(log, numbers=numbers)
    store = f"memory://{uuid.uuid4().hex}"
    found = DaskSearchCV(search, client=client, store=store, **rule).fit(X, y)
    assert found.run_url_ is not None
    folder = RunFolder.open(open_store(found.run_url_))
    kinds = (CallEvent, FitEvent)
    events: list[Event] = [one for one in events_of(folder) if isinstance(one, kinds)]
    begun = len(seen(log, "start"))

    copied = RecordedRun(folder, found.search_, events).copy(events)
    with DataStore() as data_store:
        fitted = drive_run(
            copied,
            Work(copied.load_pickle(SEARCH), X, y, {}),
            data_store,
            Settings(client=client, **rule),
        )

    assert fitted.stopped == found.stopped_ == next(iter(rule))
    assert len(seen(log, "start")) == begun
    assert difference(found.cv_results_, fitted.search.cv_results_) is None


def test_an_extended_race_keeps_its_drops(client: Client, tmp_path: Path) -> None:
    """A generation takes over what the one before has decided."""
    log = str(tmp_path / "fits.log")
    deed = Deed(log=log, client=os.getpid(), seconds=0.02)
    search = RandomizedSearchCV(
        deed, {"number": range(60)}, n_iter=15, cv=4, random_state=0, refit=False
    )
    ours = DaskSearchCV(search, client=client, store=tmp_path / "store", racing=True)
    run = ours.submit(X, y)
    first = run.result(60)
    begun = times_begun(log)

    second = run.extend(10, client).result(60)

    n_candidates = len(second.cv_results_["params"]) + len(second.dropped_["params"])
    assert n_candidates == 25
    assert times_begun(log) >= begun
    assert set(times_begun(log).values()) == {1}
    before = {one["number"] for one in first.dropped_["params"]}
    assert before <= {one["number"] for one in second.dropped_["params"]}
