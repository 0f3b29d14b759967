"""How soon a fit that has started processes ends, and all that it has started.

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

if TYPE_CHECKING:
    from collections.abc import Callable

MARK = "DASK_HPSEARCH_BENCHMARK_MARK"
FIT_TIMEOUT_S, MAX_TIME_S, FOREVER_S = 2.0, 3.0, 1e6
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

    def fit(self, X: Any, y: Any) -> Self:
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
        """Predict nothing."""
        return np.zeros(len(X), int)


def marked(value: str) -> set[int]:
    """Return the processes that have the mark in their environment."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == value and process.pid != os.getpid():
                found.add(process.pid)
    return found


def measure(start: str, end: str) -> tuple[float, float, float]:
    """Return the seconds until the search ended, until all was gone, and CPU after."""
    folder = Path(tempfile.mkdtemp())
    os.environ[MARK] = value = uuid.uuid4().hex
    os.environ["DASK_HPSEARCH_HOME"] = str(folder / "home")
    log = folder / "log"
    in_fit = end in ("memory", "SIGKILL", "os._exit")
    starter = Starter(start, end if in_fit else "hang", log=str(log))
    splits = [(np.arange(60), np.arange(60, 90))]
    search = GridSearchCV(
        starter, {"start": [start]}, cv=splits, refit=False, error_score=0.0
    )
    options: dict[str, Any] = {}
    if end == "fit_timeout":
        options["fit_timeout"] = FIT_TIMEOUT_S
    if end == "max_time":
        options["max_time"] = MAX_TIME_S
    X, y = load_iris(return_X_y=True)
    with (
        local_cluster(1, 2, memory_limit="800 MiB", dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        client.wait_for_workers(1)
        (worker,) = client.run(os.getpid).values()
        own = DaskSearchCV(search, client=client, **options)
        due = [0.0]
        thread = threading.Thread(
            target=_end_from_outside, args=(end, log, cluster, due)
        )
        thread.start()
        began = time.time()
        with contextlib.suppress(BaseException):
            own.fit(X, y)
        ended = time.time()
        thread.join()
        noted = json.loads(log.read_text("ascii"))
        if in_fit:
            due[0] = noted[1]
        elif end == "fit_timeout":
            due[0] = noted[0] + FIT_TIMEOUT_S
        elif end == "max_time":
            due[0] = began + MAX_TIME_S
        if end == "cluster.close()":
            return ended - due[0], _until_gone(lambda: marked(value)) - due[0], 0.0

        def others() -> set[int]:
            slots = {pid for pids in client.run(slot_pids).values() for pid in pids}
            below = {
                pid
                for pid in marked(value) - slots - {worker}
                if _parent(pid) not in (worker, *slots)
                and _parent(_parent(pid)) not in (os.getpid(),)
            }
            return below - {_parent(pid) for pid in slots}

        gone = _until_gone(others)
        before = sum(psutil.Process(worker).cpu_times()[:2])
        time.sleep(1.0)
        busy = sum(psutil.Process(worker).cpu_times()[:2]) - before
    return ended - due[0], gone - due[0], busy


def _end_from_outside(end: str, log: Path, cluster: Any, due: list[float]) -> None:
    if end not in ("Ctrl-C", "cluster.close()"):
        return
    while not log.exists():
        time.sleep(0.01)
    time.sleep(0.5)
    due[0] = time.time()
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
            ended, gone, busy = measure(start, end)
            cells.append(f"{ended:.1f} / {gone:.1f} / {busy:.2f}")
        print(f"| {start} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
