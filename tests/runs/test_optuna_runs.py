"""Runs of OptunaSearchCV: cut anywhere, stopped, looked at, and resumed."""

from __future__ import annotations

import copy
import os
import time
import uuid
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner
from sklearn.linear_model import SGDClassifier

from dask_hpsearch import DaskSearchCV, SearchRun, local_cluster
from dask_hpsearch.exceptions import RunCancelledError, SearchStoppedWarning
from dask_hpsearch.journal.events import (
    AskEvent,
    CallEvent,
    DropEvent,
    FitEvent,
    ReportEvent,
    TellEvent,
)
from dask_hpsearch.journal.folder import RunFolder
from dask_hpsearch.stores import open_store
from tests.estimators import Deed, flowers, seen
from tests.processes import wait_until
from tests.runs.recorded import RecordedRun, drive, events_of
from tests.strategies.optuna.searches import (
    NUMBERS,
    assert_same,
    contents,
    deeds,
    optuna_search,
    study_with,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from distributed import Client

    from dask_hpsearch.journal.events import Event

X, y = flowers()
KINDS = (CallEvent, AskEvent, FitEvent, ReportEvent, DropEvent, TellEvent)
STEPS = {
    "alpha": FloatDistribution(1e-8, 1e3, log=True),
    "penalty": CategoricalDistribution(["l1", "l2"]),
}


@pytest.fixture(scope="module")
def slot() -> Iterator[Client]:
    """A client of a cluster with one slot, on which a seed decides everything."""
    with local_cluster(1, 1, dashboard_address=":0") as cluster:
        client = cluster.get_client()
        with client:
            yield client


def recorded_of(search: Any, client: Client, **options: Any) -> RecordedRun:
    """Run a search to its end; return it with its events in their order."""
    store = f"memory://{uuid.uuid4().hex}"
    found = DaskSearchCV(search, client=client, store=store, **options).fit(X, y)
    assert found.run_url_ is not None
    folder = RunFolder.open(open_store(found.run_url_))
    events: list[Event] = [one for one in events_of(folder) if isinstance(one, KINDS)]
    events.sort(key=lambda event: event.time)  # a segment has its fits last
    return RecordedRun(folder, found.search_, events)


def splits_search(log: Path) -> Any:
    """Make a search whose pruner sees each split."""
    pruner = MedianPruner(n_startup_trials=2)
    return deeds(log, study=study_with(pruner=pruner), n_trials=12, refit=False)


def steps_search(pruner: Any) -> Any:
    """Make a search that trains by steps."""
    return optuna_search(
        SGDClassifier(random_state=0),
        STEPS,
        study=study_with(pruner=pruner),
        enable_pruning=True,
        max_iter=4,
        n_trials=6,
        refit=False,
    )


@pytest.mark.parametrize("kind", ["splits", "no pruner", "median", "hyperband"])
def test_a_search_that_is_cut_goes_on_as_if_it_were_not(
    kind: str, slot: Client, tmp_path: Path
) -> None:
    """Wherever: the same trials with the same states, and no decision is made anew."""
    log = tmp_path / "fits.log"
    search = {
        "splits": lambda: splits_search(log),
        "no pruner": lambda: deeds(log, n_trials=6, refit=False),
        "median": lambda: steps_search(MedianPruner(n_startup_trials=1)),
        "hyperband": lambda: steps_search(HyperbandPruner(max_resource=4)),
    }[kind]()
    recorded = recorded_of(search, slot)
    states = Counter(trial.state.name for trial in recorded.fitted.trials_)
    assert ("PRUNED" in states) == (kind != "no pruner")
    for number in np.linspace(1, len(recorded.events), 7).astype(int):
        before = recorded.events[:number]
        begun_before = len(seen(log, "start"))

        folder = recorded.copy(before)
        fitted = drive(folder, X, y, slot)

        assert_same(recorded.fitted, fitted.search)
        events = events_of(folder)
        reports = Counter(
            (one.candidate, one.step) for one in events if isinstance(one, ReportEvent)
        )
        assert max(reports.values(), default=1) == 1
        assert Counter(type(one) for one in events if isinstance(one, TellEvent)) == {
            TellEvent: len(fitted.search.trials_)
        }
        if kind in ("splits", "no pruner"):
            n_known = sum(isinstance(one, FitEvent) for one in before)
            begun = len(seen(log, "start")) - begun_before
            assert begun == recorded.n_fits - n_known


def test_later_splits_of_a_pruned_trial_never_run(
    client: Client, tmp_path: Path
) -> None:
    """On several slots too; others have all their splits."""
    log = tmp_path / "fits.log"
    pruner = MedianPruner(n_startup_trials=2)
    search = deeds(log, study=study_with(pruner=pruner), n_trials=24, cv=4)

    recorded = recorded_of(search.set_params(refit=False), client)

    begun = Counter(entry["number"] for entry in seen(log, "start"))
    expected: Counter[int] = Counter()
    for trial in recorded.fitted.trials_:
        is_pruned = trial.state.name == "PRUNED"
        n_splits = len(trial.intermediate_values) if is_pruned else 4
        expected[trial.params["number"]] += n_splits
        scores = [trial.user_attrs[f"split{split}_test_score"] for split in range(4)]
        assert sum(np.isfinite(scores)) == n_splits
    states = Counter(trial.state.name for trial in recorded.fitted.trials_)
    assert states["PRUNED"] >= 3
    # When no further trial can be asked, splits of the last ones may run at once.
    last = {trial.params["number"] for trial in recorded.fitted.trials_[-4:]}
    for number, count in expected.items():
        assert begun[number] == count or (number in last and begun[number] > count)
    assert set(recorded.fitted.cv_results_) >= {"mean_test_score", "split3_test_score"}


def test_wilcoxon_compares_the_scores_of_single_splits(client: Client) -> None:
    """Others compare means of the splits so far."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        pruner = optuna.pruners.WilcoxonPruner()
    search = deeds(study=study_with(pruner=pruner), n_trials=6, cv=4, refit=False)

    fitted = recorded_of(search, client).fitted

    for trial in fitted.trials_:
        for split, value in trial.intermediate_values.items():
            assert value == trial.user_attrs[f"split{split}_test_score"]
    assert any(len(one.intermediate_values) == 4 for one in fitted.trials_)


@pytest.mark.parametrize(
    "pruner", [NopPruner(), MedianPruner()], ids=["none", "default"]
)
def test_a_pruner_that_the_user_did_not_choose_sees_no_split(
    pruner: Any, client: Client
) -> None:
    """OptunaSearchCV itself leaves it alone too, without enable_pruning."""
    search = deeds(study=study_with(pruner=copy.deepcopy(pruner)), refit=False)

    fitted = recorded_of(search, client).fitted

    assert {trial.state.name for trial in fitted.trials_} == {"COMPLETE"}
    assert not any(trial.intermediate_values for trial in fitted.trials_)


def test_trials_run_at_once_and_the_study_is_whole(
    client: Client, tmp_path: Path
) -> None:
    """As many as there are slots; Optuna's plots and tables work on the study."""
    import matplotlib as mpl
    from optuna.visualization import matplotlib as plots

    mpl.use("Agg")
    gate, log = tmp_path / "gate", tmp_path / "fits.log"
    deed = Deed(client=os.getpid(), log=str(log), gate=str(gate))
    search = optuna_search(deed, NUMBERS, cv=[(np.arange(60), np.arange(60, 90))])
    run = DaskSearchCV(search, client=client).submit(X, y)
    wait_until(lambda: len(seen(log, "wait")) == 2)
    gate.touch()

    fitted = run.result(60)

    assert len(fitted.trials_dataframe()) == fitted.n_trials_ == 12
    assert fitted.best_index_ == fitted.best_trial_.number
    assert fitted.predict(X).shape == y.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        plots.plot_optimization_history(fitted.study_)
        plots.plot_slice(fitted.study_)
    table = run.trials()
    assert list(table["n_fits"]) == [1] * 12
    assert sorted(table["param_number"]) == sorted(
        trial.params["number"] for trial in fitted.trials_
    )
    progress = run.progress()
    assert (progress.fits_done, progress.fits_total) == (12, 12)
    assert progress.best_score == pytest.approx(fitted.best_score_)


def test_a_search_that_is_stopped_is_resumed_with_its_trials(
    client: Client, tmp_path: Path
) -> None:
    """Trials that were cut have failed in its result, and run again later."""
    log = tmp_path / "fits.log"
    deed = Deed(client=os.getpid(), log=str(log), hold_after=7)
    search = optuna_search(deed, NUMBERS, n_trials=6, cv=2, refit=False)
    run = DaskSearchCV(search, client=client, store=tmp_path / "store").submit(X, y)
    wait_until(lambda: len(seen(log, "wait")) == 2)
    wait_until(lambda: run.progress().fits_done == len(seen(log, "end")))

    run.stop()
    partial = run.result(60)

    assert run.state == "stopped"
    states = [trial.state.name for trial in partial.trials_]
    assert "COMPLETE" in states
    assert "FAIL" in states
    assert len(partial.cv_results_["mean_test_score"]) == len(states)
    known = run.progress().fits_done
    log.write_text("")  # nothing holds any more
    whole = SearchRun.attach(run.url).resume(client).result(60)
    assert [trial.state.name for trial in whole.trials_] == ["COMPLETE"] * 6
    assert len(seen(log, "start")) == 12 - known
    for trial in partial.trials_:
        same = whole.trials_[trial.number]
        assert same.params == trial.params
        if trial.state.name == "COMPLETE":
            np.testing.assert_equal(contents(same), contents(trial))


def test_time_limits_end_a_search_with_what_it_has(client: Client) -> None:
    """Optuna's lets running trials end; the package's own cuts them, and warns."""
    deed = Deed(client=os.getpid(), seconds=0.05)
    endless = optuna_search(deed, NUMBERS, n_trials=None, cv=2, timeout=1.0)
    began = time.monotonic()
    fitted = DaskSearchCV(endless, client=client).fit(X, y)
    assert time.monotonic() > began + 1.0
    assert fitted.stopped_ is None
    assert {trial.state.name for trial in fitted.trials_} == {"COMPLETE"}

    endless.set_params(timeout=None)
    with pytest.warns(SearchStoppedWarning):
        cut = DaskSearchCV(endless, client=client, max_time=1.0).fit(X, y)
    assert cut.stopped_ == "max_time"
    assert cut.best_params_ in [trial.params for trial in cut.trials_]


def test_a_cancelled_search_has_no_result(client: Client, tmp_path: Path) -> None:
    """Its fits end at once."""
    log = tmp_path / "fits.log"
    deed = Deed(client=os.getpid(), log=str(log), hold_after=0)
    search = optuna_search(deed, NUMBERS, cv=2)
    run = DaskSearchCV(search, client=client).submit(X, y)
    wait_until(lambda: len(seen(log, "wait")) == 2)

    run.cancel()

    with pytest.raises(RunCancelledError):
        run.result(60)


@pytest.mark.parametrize("deed", ["kill", "exit"])
def test_a_fit_that_ends_its_process_counts_as_failed(
    deed: str, client: Client
) -> None:
    """The others go on."""
    space = {"deed": CategoricalDistribution(["fit", deed])}
    options: dict[str, Any] = {"n_trials": 4, "cv": 2, "refit": False}
    search = optuna_search(Deed(client=os.getpid()), space, **options)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = DaskSearchCV(search, client=client).fit(X, y)

    for trial in fitted.trials_:
        failed = trial.params["deed"] == deed
        assert trial.state.name == ("FAIL" if failed else "COMPLETE")
    assert len({trial.params["deed"] for trial in fitted.trials_}) == 2


def test_a_study_in_a_database_has_each_trial_once(
    client: Client, tmp_path: Path
) -> None:
    """After a stop, and a resume in another process."""
    log = tmp_path / "fits.log"
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    study = study_with(storage=storage)
    deed = Deed(client=os.getpid(), log=str(log), hold_after=7)
    search = optuna_search(deed, NUMBERS, n_trials=6, cv=2, study=study, refit=False)
    run = DaskSearchCV(search, client=client, store=tmp_path / "store").submit(X, y)
    wait_until(lambda: len(seen(log, "wait")) == 2)
    wait_until(lambda: run.progress().fits_done == len(seen(log, "end")))
    run.stop()
    run.result(60)
    log.write_text("")

    whole = SearchRun.attach(run.url).resume(client).result(60)

    states = Counter(trial.state.name for trial in study.trials)
    assert states["COMPLETE"] == 6
    assert states["RUNNING"] == 0
    assert whole.study_.study_name == study.study_name
    complete = [one for one in study.trials if one.state.name == "COMPLETE"]
    tags = [one.system_attrs["dask_hpsearch:trial"] for one in complete]
    assert len(set(tags)) == 6
