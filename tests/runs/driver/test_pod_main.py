"""The driver that a Job runs: what it goes on after, how it ends, and what it knows."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import textwrap
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import DaskSearchCV, SearchRun
from dask_hpsearch.data import DataStore
from dask_hpsearch.exceptions import (
    NoWorkersError,
    PodStartError,
    RunCancelledError,
    RunFailedError,
)
from dask_hpsearch.journal.events import FitEvent
from dask_hpsearch.journal.run_state import RunState
from dask_hpsearch.runs.create import Work, create_run
from dask_hpsearch.runs.driver.loop import DriverLoop
from dask_hpsearch.runs.driver.request import DriverRequest
from dask_hpsearch.runs.driver.retry import Retry
from dask_hpsearch.runs.driver.setup import close_client
from dask_hpsearch.runs.driver_process import describe_process
from dask_hpsearch.runs.launch import kubernetes_job
from dask_hpsearch.runs.states import note_state
from dask_hpsearch.stores import open_store
from tests.estimators import Deed, flowers, seen, times_begun
from tests.gcs.held import new_bucket
from tests.oracle.structure import difference
from tests.processes import WAIT_S, wait_until
from tests.runs.encrypted import TakesJobs, connected, encrypted, ended

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from distributed import Client

    from dask_hpsearch.clusters.kubernetes.driver_job import DriverJobSpec
    from tests.gcs.proxy import Proxy
    from tests.runs.encrypted import Encrypted

X, y = flowers()
ROWS = len(X)
N_CANDIDATES, SPLITS = 25, 2
# From a search to its Job; the cluster's three modules follow.
CALLERS = [
    "dask_hpsearch.search.estimator",
    "dask_hpsearch.runs.submit",
    "dask_hpsearch.runs.launch.launch",
    "dask_hpsearch.runs.launch.kubernetes_job",
]
LONG_S = 12.0  # more than a client takes to give a scheduler up


@pytest.fixture(scope="module")
def place(gcs: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encrypted]:
    """A scheduler and a worker that many tests use, and that know what ``gs://`` means."""
    with encrypted(tmp_path_factory.mktemp("cluster")) as running:
        yield running


def grid(log: Path, **options: Any) -> GridSearchCV:
    """Make a search whose fits note what they do; a refit in this process does not."""
    deed = Deed(log=str(log), client=os.getpid(), **options)
    return GridSearchCV(
        deed, {"number": list(range(N_CANDIDATES))}, cv=SPLITS, error_score="raise"
    )


def started(
    search: Any, folder: Path, **settings: Any
) -> tuple[SearchRun, DriverJobSpec]:
    """Begin a run, and start a Job for it whose pod does not run yet."""
    store, cluster, driver = open_store(folder / "store"), TakesJobs(), uuid.uuid4().hex
    with DataStore.of(store) as data_store:
        work = Work(search, X, y, {})
        run = create_run(
            work, store=store, data_store=data_store, task_name=None, settings=settings
        )
    request = DriverRequest(run=run.store.url, store=store.url, driver=driver)
    kubernetes_job.start_job(run, cluster, request)
    process = describe_process(
        driver, 0, own=True, heartbeat_timeout_s=kubernetes_job.HEARTBEAT_TIMEOUT_S
    )
    note_state(run, RunState.STARTING, process, generation=0)
    assert cluster.job is not None
    return SearchRun(run), cluster.job


def loop_of(run: SearchRun, job: DriverJobSpec, connect: Any) -> DriverLoop:
    """Return a driver on this machine that tries again."""
    return DriverLoop(
        folder=run._folder,
        request=DriverRequest.from_json(job.request),
        connect=connect,
        retry=Retry(lambda: True),
    )


def fits_of(run: SearchRun) -> list[FitEvent]:
    """Return the finished fits of a run."""
    return [one for one in run._reader.events() if isinstance(one, FitEvent)]


@contextlib.contextmanager
def killed_in_the_end(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Leave no process behind."""
    try:
        yield
    finally:
        process.kill()
        process.wait()


def shown_after(run: SearchRun, number: int) -> set[tuple[int, int]]:
    """Wait until so many fits are shown as finished; return them."""
    wait_until(lambda: run.progress().fits_done >= number)
    return {(one.candidate, one.split) for one in fits_of(run)}


def check(run: SearchRun, own: GridSearchCV, log: Path) -> None:
    """Assert that the result is a plain fit's, and that hardly a fit ran twice."""
    assert difference(own.fit(X, y), run.result()) is None
    begun = times_begun(str(log))
    assert len(begun) >= N_CANDIDATES * SPLITS
    # What was under way, and what the journal had not been told for a second.
    assert sum(begun.values()) - len(begun) < N_CANDIDATES


@pytest.mark.timeout(180)
def test_a_lost_scheduler_is_waited_for(tmp_path: Path) -> None:
    """The run goes on with the next one by itself; nobody sees it interrupted."""
    log = tmp_path / "fits.log"
    own = grid(log, seconds=0.1)
    run, job = started(own, tmp_path)
    with encrypted(tmp_path) as running:
        driver = running.driver(job, tmp_path / "pod")
        with killed_in_the_end(driver):
            before = shown_after(run, 10)
            states = set()
            running.scheduler.kill()
            running.scheduler.wait()
            lost_at = time.time()
            wait_until(lambda: states.add(run.state) or "starting" in states)
            running.start_scheduler()
            wait_until(lambda: states.add(run.state) or run.done())
            assert ended(driver) == 0

    check(run, own, log)
    assert states <= {"running", "starting", "finished"}
    again = [one for one in fits_of(run) if one.time > lost_at]
    assert not before & {(one.candidate, one.split) for one in again}
    assert (tmp_path / "pod" / "ended").exists()


@pytest.mark.timeout(180)
def test_a_scheduler_that_does_not_start_yet_is_waited_for(tmp_path: Path) -> None:
    """So it is told to a driver on the client's machine, which attaches to the cluster."""
    log = tmp_path / "fits.log"
    own = grid(log, seconds=0.1)
    run, job = started(own, tmp_path)
    told = threading.Event()

    def connect(stack: contextlib.ExitStack) -> Client:
        if running.scheduler.poll() is not None:
            told.set()
            msg = "the scheduler does not start: no node has room"
            raise PodStartError(msg)
        client = connected(running.address, running.certificates, timeout_s=10)
        stack.callback(close_client, client)
        return client

    with encrypted(tmp_path) as running, ThreadPoolExecutor(1) as threads:
        driver = loop_of(run, job, connect)
        driving = threads.submit(driver.run)
        before = shown_after(run, 10)
        running.scheduler.kill()
        running.scheduler.wait()
        lost_at = time.time()
        assert told.wait(WAIT_S)
        running.start_scheduler()
        error = driving.result(WAIT_S)

    assert error is None
    check(run, own, log)
    again = [one for one in fits_of(run) if one.time > lost_at]
    assert not before & {(one.candidate, one.split) for one in again}


@pytest.mark.parametrize("kind", [NoWorkersError, PodStartError])
def test_what_does_not_pass_is_not_waited_for(
    kind: type[NoWorkersError | PodStartError], tmp_path: Path
) -> None:
    """No node has room, and none is being added: the run says so, and can go on later."""
    run, job = started(grid(tmp_path / "fits.log"), tmp_path)
    text = "pod p finds no node"

    def connect(_: contextlib.ExitStack) -> Client:
        raise kind(text, lasts=True)

    driver = loop_of(run, job, connect)
    error = driver.run()

    assert isinstance(error, kind)
    assert run.state == "interrupted"
    with pytest.raises(RunFailedError, match=text):
        run.result(10)


def test_a_driver_that_is_given_up_says_why(tmp_path: Path) -> None:
    """Once: a run that has ended stays as it is."""
    run, job = started(grid(tmp_path / "fits.log"), tmp_path)

    def connect(_: contextlib.ExitStack) -> Client:
        raise AssertionError

    driver = loop_of(run, job, connect)
    driver.give_up(RunFailedError("it needs more memory"))
    driver.give_up(RunFailedError("another reason"))

    assert run.state == "failed"
    with pytest.raises(RunFailedError, match="it needs more memory"):
        run.result(10)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_lost_driver_goes_on_when_it_is_started_again(
    how: signal.Signals, place: Encrypted, tmp_path: Path
) -> None:
    """As Kubernetes does it: the same program, the same request, an empty machine."""
    log = tmp_path / "fits.log"
    own = grid(log, seconds=0.05)
    run, job = started(own, tmp_path)
    first = place.driver(job, tmp_path / "first")
    with killed_in_the_end(first):
        before = shown_after(run, 10)
        first.send_signal(how)
        code = ended(first)
        state = run.state
        second = place.driver(job, tmp_path / "second")
        with killed_in_the_end(second):
            assert ended(second) == 0

    assert code == (-how if how == signal.SIGKILL else 143)
    assert state == ("running" if how == signal.SIGKILL else "starting")
    check(run, own, log)
    fits = [(one.candidate, one.split) for one in fits_of(run)]
    assert all(fits.count(fit) == 1 for fit in before)


class LongRefit(Deed):
    """Waits in its refit, which alone has all rows, until there is a file."""

    def fit(self, X: Any, y: Any) -> LongRefit:
        if len(X) == ROWS and os.getpid() != self.client:
            self._note("wait", 0)
            wait_until(Path(f"{self.log}.go").exists)
        super().fit(X, y)
        return self


def test_a_cluster_that_ends_during_a_long_refit_is_not_missed(tmp_path: Path) -> None:
    """It has nothing to do then, and an idle time-out may end it."""
    log = tmp_path / "fits.log"
    deed = LongRefit(log=str(log), client=os.getpid())
    own = GridSearchCV(deed, {"number": [1, 2, 3]}, cv=SPLITS)
    run, job = started(own, tmp_path)
    with encrypted(tmp_path) as running:
        driver = running.driver(job, tmp_path / "pod")
        with killed_in_the_end(driver):
            wait_until(lambda: seen(str(log), "wait"))
            running.close()
            (tmp_path / "pod" / "no-cluster").touch()
            time.sleep(LONG_S)
            Path(f"{log}.go").touch()
            assert ended(driver) == 0

    assert run.state == "finished"
    assert difference(own.fit(X, y), run.result()) is None
    assert len(seen(str(log), "wait")) == 1


def test_the_node_of_a_driver_is_part_of_a_runs_cost(
    place: Encrypted, tmp_path: Path
) -> None:
    """Only what a driver in the cluster costs has a price here; one on this machine is free."""
    search = grid(tmp_path / "log")
    tariff = {"fixed_usd_hour": 0.0, "worker_usd_hour": 0.0, "driver_usd_hour": 3600.0}
    in_pod, job = started(search, tmp_path / "pods", tariff=tariff)
    here, local_job = started(search, tmp_path / "here", tariff=tariff)

    driver = place.driver(job, tmp_path / "pod")
    with killed_in_the_end(driver):
        assert ended(driver) == 0

    def connect(stack: contextlib.ExitStack) -> Client:
        client = connected(place.address, place.certificates, timeout_s=10)
        stack.callback(close_client, client)
        return client

    assert loop_of(here, local_job, connect).run() is None
    assert in_pod.progress().cost_usd > 0.0
    assert here.progress().cost_usd == 0.0


def test_a_search_that_fails_ends_its_job(place: Encrypted, tmp_path: Path) -> None:
    """The run says why; Kubernetes has no reason to try again."""
    run, job = started(grid(tmp_path / "log", deed="raise"), tmp_path)

    driver = place.driver(job, tmp_path / "pod")
    with killed_in_the_end(driver):
        assert ended(driver) == 0

    assert run.state == "failed"
    with pytest.raises(RunFailedError, match="a fit like any other that fails"):
        run.result()


def test_a_cancelled_run_ends_its_job_for_good(
    place: Encrypted, tmp_path: Path
) -> None:
    """Started again, by chance, it does nothing."""
    log, gate = tmp_path / "log", tmp_path / "gate"
    run, job = started(grid(log, gate=str(gate)), tmp_path)
    driver = place.driver(job, tmp_path / "pod")
    with killed_in_the_end(driver):
        wait_until(lambda: seen(str(log), "wait"))
        run.cancel()
        assert ended(driver) == 0
    with pytest.raises(RunCancelledError):
        run.result()
    begun = len(seen(str(log), "start"))

    again = place.driver(job, tmp_path / "pod")
    with killed_in_the_end(again):
        assert ended(again) == 0

    assert run.state == "cancelled"
    assert len(seen(str(log), "start")) == begun
    gate.touch()


def test_without_its_cluster_a_run_is_interrupted(
    place: Encrypted, tmp_path: Path
) -> None:
    """It ends, is not waited for, and can go on with another cluster."""
    run, job = started(grid(tmp_path / "log"), tmp_path)
    (tmp_path / "pod").mkdir()
    (tmp_path / "pod" / "no-cluster").touch()
    driver = place.driver(job, tmp_path / "pod", address="tls://127.0.0.1:1")
    with killed_in_the_end(driver):
        assert ended(driver) == 0

    assert run.state == "interrupted"
    with pytest.raises(RunFailedError, match="nothing responds"):
        run.result()


def test_a_job_for_another_users_run_is_refused(
    place: Encrypted, tmp_path: Path
) -> None:
    """Whoever can write to the bucket cannot have a driver run what he likes."""
    run, job = started(grid(tmp_path / "log"), tmp_path)
    job.request["maker"] = "0" * 64

    driver = place.driver(job, tmp_path / "pod")
    with killed_in_the_end(driver):
        assert ended(driver) == 1

    assert "another user's key" in (tmp_path / "pod" / "driver.log").read_text()
    assert seen(str(tmp_path / "log"), "start") == []
    assert run.state == "starting"


MINE = """
from sklearn.naive_bayes import GaussianNB
from {helper} import shift

class Mine(GaussianNB):
    def fit(self, X, y):
        return super().fit(shift(X), y)
"""


@pytest.fixture
def own_module(tmp_path: Path) -> Iterator[str]:
    """A module that only this process finds, and one that it imports in turn."""
    name = f"mine_{uuid.uuid4().hex[:8]}"
    folder = tmp_path / "beside the notebook"
    folder.mkdir()
    helper = f"{name}_helper"
    (folder / f"{name}.py").write_text(MINE.format(helper=helper))
    text = textwrap.dedent("""
        def shift(X):
            return X + 1
    """)
    (folder / f"{helper}.py").write_text(text)
    sys.path.insert(0, str(folder))
    yield name
    sys.path.remove(str(folder))
    for module in (name, helper):
        sys.modules.pop(module, None)


def test_a_users_own_modules_reach_driver_and_workers(
    own_module: str, place: Encrypted, tmp_path: Path
) -> None:
    """Neither has them on its path; both get them from the run, which keeps pods' logs."""
    mine = __import__(own_module).Mine()
    own = GridSearchCV(mine, {"var_smoothing": [1e-9, 1e-3]}, cv=SPLITS)
    run, job = started(own, tmp_path)

    driver = place.driver(job, tmp_path / "pod")
    with killed_in_the_end(driver):
        assert ended(driver) == 0

    assert difference(own.fit(X, y), run.result()) is None
    assert "== scheduler s-1\nthe scheduler's own words\n" in run.logs()


@pytest.mark.parametrize("which", ["named", "current"])
def test_submit_starts_a_job_where_it_can(
    which: str, place: Encrypted, gcs: Proxy, tmp_path: Path
) -> None:
    """With a cluster that takes Jobs, and a store that its pods reach."""
    bucket, cluster = new_bucket(gcs.port), TakesJobs()
    own = grid(tmp_path / "log")
    with place.client() as client, client.as_current():
        client.cluster = cluster
        ours = DaskSearchCV(
            own,
            client=client if which == "named" else None,
            store=f"gs://{bucket}/runs",
            keep_cluster=False,
        )
        downloads = gcs.count("download", name="search.pkl")
        run = ours.submit(X, y)
        client.cluster = None
    assert gcs.count("download", name="search.pkl") == downloads
    assert cluster.callers == CALLERS
    assert run.state == "starting"
    assert cluster.job is not None
    assert cluster.ends_with_runs

    driver = place.driver(cluster.job, tmp_path / "pod")
    with killed_in_the_end(driver):
        assert ended(driver) == 0

    assert difference(own.fit(X, y), run.result()) is None
    assert "PRIVATE" not in repr(cluster.job) + run.logs() + repr(run)
