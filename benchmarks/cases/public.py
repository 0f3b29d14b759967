"""Other scikit-learn code under the backend: ``python -m benchmarks.cases.public``.

The same calls under loky and under ``joblib.parallel_config("dask_hpsearch")``, in turns,
in one process; both are warm. What is measured is wall time, and the most threads that this
process had.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from typing import TYPE_CHECKING, Any

import joblib
from distributed import Client
from sklearn.datasets import load_digits
from sklearn.ensemble import BaggingClassifier, RandomForestClassifier
from sklearn.feature_selection import RFECV
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import pairwise_distances
from sklearn.model_selection import cross_val_score
from sklearn.tree import DecisionTreeClassifier

from dask_hpsearch import local_cluster

if TYPE_CHECKING:
    from collections.abc import Callable

N_SLOTS = 2
X, y = load_digits(return_X_y=True)


def works() -> dict[str, Callable[[], Any]]:
    """Return what is computed, by name."""
    forest = RandomForestClassifier(100, n_jobs=-1, random_state=0).fit(X, y)
    tree = DecisionTreeClassifier(random_state=0).fit(X, y)
    slow = LogisticRegression(max_iter=300)
    return {
        "pairwise_distances": lambda: pairwise_distances(X, metric="cosine", n_jobs=-1),
        "forest.fit": lambda: RandomForestClassifier(
            100, n_jobs=-1, random_state=0
        ).fit(X, y),
        "forest.predict": lambda: forest.predict(X),
        "BaggingClassifier": lambda: BaggingClassifier(n_estimators=40).fit(X, y),
        "cross_val_score": lambda: cross_val_score(slow, X, y, cv=5, n_jobs=-1),
        "permutation_importance": lambda: (
            permutation_importance(tree, X, y, n_jobs=-1).importances
        ),
        "RFECV": lambda: RFECV(tree, step=8, n_jobs=-1).fit(X, y),
    }


def timed(work: Callable[[], Any], **config: Any) -> tuple[float, int]:
    """Return the seconds that the work takes, and the threads there were after it."""
    with joblib.parallel_config(**config):
        begun = time.perf_counter()
        work()
        return time.perf_counter() - begun, threading.active_count()


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    print("| call | loky s | dask_hpsearch s | ÷ loky | threads |")
    print("|---|---|---|---|---|")
    with (
        local_cluster(1, N_SLOTS, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        ways: tuple[dict[str, Any], ...] = (
            {"backend": "loky", "n_jobs": N_SLOTS},
            {"backend": "dask_hpsearch", "client": client},
        )
        for name, work in works().items():
            found = [[timed(work, **way) for way in ways] for _ in range(rounds + 1)]
            kept = found[1:]  # the first one warms up
            loky, ours = ([row[n][0] for row in kept] for n in (0, 1))
            ratios = [mine / theirs for mine, theirs in zip(ours, loky, strict=True)]
            print(
                f"| {name} | {statistics.median(loky):.3f} | "
                f"{statistics.median(ours):.3f} | {statistics.median(ratios):.2f} "
                f"({min(ratios):.2f} to {max(ratios):.2f}) | "
                f"{max(row[1][1] for row in kept)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
