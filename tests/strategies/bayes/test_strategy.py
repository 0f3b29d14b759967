from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.exceptions import FitFailedWarning
from sklearn.metrics import accuracy_score, f1_score
from skopt import BayesSearchCV
from skopt.learning import ExtraTreesRegressor
from skopt.space import Integer, Real

from dask_hpsearch import DaskSearchCV, local_cluster
from dask_hpsearch.data import DataStore
from dask_hpsearch.exceptions import SearchStoppedWarning
from dask_hpsearch.execution.settings import Settings
from dask_hpsearch.journal.events import AskEvent, FitEvent
from dask_hpsearch.journal.folder import SEARCH
from dask_hpsearch.runs.create import Work
from dask_hpsearch.runs.driver.drive import drive_run
from tests.estimators import Deed, flowers, read_log, seen
from tests.runs.recorded import RecordedRun, calls_asks_and_fits, drive

if TYPE_CHECKING:
    from pathlib import Path

    from distributed import Client

X, y = flowers()
NUMBERS = {"number": Integer(0, 200)}
QUICK = {
    "base_estimator": ExtraTreesRegressor(n_estimators=3, random_state=0),
    "acq_func": "EI",
    "acq_optimizer_kwargs": {"n_points": 50},
    "n_initial_points": 4,
}


def bayes(spaces: Any = NUMBERS, deed: Deed | None = None, **options: Any) -> Any:
    """Make a search whose fits do nothing but what they are told."""
    options = {"n_iter": 12, "cv": 2, "random_state": 0, **options}
    deed = deed or Deed(client=os.getpid())
    return BayesSearchCV(deed, spaces, optimizer_kwargs=QUICK, **options)


def found(search: Any, client: Client, *, callback: Any = None, **options: Any) -> Any:
    """Fit without a barrier; return the fitted search."""
    ours = DaskSearchCV(search, client=client, bayes_async=True, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitFailedWarning)
        warnings.filterwarnings("ignore", ".*non-finite")
        return ours.fit(X, y, callback=callback).search_


def test_it_is_fitted_as_skopt_leaves_it(client: Client) -> None:
    """Results, best candidate, optimizers: all is there, in the order of candidates."""
    fitted = found(bayes(return_train_score=True), client)

    (result,) = fitted.optimizer_results_
    numbers = [params["number"] for params in fitted.cv_results_["params"]]
    assert type(fitted) is BayesSearchCV
    assert len(numbers) == 12
    assert [point[0] for point in result.x_iters] == numbers
    np.testing.assert_array_equal(
        result.func_vals, -fitted.cv_results_["mean_test_score"]
    )
    assert result.models
    assert fitted.optimizers_[0].ask()[0] in NUMBERS["number"]
    assert fitted.best_score_ == max(fitted.cv_results_["mean_test_score"])
    assert "rank_train_score" in fitted.cv_results_
    assert fitted.best_estimator_.number == fitted.best_params_["number"]


def test_the_first_candidates_are_skopts(client: Client) -> None:
    """Until there is a model, a seed gives what it gives in a plain fit."""
    fitted = found(bayes(), client)

    plain = bayes(n_iter=4).fit(X, y)
    expected = plain.cv_results_["params"]
    assert fitted.cv_results_["params"][:4] == expected


def test_one_slot_asks_what_skopt_asks() -> None:
    """With nothing to overlap it is skopt's own loop: the same candidates for a seed."""
    with (
        local_cluster(1, 1, dashboard_address=":0") as cluster,
        cluster.get_client() as client,
    ):
        ours = DaskSearchCV(bayes(), client=client).fit(X, y)

    plain = bayes().fit(X, y)
    assert ours.cv_results_["params"] == plain.cv_results_["params"]


def test_spaces_have_their_own_number_of_candidates(client: Client) -> None:
    """Each space is explored by its own optimizer."""
    spaces = [
        (NUMBERS, 7),
        ({"number": Real(300, 400), "seconds": Real(1e-4, 1e-3, "log-uniform")}, 5),
    ]

    fitted = found(bayes(spaces), client)

    seconds = np.ma.getmaskarray(fitted.cv_results_["param_seconds"])
    assert seconds.tolist() == [True] * 7 + [False] * 5
    assert [len(one.x_iters) for one in fitted.optimizer_results_] == [7, 5]


def test_a_callback_ends_it(client: Client) -> None:
    """Called with skopt's result after each tell; candidates in flight are dropped."""
    seen_results: list[Any] = []

    def enough(result: Any) -> bool:
        seen_results.append(result)
        return len(result.x_iters) == 5

    fitted = found(bayes(), client, callback=enough)

    assert len(seen_results) == 5
    assert len(fitted.cv_results_["params"]) == 5
    assert len(fitted.optimizer_results_[0].x_iters) == 5


def two_scores(estimator: Any, X: Any, y: Any) -> dict[str, float]:
    """Score a classifier in two ways, by names of its own."""
    predicted = estimator.predict(X)
    return {
        "hits": accuracy_score(y, predicted),
        "balance": f1_score(y, predicted, average="macro"),
    }


@pytest.mark.parametrize(
    "scoring",
    [{"hits": "accuracy", "balance": "f1_macro"}, two_scores],
    ids=["names", "function"],
)
def test_one_of_several_scores_leads(scoring: Any, client: Client) -> None:
    """``refit`` names the score that the optimizer is told."""
    fitted = found(bayes(scoring=scoring, refit="balance"), client)

    told = fitted.optimizer_results_[0].func_vals
    np.testing.assert_array_equal(told, -fitted.cv_results_["mean_test_balance"])
    assert fitted.best_index_ == np.argmax(fitted.cv_results_["mean_test_balance"])


def test_several_scores_want_a_leader(client: Client) -> None:
    """A scoring function with several scores and no name of one is refused, as by skopt."""
    with pytest.raises(ValueError, match="refit"):
        found(bayes(scoring=two_scores, refit=False), client)


def test_points_at_once_are_bounded(client: Client, tmp_path: Path) -> None:
    """With ``n_points`` above one, no more candidates are in flight."""
    log = tmp_path / "log"
    deed = Deed(log=str(log), seconds=0.01, client=os.getpid())

    found(bayes(deed=deed, n_points=2, cv=3), client)

    at_once: list[int] = []
    running: dict[int, int] = {}
    for entry in read_log(log):
        if entry["event"] == "start":
            running[entry["number"]] = running.get(entry["number"], 3)
            at_once.append(len(running))
        else:
            running[entry["number"]] -= 1
            if not running[entry["number"]]:
                del running[entry["number"]]
    assert max(at_once) <= 2


@pytest.mark.parametrize("random_state", [None, 7, np.random.RandomState(3)], ids=str)
def test_any_random_state(random_state: Any, client: Client) -> None:
    """None, a number, or a generator, which goes on from where it is."""
    fitted = found(bayes(random_state=random_state), client)

    assert len(fitted.cv_results_["params"]) == 12
    assert fitted.random_state is random_state


def test_a_failing_fit_raises_if_asked_to(client: Client) -> None:
    """With ``error_score="raise"``, skopt's default, the fit's own error ends it."""
    deed = Deed(deed="raise", client=os.getpid())

    with pytest.raises(ValueError, match="a fit like any other"):
        found(bayes(deed=deed), client)


def test_max_time_keeps_what_is_complete(client: Client, tmp_path: Path) -> None:
    """Stopped, it has the complete candidates, and the optimizer was told of no other."""
    log = str(tmp_path / "log")
    deed = Deed(log=log, hold_after=11, client=os.getpid())

    with pytest.warns(SearchStoppedWarning):
        fitted = found(bayes(deed=deed), client, max_time=4.0)

    n = len(fitted.cv_results_["params"])
    assert 4 <= n <= 6  # two slots may count the same fits
    assert len(fitted.optimizer_results_[0].x_iters) == n


@pytest.fixture(scope="module")
def recorded(
    client: Client, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RecordedRun, str]:
    """A run with a journal, and the log of its fits."""
    log = str(tmp_path_factory.mktemp("fits") / "log")
    search = bayes(deed=Deed(log=log, client=os.getpid()), n_iter=8)
    return RecordedRun.of(search, X, y, client), log


def test_a_resumed_run_asks_the_same(
    recorded: tuple[RecordedRun, str], client: Client
) -> None:
    """Wherever it was cut: the asks are read, and no finished fit runs again."""
    run, log = recorded
    events = calls_asks_and_fits(run.folder)
    for length in range(1, len(events)):
        before = len(seen(log, "start"))
        kept = events[:length]

        fitted = drive(run.copy(kept), X, y, client).search

        asks = {one.candidate: one.params for one in kept if isinstance(one, AskEvent)}
        known = sum(isinstance(one, FitEvent) for one in kept)
        for ordinal, params in asks.items():
            assert fitted.cv_results_["params"][ordinal] == params
        assert len(fitted.cv_results_["params"]) == 8
        assert len(seen(log, "start")) - before == 16 - known


def test_an_extended_run_keeps_its_candidates(
    recorded: tuple[RecordedRun, str], client: Client
) -> None:
    """With more candidates to come, only those run; the earlier ones stay in place."""
    run, log = recorded
    folder = run.copy(calls_asks_and_fits(run.folder))
    before = len(seen(log, "start"))
    search = folder.load_pickle(SEARCH).set_params(n_iter=11)

    with DataStore() as data_store:
        work, settings = Work(search, X, y, {}), Settings(client=client)
        fitted = drive_run(folder, work, data_store, settings, generation=1).search

    params = fitted.cv_results_["params"]
    assert len(params) == 11
    assert params[:8] == run.fitted.cv_results_["params"]
    assert len(seen(log, "start")) - before == 6
