from __future__ import annotations

import concurrent.futures
import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
import warnings
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import joblib
import numpy as np
import psutil
import pytest
from distributed import Client, LocalCluster
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import DaskSearchCV, local_cluster
from dask_hpsearch.exceptions import (
    FitEndedError,
    FitKilledError,
    FitMemoryError,
    FitTimeoutError,
    HPSearchError,
    SearchStopped,
)
from dask_hpsearch.slots.plugin import slot_pids
from dask_hpsearch.slots.process_tree import is_resource_tracker, members_of_sessions
from tests.estimators import do, flowers
from tests.processes import is_alive, marked, parent_of, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

X, y = flowers()
MARK = "DASK_HPSEARCH_TEST_MARK"
GONE_WITHIN_S = 20.0  # 2 s on a machine that has nothing else to do
KEPT: list[Any] = []  # what would be collected, and end, with its fit
FOREVER_S = 1e6
MEMORY = Path("/dev/shm")  # noqa: S108
SLEEP = f"import time; time.sleep({FOREVER_S})"


def _fork() -> None:
    if os.fork() == 0:
        time.sleep(FOREVER_S)


def _pool() -> None:
    pool = multiprocessing.get_context("fork").Pool(2)
    pool.map_async(time.sleep, [FOREVER_S])
    KEPT.append(pool)


def _executor() -> None:
    context = multiprocessing.get_context("fork")
    executor = concurrent.futures.ProcessPoolExecutor(2, mp_context=context)
    executor.submit(time.sleep, FOREVER_S)
    KEPT.append(executor)


def _loky() -> None:
    big = np.zeros(2**18)  # mapped from a file in memory
    sums = joblib.Parallel(n_jobs=2, backend="loky", max_nbytes=2**10)(
        joblib.delayed(np.sum)(big) for _ in range(2)
    )
    KEPT.append(sums)


def _subprocess() -> None:
    KEPT.append(subprocess.Popen([sys.executable, "-c", SLEEP]))


def _session() -> None:
    run = [sys.executable, "-c", SLEEP]
    KEPT.append(subprocess.Popen(run, start_new_session=True))


def _daemon() -> None:
    run = f"setsid {sys.executable} -c '{SLEEP}' &"
    subprocess.run(["/bin/sh", "-c", run], check=True)


def _thread() -> None:
    threading.Thread(target=time.sleep, args=(FOREVER_S,)).start()


def _spawn() -> None:
    process = multiprocessing.get_context("spawn").Process(
        target=time.sleep, args=(FOREVER_S,)
    )
    process.start()
    KEPT.append(process)


def _shared_memory() -> None:
    memory = SharedMemory(create=True, size=100)
    Path(os.environ[MARK]).with_name(f"shared-{memory.name}").touch()
    KEPT.append(memory)


STARTS = {
    "fork": _fork,
    "Pool": _pool,
    "ProcessPoolExecutor": _executor,
    "loky": _loky,
    "subprocess": _subprocess,
    "session": _session,
    "daemon": _daemon,
    "thread": _thread,
    "spawn": _spawn,
    "shared memory": _shared_memory,
}
ENDS = {
    "hang": FitTimeoutError,
    "memory": FitMemoryError,
    "kill": FitKilledError,
    "exit": FitKilledError,
    "raise": ValueError,
    "fit": None,
}


def _one(name: str, often: tuple[str, ...] = ()) -> Any:
    """Make a parameter of the slow tests, unless it is to be tested often."""
    return pytest.param(name, marks=[] if name in often else [pytest.mark.slow])


class Starter(ClassifierMixin, BaseEstimator):
    """Starts a process, notes it, then ends as asked."""

    def __init__(self, start: str = "fork", end: str = "fit", *, log: str) -> None:
        self.start = start
        self.end = end
        self.log = log

    def fit(self, X: Any, y: Any) -> Self:
        self.classes_ = np.unique(y)
        if self.start:
            STARTS[self.start]()
        entry = {"start": self.start, "pid": os.getpid()}
        with Path(self.log).open("a", encoding="ascii") as file:
            file.write(json.dumps(entry) + "\n")
        do(self.end)
        return self

    def predict(self, X: Any) -> Any:
        return np.zeros(len(X), int)


def _search(log: Path, *, end: str, starts: Any = tuple(STARTS)) -> GridSearchCV:
    """Make a search of one fit for each kind of process."""
    splits = [(np.arange(60), np.arange(60, 90))]
    starter = Starter(end=end, log=str(log))
    return GridSearchCV(
        starter, {"start": list(starts)}, cv=splits, refit=False, error_score=-1.0
    )


def _noted(log: Path) -> list[dict[str, Any]]:
    text = log.read_text("ascii") if log.exists() else ""
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """In the environment of the cluster's processes, and of all that they start."""
    value = str(tmp_path / uuid.uuid4().hex)
    monkeypatch.setenv(MARK, value)
    return f"{MARK}={value}"


@pytest.fixture
def cluster(mark: str) -> Iterator[LocalCluster]:
    """One worker with a slot for each kind of process."""
    with local_cluster(
        1, len(STARTS), memory_limit=f"{len(STARTS) * 400} MiB", dashboard_address=":0"
    ) as cluster:
        yield cluster


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    """A client of `cluster`."""
    with Client(cluster, set_as_default=False) as client:
        yield client


def _left(mark: str, client: Client) -> list[tuple[int, str]]:
    """Processes besides the worker, its forkserver, its slots and their trackers."""
    workers = set(client.run(os.getpid).values())
    slots = {pid for pids in client.run(slot_pids).values() for pid in pids}
    left = []
    for pid in set(marked(mark)) - workers - slots:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            helper = process.ppid() in slots and is_resource_tracker(pid)
            if process.ppid() not in workers and not helper:
                left.append((pid, " ".join(process.cmdline())))
    return left


def _check_nothing_left(mark: str, client: Client, log: Path) -> None:
    """Assert that processes and files are gone, and the worker has nothing to do."""
    with contextlib.suppress(AssertionError):
        wait_until(lambda: not _left(mark, client), within_s=GONE_WITHIN_S)
    assert not _left(mark, client)
    for entry in _noted(log):
        assert not [*MEMORY.glob(f"joblib_memmapping_folder_{entry['pid']}_*")]
        assert not [*MEMORY.glob(f"*loky-{entry['pid']}-*")]
    (worker,) = client.run(os.getpid).values()
    before = sum(psutil.Process(worker).cpu_times()[:2])
    time.sleep(1.0)
    assert sum(psutil.Process(worker).cpu_times()[:2]) - before < 0.5


def _check_no_shared_memory(folder: Path) -> None:
    """Assert that what fits had in memory is gone, though they did not remove it."""
    names = [path.name.removeprefix("shared-") for path in folder.glob("shared-*")]
    wait_until(lambda: not any((MEMORY / name).exists() for name in names))


@pytest.mark.parametrize(
    "end", [_one(end, often=("hang", "kill", "fit")) for end in ENDS]
)
def test_what_a_fit_has_started_ends_with_it(
    end: str, client: Client, mark: str, tmp_path: Path
) -> None:
    """However the fit ends, by itself too; its outcome is its own."""
    log = tmp_path / "fits.log"
    settings = {"fit_timeout": 5} if end == "hang" else {}

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = DaskSearchCV(_search(log, end=end), client=client, **settings).fit(
                X, y
            )
        except ValueError as error:
            message = str(error)
        else:
            message = "".join(str(warning.message) for warning in caught)
            assert end == "fit"
            assert (found.cv_results_["mean_test_score"] >= 0).all()

    kind = ENDS[end]
    if kind is not None:
        assert f"All the {len(STARTS)} fits failed" in message
        assert kind.__name__ in message
        others = {one.__name__ for one in ENDS.values() if one is not None}
        assert not [name for name in others - {kind.__name__} if f".{name}" in message]
    _check_nothing_left(mark, client, log)
    if end in ("hang", "memory", "kill", "exit"):  # else the slot has it still
        _check_no_shared_memory(tmp_path)


@pytest.mark.parametrize("reason", [_one("max_time"), "Ctrl-C"])
def test_what_a_fit_has_started_ends_with_the_search(
    reason: str, client: Client, mark: str, tmp_path: Path
) -> None:
    """A search that is stopped leaves nothing."""
    log = tmp_path / "fits.log"
    settings = {"max_time": 10} if reason == "max_time" else {}
    search = DaskSearchCV(_search(log, end="hang"), client=client, **settings)

    def interrupt() -> None:
        wait_until(lambda: len(_noted(log)) == len(STARTS))
        os.kill(os.getpid(), signal.SIGINT)

    helper = threading.Thread(target=interrupt)
    if reason == "Ctrl-C":
        helper.start()
    with pytest.raises((KeyboardInterrupt, SearchStopped)):
        search.fit(X, y)

    _check_nothing_left(mark, client, log)
    _check_no_shared_memory(tmp_path)


@pytest.mark.parametrize("lost", ["cluster", _one("worker"), "forkserver"])
def test_what_a_fit_has_started_ends_with_its_worker(
    lost: str, cluster: LocalCluster, mark: str, tmp_path: Path
) -> None:
    """Whether the worker is closed or killed, or the process that forks its slots."""
    log = tmp_path / "fits.log"
    errors: list[BaseException] = []
    with Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(1)
        (worker,) = client.run(os.getpid).values()
        search = DaskSearchCV(_search(log, end="hang"), client=client)

        def fit() -> None:
            try:
                search.fit(X, y)
            except HPSearchError as error:
                errors.append(error)

        thread = threading.Thread(target=fit)
        thread.start()
        wait_until(lambda: len(_noted(log)) == len(STARTS))
        before = set(marked(mark)) - {worker}
        if lost == "worker":
            os.kill(worker, signal.SIGKILL)
        elif lost == "forkserver":
            os.kill(parent_of(_noted(log)[0]["pid"]), signal.SIGKILL)
        if lost != "cluster":  # its fits run again, elsewhere
            wait_until(lambda: not before & set(marked(mark)), within_s=GONE_WITHIN_S)
        cluster.close()
        thread.join()

    wait_until(lambda: not marked(mark), within_s=GONE_WITHIN_S)
    assert errors


def test_helpers_that_end_by_themselves_cost_no_slot(mark: str, tmp_path: Path) -> None:
    """A slot whose fits have left a resource tracker, and nothing else, goes on."""
    log = tmp_path / "fits.log"
    with (
        local_cluster(1, 1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        for starts in (["shared memory"], ["", "shared memory"], [""]):
            search = _search(log, end="fit", starts=starts)
            DaskSearchCV(search, client=client).fit(X, y)

    assert len({entry["pid"] for entry in _noted(log)}) == 1


def test_fits_behind_one_that_leaves_a_process_run_once(
    client: Client, mark: str, tmp_path: Path
) -> None:
    """They travel in one batch: each goes to a slot of its own, in its turn."""
    log = tmp_path / "fits.log"
    starts = ["", "", "subprocess", "", "fork", "subprocess", ""] * 12

    found = DaskSearchCV(_search(log, end="fit", starts=starts), client=client).fit(
        X, y
    )

    assert (found.cv_results_["mean_test_score"] >= 0).all()
    assert len(_noted(log)) == len(starts)
    left = [entry["pid"] for entry in _noted(log) if entry["start"]]
    assert len(set(left)) == len(left)


def test_memory_of_what_a_fit_has_started_counts(
    client: Client, mark: str, tmp_path: Path
) -> None:
    """A fit that lets others fill the memory has exceeded its share."""
    with pytest.raises(FitMemoryError, match="more than its slot's share"):
        joblib_call(client, fill_memory_of_a_child)


def test_memory_that_forked_processes_share_counts_once(
    client: Client, mark: str, tmp_path: Path
) -> None:
    """Four children of a fit that has a third of its share do not exceed it."""
    assert joblib_call(client, share_memory_with_children) == 4


@pytest.mark.parametrize("status", [0, 3])
def test_a_forked_process_that_comes_back_is_no_second_slot(
    status: int, client: Client, mark: str
) -> None:
    """It ends where the fit ends, with its exit code; the fit has its own result."""
    assert joblib_call(client, fork_and_return, status) == status


def test_a_fit_that_closes_all_files_is_told_so(client: Client, mark: str) -> None:
    """Its process can say nothing any more."""
    with pytest.raises(FitEndedError, match="closed the connection"):
        joblib_call(client, close_all_files)


def joblib_call(client: Client, function: Any, *args: Any) -> Any:
    """Call a function in a slot."""
    with joblib.parallel_config("dask_hpsearch", client=client):
        return joblib.Parallel(n_jobs=2)([joblib.delayed(function)(*args)] * 2)[0]


def fill_memory_of_a_child() -> None:
    """Start a process that uses more than a slot may."""
    subprocess.run(
        [sys.executable, "-c", f"data = b'1' * (2**29 + 2**27); {SLEEP}"], check=False
    )


def share_memory_with_children() -> int:
    """Fork while there is much in memory."""
    data = np.ones(2**24)  # 128 MiB of 400
    pool = multiprocessing.get_context("fork").Pool(4)
    counts = pool.map(time.sleep, [1.0] * 4)
    pool.terminate()
    pool.join()
    return len(counts) if data.all() else 0


def fork_and_return(status: int) -> int:
    """Return twice, in two processes."""
    pid = os.fork()
    if pid == 0:
        if status:
            sys.exit(status)
        return -1
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def close_all_files() -> None:
    """Do as a daemon does that begins."""
    os.closerange(3, 4096)
    time.sleep(FOREVER_S)


def test_members_of_a_session_are_found() -> None:
    """What stands in, outside Linux, for the tree below a slot."""
    run = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SLEEP!r}])"
    with subprocess.Popen([sys.executable, "-c", run], start_new_session=True) as one:
        wait_until(lambda: len(members_of_sessions([one.pid])) == 2)
        os.killpg(one.pid, signal.SIGKILL)

    wait_until(lambda: not any(map(is_alive, members_of_sessions([one.pid]))))
