"""What the journal costs: ``python -m benchmarks.cases.journal [--rounds 5] [--bucket]``.

Not a comparison with others: the same search on the same slots, with its journal in a
folder and without any, in turns; then how long it takes to see how far a long run is, from
a store that is far away.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from distributed import Client
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import GridSearchCV

from benchmarks.cases.journal_in_bucket import cost_in_bucket
from dask_hpsearch import local_cluster
from dask_hpsearch.data import DataStore
from dask_hpsearch.execution.fit import fit_trials
from dask_hpsearch.execution.settings import Settings
from dask_hpsearch.journal.events import CallEvent, FitEvent
from dask_hpsearch.journal.run_journal import RunJournal
from dask_hpsearch.journal.segments import JournalReader, JournalWriter
from dask_hpsearch.runs import views
from dask_hpsearch.runs.create import Work, create_run
from dask_hpsearch.runs.submit import fit_here
from dask_hpsearch.security import signing
from dask_hpsearch.stores import Listing, Store, open_store

if TYPE_CHECKING:
    from collections.abc import Callable

N_FITS, FIT_S, N_SPLITS = 2000, 0.005, 5
N_READ, LATENCY_S = 10_000, 0.06


class Busy(ClassifierMixin, BaseEstimator):
    """Keeps its core busy for a time."""

    def __init__(self, number: int = 0, seconds: float = FIT_S) -> None:
        self.number = number
        self.seconds = seconds

    def fit(self, X: Any, y: Any) -> Self:
        """Take so much CPU time."""
        del X
        self.classes_ = np.unique(y)
        end = time.process_time() + self.seconds
        while time.process_time() < end:
            pass
        return self

    def predict(self, X: Any) -> Any:
        """Predict the first class."""
        return np.full(len(X), self.classes_[0])


@dataclass(frozen=True, slots=True)
class Cost:
    """Wall time of a fit, and CPU time of the process that drives it."""

    wall_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class FarStore:
    """A store whose every read and listing takes a time."""

    store: Store

    def read(self, name: str) -> bytes:
        """Read an object, later."""
        time.sleep(LATENCY_S)
        return self.store.read(name)

    def list(self, prefix: str = "") -> Listing:
        """List objects, later."""
        time.sleep(LATENCY_S)
        return self.store.list(prefix)


def measured(fit: Callable[[], Any]) -> Cost:
    """Fit, and tell what it took."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    fit()
    return Cost(time.perf_counter() - wall_s, time.process_time() - cpu_s)


def fits(client: Client, store: Path) -> dict[str, Callable[[], Any]]:
    """Return the ways to fit the same search."""
    X, y = np.zeros((100, 4)), np.arange(100) % 2
    grid = {"number": list(range(N_FITS // N_SPLITS))}
    search = GridSearchCV(Busy(), grid, cv=N_SPLITS, refit=False)
    kept = Settings(client=client, store=open_store(store))

    def without() -> None:
        with DataStore() as data_store:
            fit_trials(search, X, y, {}, Settings(client=client), data_store=data_store)

    return {
        "with": lambda: fit_here(search, X, y, {}, kept),
        "without": without,
    }


def journal_cost(rounds: int) -> None:
    """Print what 2,000 fits of 5 ms cost, in turns."""
    found: dict[str, list[Cost]] = {"with": [], "without": []}
    with (
        tempfile.TemporaryDirectory() as folder,
        local_cluster(1, 2, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        ways = fits(client, Path(folder))
        for round_ in range(rounds + 1):
            for name in sorted(ways, reverse=bool(round_ % 2)):
                cost = measured(ways[name])
                if round_:  # the first one warms up
                    found[name].append(cost)
    for name, costs in found.items():
        wall = statistics.median(one.wall_s for one in costs)
        cpu = statistics.median(one.cpu_s for one in costs)
        print(f"{name:8} wall {wall:6.2f} s   driver's CPU {cpu:5.2f} s")
    pairs = list(zip(found["with"], found["without"], strict=True))
    walls = [100 * (one.wall_s / other.wall_s - 1) for one, other in pairs]
    cpus = [100 * (one.cpu_s - other.cpu_s) / other.wall_s for one, other in pairs]
    print(
        f"journal: wall time {statistics.median(walls):+.1f} % "
        f"({min(walls):+.1f} to {max(walls):+.1f}), driver's CPU time "
        f"{statistics.median(cpus):+.1f} % of the wall time"
    )


def journal_alone() -> None:
    """Print the CPU time of the journal by itself, which a busy machine blurs less."""
    X, y = np.zeros((100, 4)), np.arange(100) % 2
    candidates = [{"number": number} for number in range(N_FITS // N_SPLITS)]
    search = GridSearchCV(Busy(), {"number": [0]}, cv=N_SPLITS, refit=False)
    result = {"fit_error": None, "test_scores": 0.5, "fit_time": FIT_S}
    with tempfile.TemporaryDirectory() as folder, DataStore(Path(folder)) as data_store:
        began = time.process_time()
        run = create_run(
            Work(search, X, y, {}),
            store=open_store(folder),
            data_store=data_store,
            task_name=None,
            settings={},
        )
        journal = RunJournal(run)
        splits = [(np.arange(80), np.arange(20))] * N_SPLITS
        journal.begin_call(0, candidates, splits, None)
        for number in range(N_FITS):
            candidate, split = divmod(number, N_SPLITS)
            journal.fit_finished(
                0,
                candidate,
                split,
                candidates[candidate],
                result,
                shown_as_finished=lambda: None,
            )
        journal.close()
        cpu_s = time.process_time() - began
    share = 100 * cpu_s / (N_FITS * FIT_S / 2)
    print(f"alone: {cpu_s:.3f} s of CPU time, {share:.1f} % of two slots' wall time")


def reading_cost(fits_per_segment: int) -> None:
    """Print how long it takes to see the progress of 10,000 fits."""
    store = open_store(f"memory://benchmark-{fits_per_segment}")
    key = signing.SigningKey.generate()
    write_run(store, key, fits_per_segment)
    began = time.perf_counter()
    reader = JournalReader(FarStore(store), "run", key.public)  # type: ignore[arg-type]
    progress = views.RunProgress(refit=None)
    progress.update(reader.read().objects)
    snapshot = progress.snapshot(ended=False)
    seconds = time.perf_counter() - began
    print(f"{snapshot.fits_done} fits, {fits_per_segment} a segment: {seconds:.2f} s")


def write_run(store: Store, key: signing.SigningKey, fits_per_segment: int) -> None:
    """Write the journal of a long run as its driver would."""

    def fail(error: Exception) -> None:
        raise error

    writer = JournalWriter(store, "run", key, on_error=fail)
    params = [{"C": number / 7} for number in range(N_READ // N_SPLITS)]
    call = CallEvent(
        generation=0, time=0.0, call=0, n_splits=N_SPLITS, params=params, extra={}
    )
    writer.append(call)
    for number in range(N_READ):
        candidate, split = divmod(number, N_SPLITS)
        result = {"fit_error": None, "test_scores": number / 7, "fit_time": 0.0123}
        fit = FitEvent(
            generation=0,
            time=number * 0.1,
            call=0,
            candidate=candidate,
            split=split,
            digest="0123456789abcdef",
            result=result,
        )
        writer.append(fit)
        if number % fits_per_segment == 0:
            writer.flush()
            writer.compact_if_due()
    writer.close()


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--bucket",
        action="store_true",
        help="only: 200 fits of 1 s with the journal in a bucket that is 60 ms away",
    )
    options = parser.parse_args()
    if options.bucket:
        cost_in_bucket(options.rounds, n_read=N_READ)
        return
    journal_alone()
    journal_cost(options.rounds)
    for fits_per_segment in (1, 10, 100):
        reading_cost(fits_per_segment)


if __name__ == "__main__":
    main()
