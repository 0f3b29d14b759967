"""How soon a fit ends that has started processes, and how soon these processes end.

Run ``python -m benchmarks.cases.process_ends``. A fit starts one kind of process and then
hangs, fills its memory, is killed or exits. The table has, for each way to end it, the
seconds from the moment at which it should end until the search knows it, until the last of
its processes is gone, and the worker's share of a core in the second after that.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import joblib
import numpy as np
import psutil
from distributed import Client
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import DaskSearchCV, local_cluster
from dask_hpsearch.slots.plugin import slot_pids
from dask_hpsearch.slots.process_tree import is_resource_tracker

if TYPE_CHECKING:
    from collections.abc import Callable

MARK = "DASK_HPSEARCH_BENCHMARK_MARK"
FIT_TIMEOUT_S, MAX_TIME_S, FOREVER_S = 3.0, 4.0, 1e6
IN_FIT = ("memory", "SIGKILL", "os._exit")
SLEEP = [sys.executable, "-c", f"import time; time.sleep({FOREVER_S})"]
KEPT: list[Any] = []


def _fork() -> None:
    if os.fork() == 0:
        time.sleep(FOREVER_S)


def _pool() -> None:
    pool = multiprocessing.get_context("fork").Pool(2)
    pool.map_async(time.sleep, [FOREVER_S])
    KEPT.append(pool)


def _executor() -> None:
    fork = multiprocessing.get_context("fork")
    executor = concurrent.futures.ProcessPoolExecutor(2, mp_context=fork)
    executor.submit(time.sleep, FOREVER_S)
    KEPT.append(executor)


def _loky() -> None:
    calls = (joblib.delayed(abs)(one) for one in range(2))
    KEPT.append(joblib.Parallel(n_jobs=2, backend="loky")(calls))


def _subprocess() -> None:
    KEPT.append(subprocess.Popen(SLEEP))


def _thread() -> None:
    threading.Thread(target=time.sleep, args=(FOREVER_S,)).start()


def _spawn() -> None:
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=time.sleep, args=(FOREVER_S,))
    process.start()
    KEPT.append(process)


STARTS: dict[str, Callable[[], None]] = {
    "fork": _fork,
    "Pool": _pool,
    "ProcessPoolExecutor": _executor,
    "loky": _loky,
    "subprocess": _subprocess,
    "thread": _thread,
    "spawn": _spawn,
}


class Starter(ClassifierMixin, BaseEstimator):
    """Starts a process, notes the time, and ends as it is asked to."""

    def __init__(self, start: str = "fork", end: str = "hang", *, log: str) -> None:
        self.start = start
        self.end = end
        self.log = log

    def fit(self, X: Any, y: Any) -> Self:  # noqa: ARG002 (the search gives it)
        """Start, and end."""
        began = time.time()
        self.classes_ = np.unique(y)
        STARTS[self.start]()
        data = []
        if self.end == "memory":
            # The last block exceeds the slot's share of 400 MiB.
            data += [np.ones(2**24), np.ones(2**24)]
        Path(self.log).write_text(json.dumps([began, time.time()]), encoding="ascii")
        if self.end == "memory":
            data += [np.ones(2**24), np.ones(2**24)]
        elif self.end == "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.end == "os._exit":
            os._exit(3)
        time.sleep(FOREVER_S)
        return self

    def predict(self, X: Any) -> Any:
        """Predict the first class."""
        return np.zeros(len(X), int)


def marked(value: str) -> set[int]:
    """Return the processes that have the mark in their environment."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == value and process.pid != os.getpid():
                found.add(process.pid)
    return found


@dataclass
class Ended:
    """When one fit ended.

    Attributes
    ----------
    search_s, processes_s : float
        Seconds from when it should have ended: until the search had ended, until the last
        of its processes was gone.
    busy : float
        The worker's share of a core in the second after that.
    """

    search_s: float
    processes_s: float
    busy: float = 0.0


def measure(start: str, end: str) -> Ended:
    """Fit once, and end that in one way."""
    folder = Path(tempfile.mkdtemp())
    os.environ[MARK] = value = uuid.uuid4().hex
    os.environ["DASK_HPSEARCH_HOME"] = str(folder / "home")
    log = folder / "log"
    with (
        local_cluster(1, 2, memory_limit="800 MiB", dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.wait_for_workers(1)
        (worker,) = client.run(os.getpid).values()
        due: list[float] = []
        thread = threading.Thread(
            target=_end_from_outside, args=(end, log, cluster, due)
        )
        thread.start()
        began = time.time()
        _fit(start, end, log, client)
        ended = time.time()
        thread.join()
        moment = due[0] if due else _due(end, log, began)
        if end == "cluster.close()":
            return Ended(ended - moment, _until_gone(lambda: marked(value)) - moment)
        gone = _until_gone(lambda: _others(marked(value), worker, client))
        before = sum(psutil.Process(worker).cpu_times()[:2])
        time.sleep(1.0)
        busy = sum(psutil.Process(worker).cpu_times()[:2]) - before
    return Ended(ended - moment, gone - moment, busy)


def _fit(start: str, end: str, log: Path, client: Client) -> None:
    starter = Starter(start, end if end in IN_FIT else "hang", log=str(log))
    splits = [(np.arange(60), np.arange(60, 90))]
    search = GridSearchCV(
        starter, {"start": [start]}, cv=splits, refit=False, error_score=0.0
    )
    limits = {"fit_timeout": FIT_TIMEOUT_S, "max_time": MAX_TIME_S}
    options = {end: limits[end]} if end in limits else {}
    own = DaskSearchCV(search, client=client, **options)
    with warnings.catch_warnings(), contextlib.suppress(BaseException):
        warnings.simplefilter("ignore")
        own.fit(*load_iris(return_X_y=True))


def _due(end: str, log: Path, began: float) -> float:
    """Return when the search, or the fit that has noted its times, should have ended."""
    if end == "max_time":
        return began + MAX_TIME_S
    fit_began, last_deed = json.loads(log.read_text("ascii"))
    return float(fit_began + FIT_TIMEOUT_S if end == "fit_timeout" else last_deed)


def _others(found: set[int], worker: int, client: Client) -> set[int]:
    """Return which processes are not the cluster's own."""
    slots = {pid for pids in client.run(slot_pids).values() for pid in pids}
    own = {worker, *slots, *(_parent(pid) for pid in slots)}
    return {
        pid
        for pid in found - own
        if _parent(pid) not in (worker, os.getpid()) and not is_resource_tracker(pid)
    }


def _end_from_outside(end: str, log: Path, cluster: Any, due: list[float]) -> None:
    if end not in ("Ctrl-C", "cluster.close()"):
        return
    while not log.exists():
        time.sleep(0.01)
    time.sleep(0.5)
    due.append(time.time())
    if end == "Ctrl-C":
        os.kill(os.getpid(), signal.SIGINT)
    else:
        cluster.close()


def _parent(pid: int) -> int:
    with contextlib.suppress(psutil.Error):
        return int(psutil.Process(pid).ppid())
    return 0


def _until_gone(left: Callable[[], set[int]]) -> float:
    until = time.monotonic() + 60.0
    while left() and time.monotonic() < until:
        time.sleep(0.05)
    return time.time()


ENDS = (
    "fit_timeout",
    "memory",
    "SIGKILL",
    "os._exit",
    "max_time",
    "Ctrl-C",
    "cluster.close()",
)


def main() -> None:
    """Measure each pair once, and print a table."""
    print("| started | " + " | ".join(ENDS) + " |")
    print("|---" * (len(ENDS) + 1) + "|")
    for start in STARTS:
        cells = []
        for end in ENDS:
            one = measure(start, end)
            cells.append(f"{one.search_s:.1f} / {one.processes_s:.1f} / {one.busy:.2f}")
        print(f"| {start} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
