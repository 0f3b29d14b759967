"""Runs at MLflow's own server: what reads back, and that nothing is doubled."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import uuid
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV

from dask_hpsearch import DaskSearchCV, MlflowTracker, SearchRun
from dask_hpsearch.exceptions import TrackerError, TrackerWarning
from dask_hpsearch.execution.live_tracking import LiveTracking
from dask_hpsearch.exports.candidate_result import CandidateResult
from dask_hpsearch.exports.mlflow_settings import SearchDescription, SearchEnd
from tests.estimators import Deed, flowers
from tests.exports.kinds import KINDS, GatedSearch, search_of
from tests.exports.mlflow_server import Server
from tests.processes import is_alive, wait_until
from tests.runs.kills import kill_driver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from distributed import Client

    from tests.exports.mlflow_server import Tracked

# MLflow's own imports and requests warn.
pytestmark = pytest.mark.filterwarnings("ignore")
X, y = flowers()
STATUS = {"complete": "FINISHED", "dropped": "KILLED", "failed": "FAILED"}


@pytest.fixture
def experiment() -> str:
    """The name of an experiment of this test alone."""
    return f"test-{uuid.uuid4().hex}"


def slow(seconds: float = 0.2, n_candidates: int = 12, **options: Any) -> GridSearchCV:
    """Make a search whose fits take a while."""
    deed = Deed(client=os.getpid(), seconds=seconds)
    return GridSearchCV(deed, {"number": list(range(n_candidates))}, cv=2, **options)


def fitted(search: Any, client: Client, **options: Any) -> DaskSearchCV:
    """Fit a search whose fits may fail."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return DaskSearchCV(search, client=client, **options).fit(X, y)


def assert_equal(run: SearchRun, tracked: list[Tracked], parent: Tracked) -> None:
    """Assert that the runs at the server are the candidates of a run."""
    _, candidates = run._candidates()
    found = {one.tags["dask-hpsearch.candidate"]: one for one in tracked}
    assert len(tracked) == len(found) == len(candidates)
    for one in candidates:
        there = found[one.name]
        assert there.status == STATUS[one.state]
        assert there.tags["dask-hpsearch.state"] == one.state
        assert there.tags["mlflow.parentRunId"] == parent.run_id
        assert there.params == {name: str(value) for name, value in one.params.items()}
        for name, scores in one.split_scores.items():
            numbers = {f"mean_test_{name}": one.mean_scores[name]} | {
                f"split{split}_test_{name}": score for split, score in enumerate(scores)
            }
            for key, value in numbers.items():
                if math.isfinite(value):
                    assert there.metrics[key] == value
                else:
                    assert key not in there.metrics
        for name, value in one.extra.items():
            assert there.tags[f"dask-hpsearch.{name}"] == str(value)


@pytest.mark.parametrize("kind", KINDS)
def test_an_exported_run_reads_back_equal(
    kind: str, client: Client, server: Server, experiment: str, tmp_path: Path
) -> None:
    """Parameters, scores and states of each kind of search; again, nothing is doubled."""
    own = fitted(search_of(kind), client, store=tmp_path)
    run = SearchRun.attach(own.run_url_)
    options = {"tracking_uri": server.url, "log_model": False}

    first = run.to_mlflow(experiment, **options)
    before = server.runs(experiment)
    again = run.to_mlflow(experiment, **options)

    assert first == again
    assert [one.run_id for one in server.runs(experiment)] == [
        one.run_id for one in before
    ]
    parent = server.search(experiment)
    assert parent.run_id == first
    assert parent.status == "FINISHED"
    assert parent.tags["dask-hpsearch.url"] == run.url
    assert "digest" in parent.tags["dask-hpsearch.data.X"]
    score, _ = run.best()
    assert parent.metrics.get("best_score") == score
    assert_equal(run, server.candidates(experiment), parent)


def test_a_search_is_tracked_while_it_runs(
    client: Client, server: Server, experiment: str, tmp_path: Path
) -> None:
    """Candidates come while others run; at the end there is the model, which predicts."""
    tracker = MlflowTracker(experiment=experiment, tracking_uri=server.url)
    gated = GatedSearch(tmp_path, 3)
    own = DaskSearchCV(
        gated.search,
        client=client,
        store=tmp_path / "store",
        tracker=tracker,
    )
    thread = threading.Thread(target=own.fit, args=(X, y))
    thread.start()
    try:
        wait_until(
            lambda: server.has(experiment) and len(server.candidates(experiment)) == 3
        )
        assert server.search(experiment).status == "RUNNING"
    finally:
        gated.let(1000)
        thread.join()

    parent = server.search(experiment)
    assert parent.status == "FINISHED"
    assert parent.metrics["best_score"] == own.best_score_
    assert parent.metrics["n_candidates"] == 12
    run = SearchRun.attach(own.run_url_)
    assert_equal(run, server.candidates(experiment), parent)
    (model_id,) = parent.outputs
    assert_model_predicts(server, model_id, own.predict(X))
    before = server.runs(experiment)
    run.to_mlflow(experiment, server.url)  # adds nothing
    assert server.runs(experiment)[1:] == before[1:]
    assert server.search(experiment).outputs == [model_id]


def assert_model_predicts(server: Server, model_id: str, expected: Any) -> None:
    """Assert that a logged model has a signature, an example, and these predictions."""
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(server.url)
    try:
        uri = f"models:/{model_id}"
        model = mlflow.sklearn.load_model(uri)
        info = mlflow.models.get_model_info(uri)
    finally:
        mlflow.set_tracking_uri(before)
    np.testing.assert_array_equal(model.predict(X), expected)
    assert info.signature.inputs.input_types() == [np.dtype(float)]
    assert info.signature.outputs is not None
    assert info.saved_input_example_info is not None


def test_a_killed_and_resumed_run_has_no_doubles(
    client: Client, server: Server, experiment: str, tmp_path: Path
) -> None:
    """Killed twice, with the tracker in the middle of its work."""
    gated = GatedSearch(tmp_path, 3)
    own = DaskSearchCV(
        gated.search,
        client=client,
        store=tmp_path / "store",
        tracker=MlflowTracker(experiment=experiment, tracking_uri=server.url),
    )
    run = own.submit(X, y)
    for n_candidates, n_fits in ((2, 10), (6, 1000)):
        wait_until(
            lambda n=n_candidates: (
                server.has(experiment) and len(server.candidates(experiment)) >= n
            )
        )
        kill_driver(run)
        gated.let(n_fits)
        run.resume(client)

    result = run.result(100)

    parent = server.search(experiment)
    assert parent.status == "FINISHED"
    assert parent.metrics["best_score"] == result.best_score_
    assert len(parent.outputs) == 1
    assert_equal(run, server.candidates(experiment), parent)


def test_an_extended_run_has_no_doubles(
    client: Client, server: Server, experiment: str, tmp_path: Path
) -> None:
    """Earlier candidates get their new ordinals; there is a model of each result."""
    deed = Deed(client=os.getpid())
    space = {"number": list(range(50))}
    search = RandomizedSearchCV(deed, space, n_iter=5, cv=2, random_state=0)
    tracker = MlflowTracker(experiment=experiment, tracking_uri=server.url)
    own = DaskSearchCV(search, client=client, store=tmp_path, tracker=tracker)
    run = own.submit(X, y)
    run.result(60)
    run.extend(4, client)
    run.result(60)

    tracked = server.candidates(experiment)
    numbers = [one.params["number"] for one in tracked]
    assert len(numbers) == len(set(numbers))
    assert set(map(str, run.trials()["param_number"])) <= set(numbers)
    assert len(server.search(experiment).outputs) == 2


def test_a_search_without_a_journal_is_tracked(
    client: Client, server: Server, experiment: str
) -> None:
    """It cannot be pickled; the run at MLflow has a name of its own."""
    search = slow(0.0, 4)
    search.lock = threading.Lock()
    tracker = MlflowTracker(experiment=experiment, tracking_uri=server.url)

    own = fitted(search, client, tracker=tracker)

    assert own.run_url_ is None
    assert server.search(experiment).status == "FINISHED"
    assert len(server.candidates(experiment)) == 4


def test_long_and_strange_parameters_fit(
    client: Client, server: Server, experiment: str, tmp_path: Path
) -> None:
    """MLflow refuses long values and some characters in names."""
    deed = Deed(client=os.getpid())
    long = "l" * 20_000
    search = GridSearchCV(deed, {"number": [1, 2], "log": [None], "gate": [None]}, cv=2)
    search.scoring = {"a/b?c": "accuracy", "a/b!c": "balanced_accuracy"}
    search.refit = "a/b?c"
    own = fitted(search, client, store=tmp_path, task_name=long)
    run = SearchRun.attach(own.run_url_)
    _, (one, _) = run._candidates()
    assert isinstance(one, CandidateResult)

    run.to_mlflow(experiment, server.url, run_name=long[:200], log_model=False)

    tracked = server.candidates(experiment)
    means = {
        value
        for key, value in tracked[0].metrics.items()
        if key.startswith("mean_test")
    }
    assert set(one.mean_scores.values()) == means
    assert len([key for key in tracked[0].metrics if key.startswith("split")]) == 4


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A server of this test alone."""
    folder = tmp_path / "mlflow"
    folder.mkdir()
    with Server(folder) as server:
        yield server


def test_a_server_that_is_down_for_a_while_gets_all(
    client: Client, own_server: Server, experiment: str, tmp_path: Path
) -> None:
    """The search goes on meanwhile; what is missing comes once the server is back."""
    server = own_server
    tracker = MlflowTracker(experiment=experiment, tracking_uri=server.url)
    gated = GatedSearch(tmp_path, 2)
    own = DaskSearchCV(
        gated.search, client=client, store=tmp_path / "s", tracker=tracker
    )
    run = own.submit(X, y)
    wait_until(lambda: server.has(experiment) and server.candidates(experiment))
    before = run.progress().fits_done
    server.stop()
    gated.let(1000)
    wait_until(lambda: run.progress().fits_done >= before + 6)
    server.start()

    run.result(100)

    parent = server.search(experiment)
    assert parent.status == "FINISHED"
    assert_equal(run, server.candidates(experiment), parent)


def test_a_server_that_stays_down_is_a_warning(
    client: Client, server: Server, experiment: str, tmp_path: Path
) -> None:
    """The result is that of any other search; a later export adds what is missing."""
    nobody = MlflowTracker(
        experiment=experiment, tracking_uri="http://127.0.0.1:9", give_up_s=1
    )
    own = DaskSearchCV(slow(0.0), client=client, store=tmp_path, tracker=nobody)

    with pytest.warns(TrackerWarning, match=r"127.0.0.1:9 does not answer.*to_mlflow"):
        own.fit(X, y)

    assert own.best_params_ == slow().fit(X, y).best_params_
    run = SearchRun.attach(own.run_url_)
    with pytest.raises(TrackerError, match="does not answer"):
        run.to_mlflow(experiment, "http://127.0.0.1:9")
    run.to_mlflow(experiment, server.url, X=X)
    parent = server.search(experiment)
    assert_equal(run, server.candidates(experiment), parent)
    assert_model_predicts(server, parent.outputs[0], own.predict(X))


def test_a_search_that_fails_is_a_failed_run(
    client: Client, server: Server, experiment: str, tmp_path: Path
) -> None:
    """With the error as its reason."""
    deed = Deed(client=os.getpid(), deed="raise")
    search = GridSearchCV(deed, {"number": [1, 2]}, cv=2, error_score="raise")
    tracker = MlflowTracker(experiment=experiment, tracking_uri=server.url)
    own = DaskSearchCV(search, client=client, store=tmp_path, tracker=tracker)

    with pytest.raises(ValueError, match="a fit like any other"):
        own.fit(X, y)

    parent = server.search(experiment)
    assert parent.status == "FAILED"
    assert "a fit like any other" in parent.tags["dask-hpsearch.reason"]


def test_the_process_that_speaks_to_mlflow_can_die(
    client: Client, server: Server, experiment: str, tmp_path: Path
) -> None:
    """Another one goes on; it ends with the search."""
    tracker = MlflowTracker(experiment=experiment, tracking_uri=server.url)
    settings = tracker.resolved()
    own = fitted(slow(0.0), client, store=tmp_path)
    run = SearchRun.attach(own.run_url_)
    _, candidates = run._candidates()
    described = SearchDescription.of_run(run._folder.manifest, run.url)
    tracking = LiveTracking(settings, described)
    wait_until(lambda: tracking.pid)
    first = tracking.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    for one in candidates:
        tracking.put(one)
    end = SearchEnd(state="finished", best_score=own.best_score_)
    wait_until(lambda: tracking.pid not in (None, first))
    second = tracking.pid
    assert second is not None

    assert tracking.close(end) == ""

    assert_equal(run, server.candidates(experiment), server.search(experiment))
    wait_until(lambda: not is_alive(second))


def test_the_tracker_is_that_of_mlflows_own_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Environment variables; a relative database means the same in another folder."""
    monkeypatch.chdir(tmp_path)
    # Other tests import it, and set an address that counts more.
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "churn")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")

    tracker = MlflowTracker().resolved()

    assert tracker.experiment == "churn"
    assert tracker.tracking_uri == f"sqlite:///{tmp_path / 'mlflow.db'}"
    own = MlflowTracker(experiment="own", tracking_uri=str(tmp_path)).resolved()
    assert own.experiment == "own"
    assert own.tracking_uri == tmp_path.as_uri()


@pytest.mark.parametrize(
    ("uri", "is_of_this_machine"),
    [
        ("sqlite:///mlflow.db", True),
        ("folder", True),
        ("file:///folder", True),
        ("http://localhost:5000", True),
        ("http://127.0.0.1:5000", True),
        ("http://[::1]:5000", True),
        ("http://mlflow:5000", False),
        ("https://192.0.2.1/mlflow", False),
        ("postgresql://user@database/mlflow", False),
        ("databricks", False),
    ],
)
def test_a_tracker_of_this_machine_is_known(uri: str, is_of_this_machine: bool) -> None:  # noqa: FBT001 (a parameter of the test)
    """Other machines cannot write to it."""
    tracker = MlflowTracker(tracking_uri=uri).resolved()

    assert tracker.is_of_this_machine == is_of_this_machine


@pytest.mark.parametrize("seconds", [0, -1.0])
def test_a_tracker_gives_up_after_some_time(seconds: float) -> None:
    """Zero would mean that nothing is written."""
    with pytest.raises(
        ValueError, match="give_up_s must be a number of seconds above 0"
    ):
        MlflowTracker(give_up_s=seconds)
