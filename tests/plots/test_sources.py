"""Every source of a search gives the same candidates; a journal knows more of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
)
from sklearn.tree import DecisionTreeClassifier

from dask_hpsearch import DaskSearchCV, SearchRun, plots
from dask_hpsearch.journal.events import CallEvent, FitEvent
from dask_hpsearch.plots.sources import read_search
from dask_hpsearch.runs.history import history_of
from tests.estimators import Deed, flowers
from tests.plots.pictures import run_of
from tests.plots.searches import SEARCHES
from tests.processes import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from distributed import Client

    from dask_hpsearch.plots.search_data import SearchData

X, y = flowers()
TREE = DecisionTreeClassifier(random_state=0)
TREES = {"max_depth": [None, 1, 2, 3], "min_samples_leaf": [1, 10, 30]}


def same(first: SearchData, second: SearchData) -> None:
    """Fail if two sources differ in what both have."""
    assert first.score_name(None) == second.score_name(None)
    for name, scores in first.split_scores.items():
        np.testing.assert_array_equal(scores, second.split_scores[name])
        np.testing.assert_allclose(
            first.mean_scores[name], second.mean_scores[name], rtol=1e-12
        )
    for ours, others in zip(first.params, second.params, strict=True):
        assert dict(ours) == dict(others)
    assert list(first.status) == list(second.status)
    np.testing.assert_array_equal(first.rungs, second.rungs)
    np.testing.assert_array_equal(first.resources, second.resources)


def draw_all(source: Any) -> None:
    """Draw every display; a warning is an error."""
    for name in plots.__all__:
        getattr(plots, name).from_search(source).plot().figure_.canvas.draw()


def bayes() -> Any:
    """Return a small Bayesian search."""
    skopt = pytest.importorskip("skopt")
    space = {"max_depth": (1, 5), "min_samples_leaf": (1, 40)}
    return skopt.BayesSearchCV(TREE, space, n_iter=6, cv=2, random_state=0)


SEARCHES_TO_FIT = {
    "grid": lambda: GridSearchCV(TREE, TREES, cv=3),
    "randomized": lambda: RandomizedSearchCV(TREE, TREES, n_iter=6, random_state=0),
    "halving": lambda: HalvingGridSearchCV(
        TREE, TREES, cv=2, min_resources=20, random_state=0
    ),
    "bayes": bayes,
    "multimetric": lambda: GridSearchCV(
        TREE, TREES, cv=2, scoring=["accuracy", "f1_macro"], refit="f1_macro"
    ),
}


@pytest.mark.parametrize("kind", SEARCHES_TO_FIT)
def test_sources_of_a_fitted_search_are_the_same(
    kind: str, client: Client, tmp_path: Path
) -> None:
    """`DaskSearchCV` and `SearchRun` know the times too."""
    search = SEARCHES_TO_FIT[kind]()
    found = DaskSearchCV(search, client=client, store=tmp_path).fit(X, y)
    run = SearchRun.attach(found.run_url_)

    fitted = read_search(found.search_)

    for source in (found, run):
        data = read_search(source)
        same(data, fitted)
        assert data.fits is not None
        assert len(data.fits.ends) == data.split_scores[data.score_name(None)].size
        assert (data.fits.starts <= data.fits.ends).all()
        assert not np.isnan(data.ends).any()
    if kind != "multimetric":  # a table does not know which score counts
        same(read_search(dict(found.cv_results_)), fitted)
        same(read_search(pd.DataFrame(found.cv_results_)), fitted)
        same(read_search(run.trials()), fitted)
    draw_all(found)


def test_a_search_without_its_run_has_no_times(client: Client, tmp_path: Path) -> None:
    """What the fitted search has is displayed."""
    search = GridSearchCV(TREE, {"max_depth": [1, 2, 3]}, cv=2)
    found = DaskSearchCV(search, client=client, store=tmp_path).fit(X, y)
    SearchRun.attach(found.run_url_).delete()

    data = read_search(found)

    assert data.fits is None
    same(data, read_search(found.search_))


def test_failed_candidates_are_seen_by_a_journal_whatever_their_score(
    client: Client, tmp_path: Path
) -> None:
    """``cv_results_`` shows a failure only by a score that is not a number."""
    grid = {"number": [0, 9], "deed": ["fit", "raise"]}
    search = GridSearchCV(Deed(), grid, cv=2, error_score=0.0, refit=False)
    with pytest.warns(match="4 fits failed"):
        found = DaskSearchCV(search, client=client, store=tmp_path).fit(X, y)

    assert list(read_search(found).status) == ["complete"] * 2 + ["failed"] * 2
    assert list(read_search(found.search_).status) == ["complete"] * 4


def test_dropped_candidates_are_displayed(client: Client, tmp_path: Path) -> None:
    """By the journal, and by the fitted search's own table of them."""
    grid = {"number": [*range(8, 11), *range(30, 50)]}
    deed = Deed(seconds=0.03)  # so that not all fits have begun before the first ends
    search = GridSearchCV(deed, grid, cv=5)
    found = DaskSearchCV(search, client=client, store=tmp_path, racing=True).fit(X, y)
    n_dropped = len(found.dropped_["params"])

    journal, fitted = read_search(found), read_search(found.search_)

    assert n_dropped
    for data in (journal, fitted):
        assert list(data.status).count("dropped") == n_dropped
        assert len(data) == len(grid["number"])
    assert sorted(journal.mean_scores["score"]) == sorted(fitted.mean_scores["score"])


@pytest.mark.timeout(240)
def test_a_run_is_displayed_while_it_runs_and_after_it_was_stopped(
    client: Client, tmp_path: Path
) -> None:
    """Some of its candidates are unfinished."""
    grid = {"number": list(range(20, 50, 2)), "seconds": [0.45, 0.5]}
    held = Deed(log=str(tmp_path / "log"), hold_after=17)
    search = GridSearchCV(held, grid, cv=2, refit=False)
    run = DaskSearchCV(search, client=client, store=tmp_path / "store").submit(X, y)
    wait_until(lambda: run.progress().fits_done >= 12)

    running = read_search(run)
    assert not run.done()
    draw_all(run)
    run.stop().wait(timeout=100)
    stopped = read_search(run)

    assert run.state == "stopped"
    assert 6 <= len(running) <= len(stopped) < 30
    assert set(stopped.status) <= {"complete", "unfinished"}
    complete = stopped.has_status(stopped.status[0])
    same_means = run.result().cv_results_["mean_test_score"]
    np.testing.assert_allclose(stopped.mean_scores["score"][complete], same_means)


@pytest.mark.parametrize("kind", ["grid", "halving", "multimetric", "failing"])
def test_journals_written_by_hand_are_like_their_tables(kind: str) -> None:
    """The eight searches of the pictures are what they seem."""
    data = read_search(run_of(kind))
    table = read_search(SEARCHES[kind].cv_results())

    for name, scores in table.split_scores.items():
        np.testing.assert_array_equal(scores, data.split_scores[name])
    assert list(data.status) == list(table.status)
    np.testing.assert_array_equal(data.rungs, table.rungs)


def test_results_that_a_generation_takes_over_keep_their_times() -> None:
    """They ended when they first did, though the journal has them anew."""

    def call(generation: int, time: float, n_candidates: int) -> CallEvent:
        return CallEvent(
            generation=generation,
            time=time,
            call=0,
            n_splits=1,
            params=[{"a": one} for one in range(n_candidates)],
            extra={},
        )

    def fit(generation: int, time: float, candidate: int) -> FitEvent:
        return FitEvent(
            generation=generation,
            time=time,
            call=0,
            candidate=candidate,
            split=0,
            digest=f"digest {candidate}",
            result={"test_scores": 0.5, "fit_time": 2.0, "score_time": 1.0},
        )

    events = [
        call(0, 0.0, 1),
        fit(0, 10.0, 0),
        call(1, 1000.0, 2),
        fit(1, 1000.5, 0),
        fit(1, 1020.0, 1),
    ]

    history = history_of(events, refit=None)

    assert [(one.candidate, one.ended, one.seconds) for one in history.fits] == [
        (0, 10.0, 3.0),
        (1, 1020.0, 3.0),
    ]
    assert len(history.candidates) == 2


def test_a_failed_fit_has_no_mean() -> None:
    """As in ``cv_results_``."""
    data = read_search(run_of("failing"))

    failed = data.has_status(*{one for one in data.status if one == "failed"})
    assert failed.any()
    assert all(math.isnan(one) for one in data.mean_scores["score"][failed])
