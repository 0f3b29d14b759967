"""Searches that train by partial_fit, as a user has them: fit, submit, follow, stop, resume."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from dask_ml.model_selection import (
    HyperbandSearchCV,
    IncrementalSearchCV,
    SuccessiveHalvingSearchCV,
)
from sklearn.base import clone
from sklearn.linear_model import SGDClassifier
from sklearn.naive_bayes import GaussianNB

from dask_hpsearch import DaskSearchCV, SearchRun, cli
from dask_hpsearch.data import DataStore
from dask_hpsearch.exceptions import (
    DataFormatError,
    DataUnavailableError,
    FitKilledError,
    FitTimeoutError,
    JournalMismatchError,
    RunCancelledError,
    SearchStopped,
    SearchStoppedWarning,
    UnsupportedSearchError,
)
from dask_hpsearch.execution.fit import fit_trials
from dask_hpsearch.execution.settings import Settings
from dask_hpsearch.journal.run_journal import RunJournal
from dask_hpsearch.journal.training_events import RoundEvent, TrainEvent
from dask_hpsearch.runs.create import Work
from dask_hpsearch.runs.driver.drive import drive_run
from dask_hpsearch.stores import open_store
from dask_hpsearch.strategies.model_states import remove_all
from tests.processes import wait_until
from tests.runs.recorded import begun, events_of
from tests.strategies.incremental.models import Curve, Deadly, Density, Slow, calls_in
from tests.strategies.incremental.oracle import (
    fitted_by_dask_ml,
    in_blocks,
    outcome_of,
    without_times,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from distributed import Client

    from dask_hpsearch.journal.folder import RunFolder

RNG = np.random.default_rng(2)
X, y = RNG.normal(size=(120, 3)), RNG.integers(0, 2, 120)
DATA = in_blocks(X, y, 30)
ARRAYS = X, y
SPACE = {"level": RNG.uniform(0.3, 1, 50), "speed": RNG.uniform(0.1, 5, 50)}
LARGE = 100_000


def hyperband(model: Any = None, **options: Any) -> Any:
    """Make a search of three brackets and 28 calls of partial_fit."""
    own = {"max_iter": 4, "aggressiveness": 2, "random_state": 0, **options}
    return HyperbandSearchCV(model or Curve(), SPACE, **own)


def incremental(model: Any = None, **options: Any) -> Any:
    """Make a search of four models."""
    own = {"n_initial_parameters": 4, "decay_rate": None, "random_state": 0, **options}
    return IncrementalSearchCV(model or Curve(), SPACE, **own)


def names_in(run: SearchRun, start: str) -> list[str]:
    """Names of objects in a run's folder."""
    return [one.name for one in open_store(run.url).list(start)]


def same(search: Any, other: Any) -> bool:
    """Whether two fitted searches say the same, apart from times."""
    first, second = outcome_of(search), outcome_of(other)
    for one in (first, second):
        one.pop("own attributes")
    return first == second


# --- as a user has them -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "gs"])
def test_a_submitted_search_is_followed_by_its_journal(
    kind: str,
    tmp_path: Path,
    gcs_bucket: str,
    client: Client,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Progress counts calls of partial_fit; trials and the CLI show scores and brackets."""
    urls = {
        "file": str(tmp_path / "store"),
        "gs": f"gs://{gcs_bucket}/{uuid.uuid4().hex}",
    }
    search = hyperband()
    own = DaskSearchCV(search, client=client, store=urls[kind], task_name="bands")

    run = own.submit(*DATA)
    result = run.result(60)

    assert same(result, fitted_by_dask_ml(clone(search), *DATA))
    assert type(result) is HyperbandSearchCV
    progress = run.progress()
    assert progress.fits_done == progress.fits_total == 28
    assert progress.best_score == pytest.approx(result.best_score_)
    assert progress.best_params == pytest.approx(result.best_params_)
    table = run.trials()
    assert len(table) == len(result.cv_results_["model_id"])
    ids = [f"bracket={row.bracket}-{row.candidate}" for row in table.itertuples()]
    scores = dict(zip(ids, table["mean_test_score"], strict=True))
    calls = dict(zip(ids, table["partial_fit_calls"], strict=True))
    columns = result.cv_results_
    assert scores == dict(zip(columns["model_id"], columns["test_score"], strict=True))
    assert calls == dict(
        zip(columns["model_id"], columns["partial_fit_calls"], strict=True)
    )
    assert cli.main(["attach", run.url]) == 0
    shown = capsys.readouterr().out
    assert "28/28" in shown
    assert f"{result.best_score_:.4g}" in shown
    assert names_in(run, "models/") == []
    slim = run.result(60, estimator=False)
    assert not hasattr(slim, "best_estimator_")
    halvings = slim._SuccessiveHalvings_.values()
    assert not any(hasattr(one, "best_estimator_") for one in halvings)


def test_the_wrapper_behaves_as_the_fitted_search(client: Client) -> None:
    """Attributes and methods are those of dask-ml's object, which pickles alone."""
    model = SGDClassifier(random_state=0)
    search = HyperbandSearchCV(
        model, {"alpha": [1e-4, 1e-2, 1]}, max_iter=4, random_state=0
    )

    found = DaskSearchCV(search, client=client).fit(*DATA, classes=[0, 1])

    assert found.best_params_ == found.search_.best_params_
    assert found.metadata_["n_models"] == len(found.model_history_)
    assert 0 <= found.score(X, y) <= 1
    np.testing.assert_array_equal(
        np.asarray(found.predict(X)), found.best_estimator_.predict(X)
    )
    again = pickle.loads(pickle.dumps(found.search_))
    assert same(again, found.search_)
    assert not hasattr(search, "best_params_")
    assert search.random_state == 0


@pytest.mark.parametrize("seed", [None, 3])
def test_the_search_of_the_user_stays_as_it_is(seed: Any, client: Client) -> None:
    """Its parameters, and so do those of the fitted copy."""
    search = incremental(max_iter=2, random_state=seed)
    before = dict(vars(search))

    found = DaskSearchCV(search, client=client).fit(*DATA)

    assert vars(search) == before
    assert found.search_.random_state is seed
    assert type(found.search_) is IncrementalSearchCV


def test_data_by_url_array_and_dask_array_give_one_result(
    tmp_path: Path, gcs_bucket: str, client: Client
) -> None:
    """If their blocks are the same: dask-ml makes one block of an array."""
    fs = open_store(f"gs://{gcs_bucket}/{uuid.uuid4().hex}")
    for name, value in (("X", X), ("y", y)):
        np.save(tmp_path / f"{name}.npy", value)
        fs.send(f"{name}.npy", tmp_path / f"{name}.npy")
    table = pd.DataFrame(X, columns=list("abc")).assign(label=y)
    table.to_parquet(tmp_path / "table.parquet")
    given: list[tuple[Any, Any]] = [
        (X, y),
        in_blocks(X, y, len(X)),
        (str(tmp_path / "X.npy"), str(tmp_path / "y.npy")),
        (f"{fs.url}/X.npy", f"{fs.url}/y.npy"),
        (str(tmp_path / "table.parquet"), "label"),
    ]

    found = [
        DaskSearchCV(hyperband(), client=client).fit(*data).search_ for data in given
    ]

    assert all(same(one, found[0]) for one in found)
    assert not same(found[0], DaskSearchCV(hyperband(), client=client).fit(*DATA))


def test_blocks_of_a_dask_array_outlive_its_process(
    client: Client, tmp_path: Path
) -> None:
    """A driver elsewhere trains on the same ones."""
    search = incremental(max_iter=5)
    own = DaskSearchCV(search, client=client, store=tmp_path)

    found = own.submit(*DATA).result(60)

    assert len(set(found.best_estimator_.blocks_)) == 4
    assert same(found, fitted_by_dask_ml(clone(search), *DATA))


def test_blocks_of_a_dask_dataframe_are_its_partitions(client: Client) -> None:
    """They are split into train and test rows as those of an array."""
    import dask.dataframe as dd

    frame = pd.DataFrame(X)
    parts = dd.from_pandas(frame, npartitions=4), dd.from_pandas(pd.Series(y), 4)

    found = DaskSearchCV(incremental(max_iter=3), client=client).fit(*parts)

    expected = fitted_by_dask_ml(incremental(max_iter=3), *DATA)
    assert same(found.search_, expected)


def test_blocks_of_unknown_size_are_refused(client: Client) -> None:
    """The error names the call that counts rows."""
    unknown = DATA[0][DATA[0][:, 0] > 0]

    with pytest.raises(DataFormatError, match="compute_chunk_sizes"):
        DaskSearchCV(incremental(), client=client).fit(unknown, y)


def test_a_search_without_a_target(client: Client) -> None:
    """Models that need none are trained and scored without it."""
    search = IncrementalSearchCV(
        Density(), {"width": [0.1, 1.0]}, 2, decay_rate=None, max_iter=2
    )

    found = DaskSearchCV(search, client=client).fit(DATA[0])

    assert found.best_estimator_.rows_ > 0


# --- stops --------------------------------------------------------------------------------


def test_a_search_ends_in_time_with_the_best_model_so_far(
    client: Client, tmp_path: Path
) -> None:
    """With its state when it was scored; results cover what was scored; resuming goes on."""
    gate = tmp_path / "gate"
    model = Curve(gate=str(gate), gate_after=2, nbytes=LARGE)
    own = DaskSearchCV(hyperband(model), client=client, store=tmp_path, max_time=1.5)

    with pytest.warns(SearchStoppedWarning, match="max_time"):
        found = own.fit(*DATA)

    assert found.stopped_ == "max_time"
    search = found.search_
    histories = search.model_history_
    assert search.best_score_ == max(one[-1]["score"] for one in histories.values())
    best = histories[search.cv_results_["model_id"][search.best_index_]]
    assert search.best_estimator_.calls_ == best[-1]["partial_fit_calls"] <= 2
    assert search.best_params_ == best[-1]["params"]
    run = SearchRun.attach(found.run_url_)
    assert run.state == "stopped"
    assert names_in(run, "models/")

    gate.touch()
    whole = run.resume(client, max_time=float("inf")).result(60)

    assert (
        same(whole, fitted_by_dask_ml(hyperband(), *DATA))
        or outcome_of(whole)["history"]
        == (outcome_of(fitted_by_dask_ml(hyperband(model), *DATA))["history"])
    )
    assert names_in(run, "models/") == []


def test_a_search_that_is_stopped_too_early_says_so(
    client: Client, tmp_path: Path
) -> None:
    """It has no result, but its calls are not lost."""
    model = Curve(gate=str(tmp_path / "gate"), gate_after=0)
    own = DaskSearchCV(incremental(model), client=client, store=tmp_path, max_time=0.5)

    with pytest.raises(
        SearchStopped, match=r"any model was scored.*resume\(max_time=\.\.\.\)"
    ):
        own.fit(*DATA)


def test_a_stopped_search_with_some_models_unscored(
    client: Client, tmp_path: Path
) -> None:
    """The best one is found by its place among those that were scored."""
    log = tmp_path / "calls.log"
    model = Slow(log=str(log), seconds=0.01)
    search = IncrementalSearchCV(
        model, {"level": [30.0, 0.5, 0.9, 0.7]}, "grid", decay_rate=None, random_state=0
    )
    own = DaskSearchCV(search, client=client, store=tmp_path, max_time=2)

    with pytest.warns(SearchStoppedWarning):
        found = own.fit(*DATA)

    assert found.best_params_ == {"level": 0.9}
    assert sorted(found.model_history_) == [1, 2, 3]
    assert found.cv_results_["params"][found.best_index_] == {"level": 0.9}
    assert found.best_estimator_.level == 0.9


def test_a_run_is_stopped_and_cancelled_on_request(
    client: Client, tmp_path: Path
) -> None:
    """A stop keeps the best model; after a cancel it can still be resumed."""
    gate, log = tmp_path / "gate", tmp_path / "calls.log"
    model = Curve(gate=str(gate), gate_after=1, log=str(log))
    first, second = (
        DaskSearchCV(incremental(model, max_iter=3), client=client, store=tmp_path)
        for _ in range(2)
    )

    run = first.submit(*DATA)
    wait_until(lambda: run.progress().fits_done == 4)
    stopped = run.stop().result(60)
    other = second.submit(*DATA)
    wait_until(lambda: other.progress().fits_done == 4)
    other.cancel()

    assert stopped.best_estimator_.calls_ == 1
    assert len(stopped.history_) == 4
    with pytest.raises(RunCancelledError):
        other.result(60)
    gate.touch()
    log.unlink()
    again = other.resume(client).result(60)
    assert {one[2] for one in calls_in(log)} == {2, 3}
    assert max(one["partial_fit_calls"] for one in again.history_) == 3


def test_an_interrupt_keeps_what_was_trained(client: Client, tmp_path: Path) -> None:
    """As Ctrl-C in a notebook: the best model so far; too early, it is an interrupt."""
    gate, log = tmp_path / "gate", tmp_path / "calls.log"
    for first_waits in (0, 1):
        log.unlink(missing_ok=True)
        model = Curve(gate=str(gate), gate_after=first_waits, log=str(log))
        own = DaskSearchCV(incremental(model), client=client, store=tmp_path)
        n_begun = 4 * first_waits + 2
        interrupt = threading.Thread(target=_interrupt_after, args=(log, n_begun))
        interrupt.start()

        if first_waits:
            with pytest.warns(SearchStoppedWarning, match="interrupted"):
                found = own.fit(*DATA)
            assert found.stopped_ == "interrupted"
            assert found.best_estimator_.calls_ == 1
            assert SearchRun.attach(found.run_url_).state == "stopped"
        else:
            with pytest.raises(KeyboardInterrupt):
                own.fit(*DATA)
        interrupt.join()


def _interrupt_after(log: Path, n_calls: int) -> None:
    wait_until(lambda: sum(calls_in(log).values()) == n_calls)
    time.sleep(0.3)
    os.kill(os.getpid(), signal.SIGINT)


def test_verbose_shows_what_dask_ml_shows(
    client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sizes of blocks, and the best score of each round."""
    DaskSearchCV(incremental(max_iter=2, verbose=True), client=client).fit(*DATA)

    ours = capsys.readouterr().out
    fitted_by_dask_ml(incremental(max_iter=2, verbose=True), *DATA)
    assert ours == capsys.readouterr().out
    assert "creating 4 models" in ours


# --- resuming -----------------------------------------------------------------------------


def test_a_finished_journal_is_replayed_without_training(
    client: Client, tmp_path: Path
) -> None:
    """All brackets: scores are read, decisions come out the same, the best model is loaded."""
    log = tmp_path / "calls.log"
    search = hyperband(Curve(log=str(log), nbytes=LARGE))
    with run_of(search, tmp_path / "store") as (folder, data_store):
        # The driver was killed after the last event, before its result.
        journal = RunJournal(folder)
        arguments = search, *ARRAYS, {}, Settings(client=client)
        first = fit_trials(*arguments, data_store=data_store, journal=journal).search
        journal.close()
        calls = calls_in(log)
        left = [one.name for one in folder.store.list("models/")]

        again = drive(folder, search, data_store, client)

        assert calls_in(log) == calls
        assert same(again, first)
        assert len(left) == 3  # the best one of each bracket
        assert not folder.store.list("models/")


def test_a_best_model_that_was_deleted_is_an_error(
    client: Client, tmp_path: Path
) -> None:
    """Its run cannot have a result: the error names state and model."""
    search = hyperband()
    with run_of(search, tmp_path) as (folder, data_store):
        drive(folder, search, data_store, client)
        folder.store.delete("result-0.pkl")

        with pytest.raises(
            DataUnavailableError, match=r"model . of bracket . .*deleted"
        ):
            drive(folder, search, data_store, client)


@pytest.mark.parametrize("seed", [None, 5])
def test_an_unseeded_search_goes_on_with_what_was_drawn(
    seed: Any, client: Client, tmp_path: Path
) -> None:
    """Parameters, splits and the order of blocks are those of the first driver."""
    gate, log = tmp_path / "gate", tmp_path / "calls.log"
    model = Curve(gate=str(gate), gate_after=2, log=str(log))
    search = incremental(model, max_iter=6, random_state=seed)
    own = DaskSearchCV(search, client=client, store=tmp_path, max_time=1.5)
    with pytest.warns(SearchStoppedWarning):
        first = own.fit(*DATA).search_
    gate.touch()

    run = SearchRun.attach(own.run_url_)
    whole = run.resume(client, max_time=float("inf")).result(60)

    n_first = len(first.history_)
    assert without_times(whole.history_)[:n_first] == without_times(first.history_)
    assert len(whole.history_) > n_first
    assert set(calls_in(log).values()) <= {1, 2}
    (blocks,) = {
        tuple(one["blocks"]) for one in [{"blocks": whole.best_estimator_.blocks_}]
    }
    assert len(set(blocks)) == 4


def test_a_model_whose_state_was_deleted_is_made_again(
    client: Client, tmp_path: Path
) -> None:
    """From the same blocks of data: the result is the same."""
    gate = tmp_path / "gate"
    model = Curve(gate=str(gate), gate_after=2)
    own = DaskSearchCV(
        incremental(model, max_iter=4), client=client, store=tmp_path, max_time=1.5
    )
    with pytest.warns(SearchStoppedWarning):
        own.fit(*DATA)
    gate.touch()
    run = SearchRun.attach(own.run_url_)
    remove_all(open_store(run.url))

    whole = run.resume(client, max_time=float("inf")).result(60)

    expected = fitted_by_dask_ml(incremental(model, max_iter=4), *DATA)
    assert same(whole, expected)


def test_a_journal_of_another_search_is_refused(client: Client, tmp_path: Path) -> None:
    """Its models have other parameters: the error shows both."""
    with run_of(incremental(max_iter=2), tmp_path) as (folder, data_store):
        drive(folder, incremental(max_iter=2), data_store, client)
        for name in ("brackets/00000.pkl", "result-0.pkl"):
            folder.store.delete(name)

        with pytest.raises(JournalMismatchError, match=r"training of model \d"):
            drive(folder, incremental(max_iter=2, random_state=9), data_store, client)


def test_a_journal_has_each_training_and_each_decision(
    client: Client, tmp_path: Path
) -> None:
    """Scores, calls and the names of states can be read without unpickling."""
    with run_of(hyperband(), tmp_path) as (folder, data_store):
        found = drive(folder, hyperband(), data_store, client)
        events = events_of(folder)

    trained = [one for one in events if isinstance(one, TrainEvent)]
    decided = [one for one in events if isinstance(one, RoundEvent)]

    scored = [one for one in trained if "score" in one.result]
    assert len(scored) == len(found.history_)
    newest = {(one.call, one.candidate): one.calls for one in trained}
    assert sum(newest.values()) == 28
    assert {one.call for one in decided} == {0, 1, 2}
    assert all(not any(one.calls.values()) for one in last_of(decided))


@contextlib.contextmanager
def run_of(search: Any, path: Path) -> Iterator[tuple[RunFolder, DataStore]]:
    """Begin a run that nothing drives yet."""
    with DataStore(path) as data_store:
        yield begun(search, *ARRAYS, open_store(path), data_store), data_store


def drive(folder: RunFolder, search: Any, data_store: DataStore, client: Client) -> Any:
    """Drive a run to its end; return the fitted search."""
    work = Work(search, *ARRAYS, {})
    return drive_run(folder, work, data_store, Settings(client=client)).search


def last_of(rounds: list[RoundEvent]) -> list[RoundEvent]:
    """Return the last round of each bracket."""
    return list(
        {one.call: one for one in sorted(rounds, key=lambda r: r.number)}.values()
    )


# --- errors -------------------------------------------------------------------------------


def test_a_failing_call_is_raised_with_its_model(client: Client) -> None:
    """The error is the model's own, as in dask-ml; a note names model and parameters."""
    search = hyperband(Curve(fails_at=3))
    with pytest.raises(ArithmeticError):
        fitted_by_dask_ml(clone(search), *DATA)

    with pytest.raises(ArithmeticError, match="no more than 2 calls") as caught:
        DaskSearchCV(search, client=client).fit(*DATA)

    notes = "\n".join(caught.value.__notes__)
    assert "of bracket" in notes
    assert "'level'" in notes
    assert "after 2 calls of partial_fit" in notes or "after 1 calls" in notes


def test_an_argument_that_partial_fit_needs_is_named(client: Client) -> None:
    """As scikit-learn names it."""
    search = IncrementalSearchCV(GaussianNB(), {"var_smoothing": [1e-9, 1]}, 2)

    with (
        pytest.warns(FutureWarning, match="decay_rate"),
        pytest.raises(ValueError, match="classes"),
    ):
        DaskSearchCV(search, client=client).fit(*DATA)


@pytest.mark.parametrize(
    ("speed", "error"), [(2.0, FitKilledError), (0.5, FitTimeoutError)]
)
def test_a_model_that_ends_its_process_ends_the_search(
    speed: float, error: type[Exception], client: Client
) -> None:
    """dask-ml has no score for it; the error names the model."""
    space = {"level": [0.5, 0.99], "speed": [speed]}
    search = IncrementalSearchCV(Deadly(), space, "grid", decay_rate=None, max_iter=2)
    limit = 3.0 if error is FitTimeoutError else None

    with pytest.raises(error, match=r"model 1 of bracket 0 .*0\.99"):
        DaskSearchCV(search, client=client, fit_timeout=limit).fit(*DATA)


@pytest.mark.parametrize(
    "options", [{"racing": True}, {"stop_score": 0.5}, {"patience": 3}]
)
def test_rules_that_need_whole_scores_are_refused(
    options: dict[str, Any], client: Client
) -> None:
    """They have rules of their own."""
    with pytest.raises(UnsupportedSearchError, match="HyperbandSearchCV"):
        DaskSearchCV(hyperband(), client=client, **options).fit(*DATA)


def test_parameters_that_dask_ml_refuses_are_refused(client: Client) -> None:
    """With its own errors."""
    cases: list[tuple[Any, str]] = [
        (hyperband(max_iter=0), "max_iter"),
        (incremental(patience=1), "patience"),
        (incremental(patience=2.5), "patience"),
        (incremental(verbose=3.0), "verbose"),
        (incremental(scores_per_fit=2, fits_per_score=3), "fits_per_score"),
    ]
    for search, name in cases:
        with pytest.raises(ValueError, match=name):
            DaskSearchCV(search, client=client).fit(*DATA)


def test_a_deprecated_parameter_still_counts(client: Client) -> None:
    """scores_per_fit is fits_per_score; dask-ml's warnings are shown."""
    search = incremental(scores_per_fit=2, max_iter=5)

    with pytest.warns(UserWarning, match="deprecated"):
        found = DaskSearchCV(search, client=client).fit(*DATA)

    assert {one["partial_fit_calls"] for one in found.history_} == {1, 3, 5}


def test_a_subclass_decides_for_itself(client: Client) -> None:
    """A user's own rule for further calls is the one that is asked."""
    search = BestHalf(Curve(), SPACE, 8, random_state=0, decay_rate=None)

    found = DaskSearchCV(search, client=client).fit(*DATA)

    assert type(found.search_) is BestHalf
    assert [len(one) for one in found.model_history_.values()].count(1) == 4
    assert max(one["partial_fit_calls"] for one in found.history_) == 3


class BestHalf(IncrementalSearchCV):
    """Trains the better half of the models once more, then ends."""

    def _additional_calls(
        self, info: dict[int, list[dict[str, Any]]]
    ) -> dict[int, int]:
        if all(one[-1]["partial_fit_calls"] > 1 for one in info.values()):
            return dict.fromkeys(info, 0)
        ranked = sorted(info, key=lambda model: -info[model][-1]["score"])
        return dict.fromkeys(ranked[: len(ranked) // 2], 2)


def test_few_states_live_at_a_time(client: Client, tmp_path: Path) -> None:
    """One of each model that may go on, the best ones, and those in flight."""
    search = SuccessiveHalvingSearchCV(
        Curve(seconds=0.05, nbytes=LARGE), SPACE, 8, 1, random_state=0
    )
    own = DaskSearchCV(search, client=client, store=tmp_path)
    run = own.submit(*DATA)
    seen = []
    while not run.done():
        seen.append(len(names_in(run, "models/")))

    run.result(60)

    assert 0 < max(seen) <= 2 * 8 + 2
    assert names_in(run, "models/") == []
