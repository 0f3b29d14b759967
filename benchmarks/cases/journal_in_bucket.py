"""What a journal in a bucket costs, with 60 ms added to each of its requests.

The bucket is an emulator's, behind the tests' proxy; both run in processes of their own.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from distributed import Client
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import SearchRun, local_cluster
from dask_hpsearch.data import DataStore
from dask_hpsearch.execution.fit import fit_trials
from dask_hpsearch.execution.settings import Settings
from dask_hpsearch.runs.submit import fit_here
from dask_hpsearch.stores import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

N_FITS, FIT_S, N_SPLITS, N_SLOTS = 200, 1.0, 5, 8
LATENCY_S = 0.06
FAR_BUCKET = f"""
from tests.gcs.emulator import emulator
from tests.gcs.held import new_bucket
from tests.gcs.proxy import proxy

with emulator() as port, proxy(port, latency_s={LATENCY_S}) as before:
    print(before.url, new_bucket(port), flush=True)
    input()
    print(len(before.seen))
"""


class Asleep(ClassifierMixin, BaseEstimator):
    """Takes its time, and no core."""

    def __init__(self, number: int = 0, seconds: float = FIT_S) -> None:
        self.number = number
        self.seconds = seconds

    def fit(self, X: Any, y: Any) -> Self:
        """Sleep."""
        del X
        self.classes_ = np.unique(y)
        time.sleep(self.seconds)
        return self

    def predict(self, X: Any) -> Any:
        """Predict the first class."""
        return np.full(len(X), self.classes_[0])


@contextlib.contextmanager
def far_bucket() -> Iterator[str]:
    """Yield the URL of a bucket that is far away."""
    with subprocess.Popen(
        [sys.executable, "-c", FAR_BUCKET],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        url, bucket = (process.stdout or sys.stdin).readline().split()
        os.environ["STORAGE_EMULATOR_HOST"] = url
        try:
            yield f"gs://{bucket}"
        finally:
            del os.environ["STORAGE_EMULATOR_HOST"]
            requests, _ = process.communicate("\n")
            print(f"{requests.strip()} requests in all")


def writing_cost(client: Client, url: str, rounds: int) -> None:
    """Print the wall time of 200 fits of 1 s, with and without a journal, in turns."""
    X, y = np.zeros((100, 4)), np.arange(100) % 2
    grid = {"number": list(range(N_FITS // N_SPLITS))}
    search = GridSearchCV(Asleep(), grid, cv=N_SPLITS, refit=False)

    def without() -> None:
        with DataStore() as data_store:
            fit_trials(search, X, y, {}, Settings(client=client), data_store=data_store)

    def within() -> None:
        fit_here(search, X, y, {}, Settings(client=client, store=open_store(url)))

    ways: dict[str, Callable[[], None]] = {"in a bucket": within, "without": without}
    walls: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(rounds):
        for name in sorted(ways, reverse=bool(round_ % 2)):
            began = time.perf_counter()
            ways[name]()
            walls[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(found) for name, found in walls.items()}
    for name, median in medians.items():
        print(f"{name:12} {median:6.2f} s   ({min(walls[name]):.2f} best)")
    share = 100 * (medians["in a bucket"] / medians["without"] - 1)
    print(f"journal in a bucket {LATENCY_S * 1000:.0f} ms away: {share:+.1f} %")


def reading_cost(client: Client, url: str, n_fits: int) -> None:
    """Print how long it takes to find a run, and to see how far it is."""
    X, y = np.zeros((100, 4)), np.arange(100) % 2
    grid = {"number": list(range(n_fits // N_SPLITS))}
    search = GridSearchCV(Asleep(seconds=0.0), grid, cv=N_SPLITS, refit=False)
    settings = Settings(client=client, store=open_store(f"{url}/long"))
    run_url = fit_here(search, X, y, {}, settings).url or ""
    for _ in range(2):
        began = time.perf_counter()
        run = SearchRun.attach(run_url)
        attached = time.perf_counter()
        done = run.progress().fits_done
        seen = time.perf_counter()
        print(
            f"{done} fits: attached in {attached - began:.2f} s, progress in "
            f"{seen - attached:.2f} s"
        )


def cost_in_bucket(rounds: int, *, n_read: int) -> None:
    """Measure both."""
    with (
        far_bucket() as url,
        local_cluster(1, N_SLOTS, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        reading_cost(client, url, n_read)
        writing_cost(client, url, rounds)
