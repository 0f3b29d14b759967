"""Who drives a run, who asks something of it, and who looks on."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from distributed import Client, LocalCluster
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV, ShuffleSplit
from skopt import BayesSearchCV

from dask_hpsearch import DaskSearchCV, SearchRun, local_cluster
from dask_hpsearch.data import DataStore
from dask_hpsearch.exceptions import (
    RunCancelledError,
    RunFailedError,
    UnsupportedSearchError,
)
from dask_hpsearch.journal.events import FitEvent, StateEvent
from dask_hpsearch.journal.folder import SEARCH, RunFolder
from dask_hpsearch.runs.launch.launch import start_driver
from dask_hpsearch.stores import Store, open_store
from tests.estimators import Deed, flowers, seen, times_begun
from tests.oracle.structure import difference
from tests.processes import is_alive, script, wait_until
from tests.runs.recorded import (
    RecordedRun,
    begun,
    calls_asks_and_fits,
    drive,
    events_of,
    new_store,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

X, y = flowers()
SPLITS = 2
HOLD_AFTER = 11  # more than half of a grid's fits
SUBMITS = """
import pickle
from dask_hpsearch import DaskSearchCV

search, X, y = pickle.load(open("search.pkl", "rb"))
run = DaskSearchCV(search, store="store", task_name="in the background").submit(X, y)
print(run.url)
"""
FITS = """
import pickle
from distributed import Client
from dask_hpsearch import DaskSearchCV

search, X, y = pickle.load(open("search.pkl", "rb"))
client = Client({address!r}, set_as_default=False)
DaskSearchCV(search, client=client, store="store").fit(X, y)
"""


@pytest.fixture
def log(tmp_path: Path) -> str:
    """A file in which fits note themselves."""
    return str(tmp_path / "fits.log")


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[LocalCluster]:
    """A cluster to scale: two slots a worker, one worker to begin with."""
    with local_cluster(1, 2, dashboard_address=":0") as cluster:
        yield cluster


def grid(log: str, numbers: int = 9, **options: Any) -> GridSearchCV:
    """Make a search whose fits note themselves, the refit in another process too."""
    deed = Deed(log=log, client=os.getpid(), **options)
    return GridSearchCV(deed, {"number": list(range(numbers))}, cv=SPLITS)


def randomized(log: str, n_iter: int, **options: Any) -> RandomizedSearchCV:
    """Make a search that draws; its fits note themselves."""
    deed = Deed(log=log, client=os.getpid())
    space = {"number": list(range(18)), "seconds": [0.0, 0.001]}
    return RandomizedSearchCV(deed, space, n_iter=n_iter, **options)


def held(store: Path, log: str) -> SearchRun:
    """Wait until a run's slots hold, and what had ended is shown; return the run."""
    wait_until(lambda: SearchRun.list(store))
    (run,) = SearchRun.list(store)
    wait_until(lambda: len(seen(log, "wait")) == 2)
    wait_until(lambda: run.progress().fits_done == len(seen(log, "end")))
    return run


def test_two_drivers_at_once_give_one_right_result(client: Client, log: str) -> None:
    """Each begins every call or finds it begun; the result is created once."""
    own = randomized(log, 12, cv=ShuffleSplit(SPLITS))
    with DataStore() as data_store:
        folder = begun(own, X, y, new_store(), data_store)

    with ThreadPoolExecutor(2) as threads:
        drivers = [threads.submit(drive, folder, X, y, client) for _ in range(2)]
        one, other = (driver.result(60).search for driver in drivers)

    assert difference(one, other) is None
    run = SearchRun(folder)
    assert run.state == "finished"
    assert difference(run.result(), one) is None
    assert run.progress().fits_done == 12 * SPLITS
    assert len(folder.store.list("calls/")) == 1


def test_of_two_drivers_that_ask_otherwise_the_first_result_counts(
    client: Client, log: str
) -> None:
    """Without a seed each draws candidates of its own: there is one result all the same."""
    deed = Deed(log=log, client=os.getpid())
    own = BayesSearchCV(deed, {"number": (0, 4000)}, n_iter=8, cv=SPLITS)
    own.set_params(optimizer_kwargs={"n_initial_points": 20})  # no model: it warns
    with DataStore() as data_store:
        folder = begun(own, X, y, new_store(), data_store)

    with ThreadPoolExecutor(2) as threads:
        drivers = [threads.submit(drive, folder, X, y, client) for _ in range(2)]
        found = [driver.result(60).search for driver in drivers]

    run = SearchRun(folder)
    for one in (*found, run.result(estimator=False)):
        assert difference(run.result().cv_results_, one.cv_results_) is None


def test_a_run_outlives_the_process_that_submitted_it(log: str, tmp_path: Path) -> None:
    """With a local cluster of the driver's own; another process finds the same object."""
    own = grid(log)
    (tmp_path / "search.pkl").write_bytes(pickle.dumps((own, X, y)))
    notebook = script(SUBMITS, tmp_path)
    url, errors = notebook.communicate(timeout=60)
    assert notebook.returncode == 0, errors

    run = SearchRun.attach(url.strip())
    result = run.result(60)

    assert difference(own.fit(X, y), result) is None
    assert run.state == "finished"
    assert run.done()
    assert run.task_name == "in the background"
    assert [one.url for one in SearchRun.list(tmp_path / "store")] == [run.url]
    assert run.best()[0] == result.best_score_
    table = run.trials()
    assert list(table["mean_test_score"]) == list(result.cv_results_["mean_test_score"])
    assert "9 of 9" not in run._repr_html_()
    assert "18 of 18" in run._repr_html_()


def test_two_submitted_runs_share_a_cluster(client: Client, tmp_path: Path) -> None:
    """Both progress before either ends."""
    logs = [str(tmp_path / name) for name in ("one.log", "other.log")]
    gate = tmp_path / "gate"
    own = [grid(log, 60, gate=str(gate)) for log in logs]
    runs = [
        DaskSearchCV(one, client=client, store=tmp_path).submit(X, y) for one in own
    ]
    # A driver that runs may still be preparing its fits.
    wait_until(lambda: all(run.progress().fits_total for run in runs))
    wait_until(lambda: any(seen(log, "wait") for log in logs))

    gate.touch()
    for run in runs:
        run.result(60)

    ends = [[one["t"] for one in seen(log, "end")] for log in logs]
    assert max(map(min, ends)) < min(map(max, ends))


def test_slots_that_come_during_a_submitted_run_are_used(
    own_cluster: LocalCluster, log: str, tmp_path: Path
) -> None:
    """From two to eight."""
    gate = tmp_path / "gate"
    own = grid(log, 10, gate=str(gate))
    with Client(own_cluster, set_as_default=False) as client:
        run = DaskSearchCV(own, client=client, store=tmp_path).submit(X, y)
        wait_until(lambda: len(seen(log, "wait")) == 2)

        own_cluster.scale(4)
        wait_until(lambda: len(seen(log, "wait")) == 8)
        gate.touch()

        assert difference(own.fit(X, y), run.result(60)) is None
    assert max(times_begun(log).values()) == 1


@pytest.mark.filterwarnings("ignore::dask_hpsearch.exceptions.SearchStoppedWarning")
def test_a_stopped_run_has_what_had_finished_and_can_go_on(
    client: Client, log: str, tmp_path: Path
) -> None:
    """A partial result with a refit; resumed, the whole one."""
    own = grid(log, hold_after=HOLD_AFTER)
    ours = DaskSearchCV(own, client=client, store=tmp_path)
    with ThreadPoolExecutor(1) as threads:
        found = threads.submit(ours.fit, X, y)
        run = held(tmp_path, log)
        run.stop()
        assert found.result(60).stopped_ == "stopped"

    partial = run.result()
    assert run.state == "stopped"
    n_partial = len(partial.cv_results_["params"])
    assert 0 < n_partial < 9
    assert partial.predict(X).shape == y.shape

    known = run.progress().fits_done
    (tmp_path / "fits.log").write_text("")  # nothing holds any more
    whole = run.resume(client).result(60)
    assert difference(own.fit(X, y), whole) is None
    assert len(seen(log, "start")) - 1 == 9 * SPLITS - known  # one is the refit


def test_a_stop_that_comes_before_the_driver_is_no_less_a_stop(
    client: Client, log: str, tmp_path: Path
) -> None:
    """It ends without a result, since nothing had finished."""
    run = DaskSearchCV(grid(log, seconds=1.0), client=client, store=tmp_path).submit(
        X, y
    )

    run.stop()

    with pytest.raises(RunFailedError, match="before any candidate had finished") as no:
        run.result(60)
    assert run.state == "interrupted"
    assert f"resume it with SearchRun.attach({run.url!r}).resume()" in str(no.value)


def test_a_cancelled_run_has_no_result_and_can_go_on(
    client: Client, log: str, tmp_path: Path
) -> None:
    """Its running fits end with their processes."""
    own = grid(log, gate=str(tmp_path / "gate"))
    run = DaskSearchCV(own, client=client, store=tmp_path).submit(X, y)
    wait_until(lambda: len(seen(log, "wait")) == 2)
    pids = [one["pid"] for one in seen(log, "wait")]

    run.cancel()

    with pytest.raises(RunCancelledError, match="was cancelled"):
        run.result(60)
    wait_until(lambda: not any(map(is_alive, pids)))
    (tmp_path / "gate").touch()
    assert difference(own.fit(X, y), run.resume(client).result(60)) is None
    assert run.state == "finished"
    run.delete()
    assert not SearchRun.list(tmp_path)


def test_a_run_is_cancelled_in_a_long_refit_too(
    client: Client, log: str, tmp_path: Path
) -> None:
    """Its driver's process ends; what had finished is not run again."""
    own = grid(log, hold_after=9 * SPLITS)
    run = DaskSearchCV(own, client=client, store=tmp_path).submit(X, y)
    wait_until(lambda: seen(log, "wait"))
    (refit,) = seen(log, "wait")

    run.cancel()

    with pytest.raises(RunCancelledError):
        run.result(60)
    wait_until(lambda: not is_alive(refit["pid"]))
    (tmp_path / "fits.log").write_text("")
    assert difference(own.fit(X, y), run.resume(client).result(60)) is None
    assert len(seen(log, "start")) == 1


def interrupted(recorded: RecordedRun, store: Path, fits: int) -> SearchRun:
    """Copy a run as it is once its driver was killed after so many fits."""
    state = next(
        one for one in events_of(recorded.folder) if isinstance(one, StateEvent)
    )
    gone = replace(state, process=replace(state.process, own=True, pid=2**22 + 1))
    folder = recorded.copy([gone, *recorded.before_fit(fits)], open_store(store))
    return SearchRun(folder)


def test_an_interrupted_run_can_be_cancelled(
    recorded_on_disk: RecordedRun, client: Client, tmp_path: Path
) -> None:
    """Nobody drives it: it is marked, and can still go on."""
    run = interrupted(recorded_on_disk, tmp_path, 7)
    assert run.state == "interrupted"

    run.cancel()

    assert SearchRun.attach(run.url, client).state == "cancelled"
    with pytest.raises(RunCancelledError):
        run.result(1)
    whole = run.resume(client).result(60)
    assert difference(recorded_on_disk.fitted, whole) is None
    assert run.cancel().state == "finished"


@pytest.mark.parametrize("kind", ["grid", "bayes"])
def test_an_interrupted_run_can_be_stopped(
    kind: str, client: Client, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """It ends with what is complete, the best refitted; no other fit runs."""
    fixture = "recorded_on_disk" if kind == "grid" else "recorded_bayes"
    recorded: RecordedRun = request.getfixturevalue(fixture)
    run = interrupted(recorded, tmp_path, 7)
    log = recorded.fitted.estimator.log
    before = len(seen(log, "start"))

    partial = run.stop().result(60)

    assert run.state == "stopped"
    whole = recorded.fitted.cv_results_
    known = [one for one in recorded.before_fit(7) if isinstance(one, FitEvent)]
    counts = Counter(one.candidate for one in known)
    complete = sorted(i for i, fits in counts.items() if fits == SPLITS)
    assert complete
    assert partial.cv_results_["params"] == [whole["params"][i] for i in complete]
    scores = [whole["mean_test_score"][i] for i in complete]
    assert list(partial.cv_results_["mean_test_score"]) == scores
    assert partial.predict(X).shape == y.shape
    assert len(seen(log, "start")) - before == 1  # the refit
    if kind == "bayes":
        (told,) = partial.optimizer_results_
        assert list(-told.func_vals) == scores
    assert run.stop().state == "stopped"


def test_an_extended_run_equals_one_run_of_the_sum(
    client: Client, log: str, tmp_path: Path
) -> None:
    """Seeded: the same candidates; only those that are new run."""
    own = randomized(log, 6, random_state=0, cv=SPLITS)
    DaskSearchCV(own, client=client, store=tmp_path).fit(X, y)
    (run,) = SearchRun.list(tmp_path)
    expected = randomized(log, 10, random_state=0, cv=SPLITS).fit(X, y)
    first = {str(one) for one in run.result().cv_results_["params"]}
    new = [one for one in expected.cv_results_["params"] if str(one) not in first]
    before = times_begun(log)

    extended = run.extend(4, client).result(60)

    assert difference(expected, extended) is None
    begun_now = times_begun(log) - before
    assert begun_now.total() == len(new) * SPLITS + 1  # the refit
    assert run.progress().fits_done == 10 * SPLITS


def test_an_extended_run_goes_on_wherever_it_was_cut(
    client: Client, log: str, tmp_path: Path
) -> None:
    """Its call may be stored, and a part of what was known taken over, or nothing yet."""
    own = randomized(log, 4, random_state=0, cv=SPLITS)
    DaskSearchCV(own, client=client, store=tmp_path / "store").fit(X, y)
    (run,) = SearchRun.list(tmp_path / "store")
    whole = run.extend(3, client).result(60)
    events = calls_asks_and_fits(run._folder)
    first = [one for one in events if one.generation == 0]
    again = [one for one in events if one.generation == 1]
    for length in range(0, len(again), 3):
        folder = RecordedRun(run._folder, whole, []).copy(first + again[:length])
        call = "calls/00000-1.pkl"
        folder.store.create(call, run._folder.store.read(call))
        before = len(seen(log, "start"))

        search = folder.load_pickle(SEARCH).set_params(n_iter=7)
        fitted = drive(folder, X, y, client, search=search, generation=1).search

        assert difference(whole, fitted) is None
        assert len(seen(log, "start")) - before <= 3 * SPLITS
        assert SearchRun(folder).progress().fits_done == 7 * SPLITS


def test_an_extended_run_without_a_seed_keeps_its_candidates(
    client: Client, log: str, tmp_path: Path
) -> None:
    """It has drawn them once; as many others are added."""
    own = randomized(log, 6, cv=ShuffleSplit(SPLITS))
    found = DaskSearchCV(own, client=client, store=tmp_path).fit(X, y)
    (run,) = SearchRun.list(tmp_path)
    before = len(seen(log, "start"))

    extended = run.extend(4, client).result(60).cv_results_

    assert len(extended["params"]) == 10
    assert extended["params"][:6] == found.cv_results_["params"]
    for split in range(SPLITS):
        name = f"split{split}_test_score"
        assert list(extended[name][:6]) == list(found.cv_results_[name])
    assert len(seen(log, "start")) - before == 4 * SPLITS + 1
    with pytest.raises(ValueError, match="positive number of further candidates"):
        run.extend(0)


class CountingStore:
    """A store that notes what is read."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.names: list[str] = []

    def read(self, name: str) -> bytes:
        """Note and read."""
        self.names.append(name)
        return self._store.read(name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.fixture(scope="module")
def recorded(client: Client, tmp_path_factory: pytest.TempPathFactory) -> RecordedRun:
    """A run that has finished."""
    log = tmp_path_factory.mktemp("fits") / "fits.log"
    return RecordedRun.of(grid(str(log)), X, y, client)


@pytest.fixture(scope="module")
def recorded_on_disk(
    client: Client, tmp_path_factory: pytest.TempPathFactory
) -> RecordedRun:
    """The same where other processes find it."""
    folder = tmp_path_factory.mktemp("fits")
    own = grid(str(folder / "fits.log"))
    return RecordedRun.of(own, X, y, client, open_store(folder))


@pytest.fixture(scope="module")
def recorded_bayes(
    client: Client, tmp_path_factory: pytest.TempPathFactory
) -> RecordedRun:
    """A Bayes run that had two candidates under way at a time."""
    folder = tmp_path_factory.mktemp("fits")
    deed = Deed(log=str(folder / "fits.log"), client=os.getpid())
    own = BayesSearchCV(deed, {"number": (0, 40)}, n_iter=6, cv=SPLITS, random_state=0)
    return RecordedRun.of(own, X, y, client, open_store(folder))


def test_a_result_without_its_estimator_reads_no_estimator(
    recorded: RecordedRun,
) -> None:
    """What is large stays where it is."""
    store = CountingStore(recorded.folder.store)
    run = SearchRun(RunFolder.open(store))

    result = run.result(estimator=False)

    assert "result-0.pkl" not in store.names
    assert "result-without-estimator-0.pkl" in store.names
    assert not hasattr(result, "best_estimator_")
    assert hasattr(run.result(), "best_estimator_")
    assert result.best_params_ == recorded.fitted.best_params_
    assert difference(recorded.fitted.cv_results_, result.cv_results_) is None


def test_progress_reads_every_object_once(recorded: RecordedRun) -> None:
    """Nothing is unpickled, and nothing read again."""
    store = CountingStore(recorded.folder.store)
    run = SearchRun(RunFolder.open(store))

    for _ in range(3):
        assert run.progress().fits_done == recorded.n_fits
        assert run.state == "finished"

    assert len(store.names) == len(set(store.names))
    assert not any(name.endswith(".pkl") for name in store.names)


def test_a_driver_that_does_not_start_is_told(log: str, tmp_path: Path) -> None:
    """At once, with the reason that its log has."""
    with DataStore(tmp_path) as data_store:
        folder = begun(grid(log), X, y, open_store(tmp_path), data_store)
    (folder.store.local_path() / SEARCH).write_bytes(b"nothing")
    start_driver(folder, None)
    run = SearchRun(folder)
    assert run.state == "starting"

    with pytest.raises(
        RunFailedError, match=r"did not start(?s:.*)'search.pkl' of run"
    ):
        run.result(60)

    assert run.state == "failed"


def test_a_store_that_another_process_cannot_open_is_refused(
    client: Client, log: str
) -> None:
    """Before anything is written."""
    ours = DaskSearchCV(grid(log), client=client, store="memory://nowhere-else")

    with pytest.raises(UnsupportedSearchError, match="exists only in this process"):
        ours.submit(X, y)

    assert not SearchRun.list("memory://nowhere-else")


@pytest.mark.parametrize("which", ["named", "current"])
def test_a_client_that_another_process_cannot_have_is_refused(
    which: str, log: str, tmp_path: Path
) -> None:
    """Whether it was given or is in use; the error says which one it is."""
    with (
        LocalCluster(processes=False, n_workers=1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as inside,
        inside.as_current(),
    ):
        given = inside if which == "named" else None
        ours = DaskSearchCV(grid(log), client=given, store=tmp_path)
        with pytest.raises(
            UnsupportedSearchError,
            match=r"<Client: 'inproc://.*exists only in this process",
        ):
            ours.submit(X, y)

    assert not SearchRun.list(tmp_path)


@pytest.mark.parametrize("which", ["named", "current"])
def test_a_cluster_that_the_driver_could_not_end_is_refused(
    which: str, client: Client, log: str, tmp_path: Path
) -> None:
    """With keep_cluster=False, before anything is written."""
    with client.as_current():
        given = client if which == "named" else None
        ours = DaskSearchCV(grid(log), client=given, store=tmp_path, keep_cluster=False)
        with pytest.raises(
            UnsupportedSearchError, match=r"end that of <Client: 'tcp://.*yourself"
        ):
            ours.submit(X, y)

    assert not SearchRun.list(tmp_path)


def test_a_second_ctrl_c_abandons_the_refit_and_keeps_the_journal(
    cluster: LocalCluster, client: Client, log: str, tmp_path: Path
) -> None:
    """The first one ends with what has finished; the second one at once."""
    own = grid(log, hold_after=HOLD_AFTER)
    (tmp_path / "search.pkl").write_bytes(pickle.dumps((own, X, y)))
    notebook = script(FITS.format(address=cluster.scheduler_address), tmp_path)
    run = held(tmp_path / "store", log)

    notebook.send_signal(signal.SIGINT)
    wait_until(lambda: any(one["pid"] == notebook.pid for one in seen(log, "wait")))
    notebook.send_signal(signal.SIGINT)
    _, errors = notebook.communicate(timeout=60)

    assert notebook.returncode != 0
    assert "KeyboardInterrupt" in errors
    assert run.state == "interrupted"
    known = run.progress().fits_done
    (tmp_path / "fits.log").write_text("")
    whole = SearchRun.attach(run.url, client).result(60)
    assert difference(own.fit(X, y), whole) is None
    assert len(seen(log, "start")) - 1 == 9 * SPLITS - known


def test_a_home_that_cannot_be_written_costs_the_journal_alone(
    client: Client,
    log: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Without a store that was asked for, a search needs none."""
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setenv("DASK_HPSEARCH_HOME", str(blocked / "home"))
    own = grid(log)

    with caplog.at_level(logging.WARNING, "dask_hpsearch"):
        found = DaskSearchCV(own, client=client).fit(X, y)

    assert difference(own.fit(X, y), found.search_) is None
    assert found.run_url_ is None
    assert "has no journal" in caplog.text


def test_waiting_has_an_end(recorded: RecordedRun) -> None:
    """The run goes on; who waits is told."""
    running = next(
        one for one in events_of(recorded.folder) if isinstance(one, StateEvent)
    )
    folder = recorded.copy(
        [*recorded.before_fit(3), replace(running, time=time.time())]
    )

    with pytest.raises(TimeoutError, match=r"is still running after 0\.1 s"):
        SearchRun(folder).result(0.1)
    assert SearchRun(folder).progress().fits_done == 3
