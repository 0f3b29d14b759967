"""How long a search takes to end: ``python -m benchmarks.cases.ending [--candidates 100000]``.

Not a comparison with others: searches with very many fits that wait, each ended in one of the
ways there are, and what passes between the word and the end, the refit included.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import tempfile
import threading
import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from distributed import Client
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import DaskSearchCV, SearchRun, Tariff, local_cluster
from dask_hpsearch.exceptions import RunCancelledError, SearchStoppedWarning

if TYPE_CHECKING:
    from collections.abc import Callable

N_SPLITS = 2
HOUR_S = 3600.0


class Sleeper(ClassifierMixin, BaseEstimator):
    """Sleeps in a slot, not in the refit."""

    def __init__(self, number: int = 0, seconds: float = 0.0, client: int = 0) -> None:
        self.number = number
        self.seconds = seconds
        self.client = client

    def fit(self, X: Any, y: Any) -> Self:
        """Take so much time."""
        del X
        self.classes_ = np.unique(y)
        time.sleep(0 if os.getpid() == self.client else self.seconds)
        return self

    def predict(self, X: Any) -> Any:
        """Predict the first class."""
        return np.full(len(X), self.classes_[0])


@dataclass(slots=True)
class Ending:
    """One search that is ended.

    Attributes
    ----------
    search : GridSearchCV
    client : Client
    store : str
    after_s : float
        When it is told to end.
    told_at, cpu_at : float
        When that was, and the CPU time of this process until then.
    """

    search: GridSearchCV
    client: Client
    store: str
    after_s: float
    told_at: float = 0.0
    cpu_at: float = 0.0

    def note(self) -> None:
        """Note that it is told to end now."""
        self.told_at, self.cpu_at = time.perf_counter(), time.process_time()

    def note_after(self, seconds: float) -> None:
        """Note that it is told to end in some seconds."""
        timer = threading.Timer(seconds, self.note)
        timer.daemon = True
        timer.start()

    def fit(self, **settings: Any) -> Any:
        """Fit here."""
        X, y = np.zeros((20, 2)), np.arange(20) % 2
        ours = DaskSearchCV(
            self.search, client=self.client, store=self.store, **settings
        )
        return ours.fit(X, y)

    def later(self, tell: Callable[[], None]) -> None:
        """Tell it to end once its fits run."""

        def wait() -> None:
            self.wait_for_fits()
            time.sleep(self.after_s)
            self.note()
            tell()

        threading.Thread(target=wait, daemon=True).start()

    def wait_for_fits(self) -> SearchRun:
        """Wait for the first finished fits of the newest run; return it."""
        while True:
            runs = SearchRun.list(self.store)
            if runs and runs[-1].progress().fits_done:
                return runs[-1]
            time.sleep(0.2)

    def newest(self) -> SearchRun:
        """Return the newest run."""
        return SearchRun.list(self.store)[-1]


def by_max_time(ending: Ending) -> None:
    """End by ``max_time``; what comes before its clock starts is counted too."""
    ending.note_after(ending.after_s)
    ending.fit(max_time=ending.after_s)


def by_ctrl_c(ending: Ending) -> None:
    """End by SIGINT."""
    ending.later(lambda: os.kill(os.getpid(), signal.SIGINT))
    ending.fit()


def by_max_cost(ending: Ending) -> None:
    """End by ``max_cost``, at a dollar a second."""
    cluster: Any = ending.client.cluster
    cluster.tariff = Tariff(fixed_usd_hour=HOUR_S, worker_usd_hour=0.0)
    ending.note_after(ending.after_s)
    try:
        ending.fit(max_cost=ending.after_s)
    finally:
        del cluster.tariff
        cluster.scale(1)


def by_stop(ending: Ending) -> None:
    """End by `SearchRun.stop`."""
    ending.later(lambda: ignore(ending.newest().stop()))
    ending.fit()


def by_cancel(ending: Ending) -> None:
    """End by `SearchRun.cancel`."""
    ending.later(lambda: ignore(ending.newest().cancel()))
    with contextlib.suppress(RunCancelledError):
        ending.fit()


def ignore(_: object) -> None:
    """Return nothing."""


WAYS = {
    "max_time": by_max_time,
    "Ctrl-C": by_ctrl_c,
    "max_cost": by_max_cost,
    "stop()": by_stop,
    "cancel()": by_cancel,
}


def main() -> None:
    """Print a table, a line for each way to end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ways", nargs="*", help=f"of {', '.join(WAYS)}; default: all")
    parser.add_argument("--candidates", type=int, default=100_000)
    parser.add_argument("--fit-seconds", type=float, default=0.05)
    parser.add_argument("--after", type=float, default=10.0, help="seconds")
    options = parser.parse_args()
    warnings.simplefilter("ignore", SearchStoppedWarning)
    numbers = list(range(options.candidates))
    estimator = Sleeper(seconds=options.fit_seconds, client=os.getpid())
    search = GridSearchCV(estimator, {"number": numbers}, cv=N_SPLITS)
    print(
        f"{options.candidates * N_SPLITS:,} fits, told to end after {options.after} s"
    )
    with (
        local_cluster(1, 2, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        for name in options.ways or WAYS:
            with tempfile.TemporaryDirectory() as store:
                ending = Ending(search, client, store, options.after)
                WAYS[name](ending)
                seconds = time.perf_counter() - ending.told_at
                cpu_s = time.process_time() - ending.cpu_at
                done = ending.newest().progress().fits_done
            cpu = f"{cpu_s:.2f} s of CPU time here"
            print(f"{name:9} ends after {seconds:5.2f} s ({cpu}), {done:7,} fits done")


if __name__ == "__main__":
    main()
