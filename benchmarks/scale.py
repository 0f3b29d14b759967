"""Very many slots and fits: ``python -m benchmarks.scale [names]``.

Not a comparison with others: a real scheduler in a process of its own, a real client, engine
and journal, and workers whose fits only wait (see `simulated_workers`). Shares of busy slots
depend on what else the machine does; CPU times per fit do not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
from distributed import Client
from sklearn.dummy import DummyClassifier
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import DaskSearchCV, SearchRun

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SLOTS_PER_WORKER = 64
N_SPLITS = 5
N_PROCESSES = 4  # of simulated workers
MIB = 2**20
WATCH_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class Case:
    """A search on simulated slots.

    Attributes
    ----------
    workers : int
        With 64 slots each.
    seconds : float
        Time of a fit.
    fits : int
    """

    workers: int
    seconds: float
    fits: int

    @property
    def slots(self) -> int:
        """Slots of all workers."""
        return self.workers * SLOTS_PER_WORKER


CASES = {
    "quick": Case(2, 0.5, 5_000),
    "1000x1": Case(16, 1.0, 60_000),
    "1000x10": Case(16, 10.0, 12_000),
    "10000x10": Case(157, 10.0, 240_000),
    "100k": Case(16, 0.1, 100_000),
    "300k": Case(16, 0.1, 300_000),
    "million": Case(16, 0.1, 1_000_000),
}


@dataclass(slots=True)
class Found:
    """What a search showed.

    Attributes
    ----------
    wall_s : float
        Of the whole fit.
    busy, busy_steady : float
        Share of the slots' time in fits: from the first fit's begin to the last one's end,
        and without the start (until every slot could have ended its first fit) and the end
        (once no fit waits).
    driver_cpu_s, scheduler_cpu_s : float
    driver_nbytes : int
        Peak memory of the driver's process.
    tasks : int
        Batches that the scheduler had.
    cold_s, warm_s : float
        Time to read the progress of the whole run: the first time, and the longest time of a
        process that has read it before.
    """

    wall_s: float = 0.0
    busy: float = 0.0
    busy_steady: float = 0.0
    driver_cpu_s: float = 0.0
    scheduler_cpu_s: float = 0.0
    driver_nbytes: int = 0
    tasks: int = 0
    cold_s: float = 0.0
    warm_s: float = 0.0


# --- a cluster ----------------------------------------------------------------------------


@contextlib.contextmanager
def process(*command: str, wait_s: float = 30.0) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Python module while the block runs."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    running = subprocess.Popen(
        [sys.executable, "-m", *command],
        env=environment,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Linux shares cores between sessions
    )
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(wait_s)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


@contextlib.contextmanager
def cluster(case: Case, folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run a scheduler and simulated workers; yield its address and its process."""
    file = folder / "scheduler.json"
    scheduler_file = ("--scheduler-file", str(file))
    with contextlib.ExitStack() as stack:
        scheduler = stack.enter_context(
            process(
                "distributed.cli.dask_scheduler",
                *("--host", "127.0.0.1", "--port", "0", "--no-dashboard"),
                *scheduler_file,
            )
        )
        while not file.exists() or not file.read_text():
            time.sleep(0.1)
        address = json.loads(file.read_text())["address"]
        for number in range(min(N_PROCESSES, case.workers)):
            share = len(range(number, case.workers, N_PROCESSES))
            stack.enter_context(
                process(
                    "benchmarks.simulated_workers",
                    address,
                    *("--workers", str(share), "--slots", str(SLOTS_PER_WORKER)),
                    *("--seconds", str(case.seconds)),
                    *("--times", str(folder / f"times-{number}.npy")),
                )
            )
        yield address, scheduler


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process so far."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


# --- what is measured -----------------------------------------------------------------------


def busy_shares(times: NDArray[np.float64], case: Case) -> tuple[float, float]:
    """Return the share of slots' time in fits: of all time, and without start and end."""
    began, ended = times
    whole = float((ended - began).sum() / (case.slots * (ended.max() - began.min())))
    # The first and the last round are the start and the end.
    first = np.sort(began)[min(case.slots, len(began)) - 1]
    last = np.sort(began)[-min(case.slots, len(began))]
    if last <= first:
        return whole, float("nan")
    inside = np.minimum(ended, last) - np.maximum(began, first)
    steady = float(np.maximum(inside, 0.0).sum() / (case.slots * (last - first)))
    return whole, steady


def watched(store: Path, ended: threading.Event, took: list[float]) -> None:
    """Read the progress of the newest run now and then; note what that takes."""
    run: SearchRun | None = None
    while not ended.wait(WATCH_EVERY_S):
        if run is None:
            found = SearchRun.list(store)
            run = found[0] if found else None
        else:
            began = time.perf_counter()
            run.progress()
            took.append(time.perf_counter() - began)


def watch(store: str) -> None:
    """Watch a run from a process of its own, until it has ended; print what it took."""
    took: list[float] = []
    ended = threading.Event()
    thread = threading.Thread(target=watched, args=(Path(store), ended, took))
    thread.start()
    sys.stdin.read()
    ended.set()
    thread.join()
    began = time.perf_counter()
    (run,) = SearchRun.list(store)
    snapshot = run.progress()
    cold_s = time.perf_counter() - began
    found = {"cold_s": cold_s, "warm_s": max(took[1:], default=0.0)}
    print(json.dumps(found | {"fits": snapshot.fits_done}))


def fit(case: Case, address: str, store: Path) -> None:
    """Run the search here."""
    X, y = np.zeros((50, 2)), np.arange(50) % 2
    rows = np.arange(50)
    splits = [(np.delete(rows, one), rows[[one]]) for one in range(N_SPLITS)]
    grid = {"random_state": list(range(case.fits // N_SPLITS))}
    search = GridSearchCV(DummyClassifier(), grid, cv=splits, refit=False)
    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(case.workers, timeout=120)
        DaskSearchCV(search, client=client, store=store).fit(X, y)


def drive(name: str, address: str, store: str) -> None:
    """Run a case's search here; print what it took."""
    case = CASES[name]
    began, cpu = time.perf_counter(), time.process_time()
    fit(case, address, Path(store))
    found = {
        "wall_s": time.perf_counter() - began,
        "driver_cpu_s": time.process_time() - cpu,
        "driver_nbytes": peak_nbytes(),
    }
    print(json.dumps(found))


def peak_nbytes() -> int:
    """Return the most memory that this process has used."""
    status = Path("/proc/self/status").read_text()
    line = next(one for one in status.splitlines() if one.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def measured(name: str) -> Found:
    """Run a case in processes of its own."""
    case, found = CASES[name], Found()
    with tempfile.TemporaryDirectory() as kept:
        folder, store = Path(kept), Path(kept) / "store"
        store.mkdir()
        with (
            cluster(case, folder) as (address, scheduler),
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.scale", "--watch", str(store)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            ) as watcher,
        ):
            cpu = cpu_s(scheduler.pid)
            output = subprocess.check_output(
                [
                    *(sys.executable, "-m", "benchmarks.scale", "--drive"),
                    *(name, address, str(store)),
                ],
                start_new_session=True,
            )
            found.scheduler_cpu_s = cpu_s(scheduler.pid) - cpu
            for key, value in json.loads(output.splitlines()[-1]).items():
                setattr(found, key, value)
            read, _ = watcher.communicate()
            seen = json.loads(read.splitlines()[-1])
            if seen["fits"] != case.fits // N_SPLITS * N_SPLITS:
                msg = f"the journal of case {name} has {seen['fits']} fits"
                raise RuntimeError(msg)
            found.cold_s, found.warm_s = seen["cold_s"], seen["warm_s"]
        parts = [np.load(file) for file in folder.glob("times-*.npy")]
        found.busy, found.busy_steady = busy_shares(np.hstack(parts), case)
    return found


def row(name: str, found: Found) -> str:
    """Return a row of the table."""
    case = CASES[name]
    cells = [
        f"{case.slots:,}",
        f"{case.seconds:g}",
        f"{case.fits:,}",
        f"{found.wall_s:.1f}",
        f"{100 * found.busy:.1f} %",
        f"{100 * found.busy_steady:.1f} %",
        f"{1e3 * found.driver_cpu_s / case.fits:.2f}",
        f"{1e3 * found.scheduler_cpu_s / case.fits:.2f}",
        f"{found.driver_nbytes / MIB:,.0f}",
        f"{found.cold_s:.2f}",
        f"{found.warm_s:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


HEADS = (
    "slots",
    "fit s",
    "fits",
    "wall s",
    "busy",
    "busy, steady",
    "driver CPU ms/fit",
    "scheduler CPU ms/fit",
    "driver MiB",
    "progress s, first read",
    "progress s, later",
)


def main() -> None:
    """Print a table, a row for each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    usual = ("1000x1", "1000x10", "10000x10", "million")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(CASES)}")
    parser.add_argument("--drive", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--watch", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drive:
        drive(*options.drive)
    elif options.watch:
        watch(options.watch)
    else:
        print(f"| {' | '.join(HEADS)} |\n|{'---|' * len(HEADS)}")
        for name in options.names or usual:
            print(row(name, measured(name)), flush=True)


if __name__ == "__main__":
    main()
