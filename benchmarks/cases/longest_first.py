"""How near a search of unequal fits comes to what known times would allow.

``python -m benchmarks.cases.longest_first [--seeds 3] [--drawn]``: stand-ins for forests of 20 to
400 trees, which sleep in proportion to their trees, with noise; 30 candidates on 3 splits, 8
slots. The bound is list scheduling, the longest first, with times that are known; first come,
first served is list scheduling in the order of the candidates.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import tempfile
import time
import zlib
from typing import Any, Self

import numpy as np
from distributed import Client
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    ParameterGrid,
    ParameterSampler,
)

from benchmarks.simulated import list_schedule_s
from dask_hpsearch import DaskSearchCV, local_cluster

N_SPLITS, N_SLOTS = 3, 8
FEATURES = {"log2": 0.8, "sqrt": 1.0, None: 3.0}  # and the time that they take
TREES = (20, 50, 80, 120, 160, 200, 250, 300, 350, 400)


class SleepingForest(ClassifierMixin, BaseEstimator):
    """Takes the time of a forest, and no CPU."""

    def __init__(
        self,
        n_estimators: int = 100,
        max_features: str | None = "sqrt",
        *,
        noise: float = 0.1,
        seed: int = 0,
    ) -> None:
        self.n_estimators = n_estimators
        self.max_features = max_features
        self.noise = noise
        self.seed = seed

    def fit(self, X: Any, y: Any) -> Self:
        """Sleep as long as the forest takes."""
        self.classes_ = np.unique(y)
        time.sleep(self.seconds(X))
        return self

    def seconds(self, X: Any) -> float:
        """Return the time, which is the same for the same parameters and data."""
        drawn = zlib.crc32(repr((self.get_params(), X.tolist())).encode())
        noise = math.exp(random.Random(drawn).gauss(0.0, self.noise))
        return FEATURES[self.max_features] * noise * self.n_estimators / 300

    def predict(self, X: Any) -> Any:
        """Predict the first class."""
        return np.full(len(X), self.classes_[0])


def candidates(*, seed: int, drawn: bool) -> list[dict[str, Any]]:
    """Return 30 candidates: of a grid, or drawn at random."""
    grid = list(ParameterGrid({"max_features": list(FEATURES), "n_estimators": TREES}))
    if drawn:
        space = {"max_features": list(FEATURES), "n_estimators": range(20, 401)}
        return list(ParameterSampler(space, len(grid), random_state=seed))
    return grid


def run(
    client: Client, chosen: list[dict[str, Any]], *, seed: int, noise: float
) -> tuple[float, float, float]:
    """Return the seconds of a search, its bound, and those of first come, first served."""
    X, y = np.arange(60.0).reshape(30, 2), np.arange(30) % 2
    forest, splits = SleepingForest(noise=noise, seed=seed), KFold(N_SPLITS)
    grids = [{name: [value] for name, value in one.items()} for one in chosen]
    own = GridSearchCV(forest, grids, cv=splits, refit=False)
    with tempfile.TemporaryDirectory() as store:
        ours = DaskSearchCV(own, client=client, store=store)
        began = time.perf_counter()
        ours.fit(X, y)
        took = time.perf_counter() - began
    seconds = [
        clone(forest).set_params(**one).seconds(X[train])
        for one in chosen
        for train, _ in splits.split(X)
    ]
    bound = list_schedule_s(sorted(seconds, reverse=True), N_SLOTS)
    return took, bound, list_schedule_s(seconds, N_SLOTS)


def main() -> None:
    """Print a line for each seed, and the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--noise", type=float, default=0.1)
    parser.add_argument("--drawn", action="store_true", help="candidates are drawn")
    options = parser.parse_args()
    ratios = []
    with (
        local_cluster(1, N_SLOTS, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        run(client, [{"n_estimators": 20}] * N_SLOTS, seed=0, noise=0.0)  # slots start
        for seed in range(options.seeds):
            chosen = candidates(seed=seed, drawn=options.drawn)
            took, bound, first_come = run(
                client, chosen, seed=seed, noise=options.noise
            )
            ratios.append((took / bound, first_come / bound))
            print(
                f"seed {seed}: {took:6.2f} s, bound {bound:6.2f} s, ratio "
                f"{took / bound:.3f}; first come, first served {first_come / bound:.3f}"
            )
    ours, others = (statistics.median(column) for column in zip(*ratios, strict=True))
    print(f"median: {ours:.3f}; first come, first served {others:.3f}")


if __name__ == "__main__":
    main()
