"""`AsyncHalvingSearchCV` on a cluster."""

from __future__ import annotations

import os
import pickle
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import joblib
import numpy as np
import pytest
from scipy.stats import loguniform, randint
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import SGDClassifier
from sklearn.neural_network import MLPClassifier

from dask_hpsearch import AsyncHalvingSearchCV, DaskSearchCV, SearchRun, local_cluster
from dask_hpsearch.exceptions import SearchStoppedWarning, UnsupportedSearchError
from dask_hpsearch.journal.events import AskEvent, FitEvent
from dask_hpsearch.strategies.halving.ladder import Job, RungLadder
from tests.estimators import flowers
from tests.oracle.structure import difference
from tests.processes import wait_until
from tests.runs.recorded import RecordedRun, drive
from tests.strategies.halving.learners import Learner, fits_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client

X, y = flowers(150)
N_SPLITS = 2
NUMBERS = {"number": list(range(40))}
KINDS = {
    "samples": (
        RandomForestClassifier(3, random_state=0),
        {"max_depth": randint(1, 6)},
        {"min_resources": 16},
    ),
    "iterations": (
        MLPClassifier((20,), random_state=0),
        {"alpha": loguniform(1e-5, 1e-1)},
        {"resource": "max_iter", "max_resources": 9},
    ),
    "trees": (
        RandomForestClassifier(random_state=0),
        {"max_depth": randint(1, 6)},
        {"resource": "n_estimators", "max_resources": 9, "warm_start": False},
    ),
    "passes": (
        SGDClassifier(random_state=0),
        {"alpha": loguniform(1e-5, 1e-1)},
        {"resource": "partial_fit", "max_resources": 9},
    ),
}

pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning", "ignore:.*non-finite"
)


def halving(estimator: Any, space: Any = NUMBERS, **options: Any) -> Any:
    """Make a search of nine candidates on three rungs."""
    options = {"n_candidates": 9, "cv": N_SPLITS, "random_state": 0, **options}
    return AsyncHalvingSearchCV(estimator, space, **options)


def learning(log: Any = None, **options: Any) -> Any:
    """Make a search with 1, 3 and 9 iterations, whose fits are noted."""
    learner = {
        name: options.pop(name)
        for name in ("seconds", "fails", "exits", "holds")
        if name in options
    }
    estimator = Learner(log=None if log is None else str(log), client=os.getpid())
    options = {"resource": "max_iter", "max_resources": 9, **options}
    return halving(estimator.set_params(**learner), **options)


def plain(search: Any) -> Any:
    """Fit in this process."""
    return search.fit(X, y)


@pytest.fixture(scope="module")
def one_slot() -> Iterator[Client]:
    """A client of a cluster with one slot."""
    with (
        local_cluster(1, 1, dashboard_address=":0") as cluster,
        cluster.get_client() as client,
    ):
        yield client


@pytest.mark.parametrize("kind", KINDS)
def test_one_slot_finds_what_a_plain_fit_finds(kind: str, one_slot: Client) -> None:
    """All of the fitted search is equal, times apart."""
    estimator, space, options = KINDS[kind]
    search = halving(estimator, space, **options)

    ours = DaskSearchCV(search, client=one_slot).fit(X, y).search_

    assert type(ours) is AsyncHalvingSearchCV
    assert not hasattr(search, "cv_results_")
    assert difference(plain(search), ours) is None


@pytest.mark.parametrize("kind", KINDS)
def test_several_slots_score_the_same(kind: str, client: Client) -> None:
    """Whatever is promoted, a candidate on a rung has the scores of a plain fit."""
    estimator, space, options = KINDS[kind]
    search = halving(estimator, space, **options)
    expected = {
        (row["iter"], *row["params"].values()): row for row in rows(plain(search))
    }

    found = DaskSearchCV(search, client=client).fit(X, y)

    assert found.n_candidates_[0] == 9
    assert found.n_iterations_ == 3
    assert found.n_resources_ == search.n_resources_
    assert found.cv_results_["iter"][found.best_index_] == 2
    same = [
        row for row in rows(found) if (row["iter"], *row["params"].values()) in expected
    ]
    assert len(same) >= 10
    for row in same:
        other = expected[row["iter"], *row["params"].values()]
        assert row["mean_test_score"] == other["mean_test_score"]
        assert row["n_resources"] == other["n_resources"]


def rows(search: Any) -> list[dict[str, Any]]:
    """Return the rows of a search's results."""
    names = ("iter", "n_resources", "params", "mean_test_score")
    columns = [search.cv_results_[name] for name in names]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def test_models_go_on_in_any_slot(client: Client, tmp_path: Path) -> None:
    """Each fit makes only the iterations that its model lacks, and none runs twice."""
    found = DaskSearchCV(learning(tmp_path / "log"), client=client).fit(X, y)

    fits = fits_of(tmp_path / "log")
    assert set(fits.values()) == {1}
    steps = Counter((before, after) for _, _, before, after in fits)
    per_rung = [N_SPLITS * number for number in found.n_candidates_]
    assert [steps[0, 1], steps[1, 3], steps[3, 9]] == per_rung
    assert steps.total() == sum(per_rung)
    assert found.best_estimator_.n_done_ == 9


def test_failed_candidates_are_not_promoted(client: Client) -> None:
    """Neither those that raise nor those that end their process."""
    numbers = [one["number"] for one in plain(learning()).cv_results_["params"][:9]]
    *_, third, second, best = sorted(numbers)
    search = learning(fails=(best,), exits=(second,))

    with pytest.warns(FitFailedWarning, match="4 fits failed"):
        found = DaskSearchCV(search, client=client).fit(X, y)

    assert found.best_params_["number"] == third
    promoted = [row["params"]["number"] for row in rows(found) if row["iter"]]
    assert not {best, second} & set(promoted)


def test_a_search_whose_every_fit_fails_raises(client: Client) -> None:
    """scikit-learn's error."""
    search = learning(fails=tuple(range(40)))

    with pytest.raises(ValueError, match="All the 18 fits failed"):
        DaskSearchCV(search, client=client).fit(X, y)


def test_errors_are_raised_if_asked_to(client: Client) -> None:
    """The fit's own."""
    search = learning(fails=tuple(range(40)), error_score="raise")

    with pytest.raises(ValueError, match="fails"):
        DaskSearchCV(search, client=client).fit(X, y)


def test_one_of_several_scores_leads(client: Client) -> None:
    """``refit`` names it."""
    scoring = {"bad": negated, "good": same}
    search = learning(scoring=scoring, refit="bad")

    found = DaskSearchCV(search, client=client).fit(X, y)

    numbers = [one["number"] for one in found.cv_results_["params"][:9]]
    assert found.best_params_["number"] == min(numbers)


def same(estimator: Any, X: Any, y: Any) -> float:
    """Score as the estimator does."""
    return float(estimator.score(X, y))


def negated(estimator: Any, X: Any, y: Any) -> float:
    """Score the other way round."""
    return -float(estimator.score(X, y))


def test_groups_and_weights_reach_the_fits(one_slot: Client) -> None:
    """As in a plain fit."""
    from sklearn.model_selection import GroupKFold

    estimator, space, options = KINDS["samples"]
    search = halving(estimator, space, **{**options, "cv": GroupKFold(2)})
    params = {"groups": np.arange(len(X)) % 5, "sample_weight": np.linspace(0, 1, 150)}

    ours = DaskSearchCV(search, client=one_slot).fit(X, y, **params).search_

    assert difference(search.fit(X, y, **params), ours) is None


@pytest.mark.parametrize("form", ["url", "dask"])
def test_data_come_in_any_form(form: str, one_slot: Client, tmp_path: Path) -> None:
    """By URL, and as Dask arrays: the result is that of arrays."""
    estimator, space, options = KINDS["iterations"]
    search = halving(estimator, space, **options)
    given: tuple[Any, Any]
    if form == "url":
        np.save(tmp_path / "X.npy", X)
        np.save(tmp_path / "y.npy", y)
        given = str(tmp_path / "X.npy"), (tmp_path / "y.npy").as_uri()
    else:
        given = da.from_array(X, chunks=(50, -1)), da.from_array(y, chunks=50)

    ours = DaskSearchCV(search, client=one_slot).fit(*given).search_

    assert difference(plain(search), ours) is None


def test_a_plain_fit_may_use_the_backend(client: Client) -> None:
    """Without `DaskSearchCV`, the splits of a candidate run in the cluster's slots."""
    estimator, space, options = KINDS["iterations"]
    search = halving(estimator, space, **options)
    expected = pickle.dumps(plain(search))

    with joblib.parallel_config("dask_hpsearch", client=client, n_jobs=2):
        found = plain(search)

    assert difference(pickle.loads(expected), found) is None


def test_max_time_keeps_what_is_complete(client: Client) -> None:
    """The best of the highest rung that is there; attributes count what is there."""
    numbers = [one["number"] for one in plain(learning()).cv_results_["params"][:9]]
    search = learning(holds=(numbers[7], numbers[8]))

    with pytest.warns(SearchStoppedWarning):
        found = DaskSearchCV(search, client=client, max_time=4.0).fit(X, y)

    assert found.stopped_ == "max_time"
    assert found.n_candidates_[0] == 7
    assert sum(found.n_candidates_) == len(found.cv_results_["params"])
    assert found.n_iterations_ == len(found.n_candidates_)
    assert found.best_params_["number"] in numbers[:7]
    assert found.best_estimator_.n_done_ == found.n_resources_[-1]


@pytest.mark.parametrize("rule", ["racing", "stop_score", "patience"])
def test_other_rules_to_drop_candidates_are_refused(rule: str, client: Client) -> None:
    """It drops candidates by itself, and scores of its rungs cannot be compared."""
    with pytest.raises(UnsupportedSearchError, match=rule):
        DaskSearchCV(learning(), client=client, **{rule: 1}).fit(X, y)


def models(url: str) -> list[Path]:
    """Return the files of models in a run's folder."""
    return list((Path(url.removeprefix("file://")) / "models").glob("*"))


def test_a_submitted_run_shows_its_rungs(client: Client, tmp_path: Path) -> None:
    """Progress and trials have all rungs; no model is left in its folder."""
    run = DaskSearchCV(learning(), client=client, store=tmp_path).submit(X, y)

    found = run.result(60)

    table = run.trials()
    assert (
        difference(
            found.cv_results_["n_resources"].tolist(), table["n_resources"].tolist()
        )
        is None
    )
    assert table["iter"].tolist() == found.cv_results_["iter"].tolist()
    assert table["mean_test_score"].tolist() == pytest.approx(
        found.cv_results_["mean_test_score"].tolist()
    )
    progress = run.progress()
    assert progress.fits_done == progress.fits_total == N_SPLITS * len(table)
    assert progress.best_params == found.best_params_
    assert models(run.url) == []


def test_a_stopped_run_goes_on_with_its_models(client: Client, tmp_path: Path) -> None:
    """Stopped and resumed, no finished fit runs again, and models are not trained anew."""
    numbers = [one["number"] for one in plain(learning()).cv_results_["params"][:9]]
    log, seconds = tmp_path / "log", 0.5
    search = learning(log, seconds=seconds, refit=False)  # a driver notes it too
    run = DaskSearchCV(search, client=client, store=tmp_path / "store").submit(X, y)
    wait_until(lambda: len(fits_of(log)) >= 8)

    run.stop()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SearchStoppedWarning)
        stopped = run.result(60)
    n_fits = len(fits_of(log))
    assert 3 <= len(stopped.cv_results_["params"]) < 13
    assert models(run.url)
    found = run.resume(client).result(60)

    begun = fits_of(log)
    assert [one["number"] for one in found.cv_results_["params"][:9]] == numbers
    assert sum(begun.values()) - len(begun) <= 2  # the fits that the stop had ended
    steps = Counter((before, after) for _, _, before, after in begun)
    assert set(steps) == {(0, 1), (1, 3), (3, 9)}
    assert n_fits < len(begun) == N_SPLITS * len(found.cv_results_["params"])
    assert models(run.url) == []


@pytest.fixture(scope="module")
def recorded(
    client: Client, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RecordedRun, Path]:
    """A run with a journal, and the log of its fits."""
    log = tmp_path_factory.mktemp("fits") / "log"
    search = learning(log, warm_start=False, random_state=None)
    return RecordedRun.of(search, X, y, client), log


def test_a_resumed_run_keeps_its_decisions(
    recorded: tuple[RecordedRun, Path], client: Client
) -> None:
    """Wherever it was cut: candidates and promotions are read, finished fits do not run."""
    run, log = recorded
    drawn = run.fitted.cv_results_["params"][:9]
    assert any(isinstance(one, AskEvent) for one in run.events)
    for length in range(4, len(run.events), 3):
        before = fits_of(log)
        kept = run.events[:length]

        fitted = drive(run.copy(kept), X, y, client).search

        again = fits_of(log) - before
        promoted = [
            (one.call, one.candidate, one.params)
            for one in kept
            if isinstance(one, AskEvent)
        ]
        for rung, place, params in promoted:
            on_rung = [row["params"] for row in rows(fitted) if row["iter"] == rung]
            assert on_rung[place] == params
        known = sum(isinstance(one, FitEvent) for one in kept)
        assert fitted.cv_results_["params"][:9] == drawn
        assert sum(again.values()) == N_SPLITS * len(rows(fitted)) - known
        check_promotions(fitted)


def check_promotions(search: Any) -> None:
    """Assert that each promoted candidate was good enough on the rung below."""
    scores: dict[Job, float] = {}
    numbers = [one["number"] for one in search.cv_results_["params"][:9]]
    for row in rows(search):
        job = Job(numbers.index(row["params"]["number"]), row["iter"])
        scores[job] = row["mean_test_score"]
    # With all scores known, each one that the rule promotes was promoted before the end.
    ladder = RungLadder(9, n_rungs=3, factor=3)
    for job in scores:
        ladder.recall(job)
    for job, score in scores.items():
        ladder.finished(job, score)
    assert ladder.next_job() is None


def test_a_model_that_is_lost_is_trained_anew(client: Client, tmp_path: Path) -> None:
    """From the beginning, to the same resources."""
    log = tmp_path / "log"
    run = RecordedRun.of(learning(log), X, y, client)
    asks = [at for at, one in enumerate(run.events) if isinstance(one, AskEvent)]
    log.unlink()

    fitted = drive(run.copy(run.events[: asks[0] + 1]), X, y, client).search

    steps = {(before, after) for _, _, before, after in fits_of(log)}
    assert (0, 3) in steps
    scores = {
        (r["iter"], r["params"]["number"]): r["mean_test_score"] for r in rows(fitted)
    }
    for row in rows(run.fitted):
        key = row["iter"], row["params"]["number"]
        assert scores.get(key, row["mean_test_score"]) == row["mean_test_score"]


def test_run_folders_can_be_read_while_it_runs(client: Client, tmp_path: Path) -> None:
    """The best so far is of the highest rung that has a complete candidate."""
    numbers = [one["number"] for one in plain(learning()).cv_results_["params"][:9]]
    search = learning(holds=(numbers[7],))
    run = DaskSearchCV(search, client=client, store=tmp_path).submit(X, y)

    def best() -> dict[str, Any]:
        return dict(SearchRun.attach(run.url).progress().best_params or {})

    wait_until(lambda: best().get("max_iter", 0) > 1)
    run.stop()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SearchStoppedWarning)
        run.result(60)
