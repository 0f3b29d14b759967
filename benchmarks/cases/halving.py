"""Asynchronous halving against scikit-learn's: time until a candidate is good enough.

``python -m benchmarks.cases.halving [--rounds 3] [--slots 2] [--no-loky]``: a multi-layer perceptron on
24,000 rows of 50 columns (4 classes), 27 candidates, iterations as the resource (1, 3, 9, 27), 3 splits.
Each score is noted with its time. A contender is ready when a candidate has a mean test score
of 0.70 over its splits. Ratios are to scikit-learn's halving in the same slots. Contenders take turns, with the same candidates in a round; both are
warm before the first round.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
from scipy.stats import loguniform
from sklearn.datasets import make_classification
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import HalvingRandomSearchCV
from sklearn.neural_network import MLPClassifier

from dask_hpsearch import AsyncHalvingSearchCV, DaskSearchCV, local_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ENOUGH, N_SPLITS, N_CANDIDATES, MOST = 0.70, 3, 27, 27
SPACE = {
    "alpha": loguniform(1e-6, 1e-1),
    "learning_rate_init": loguniform(1e-4, 1e-1),
    "hidden_layer_sizes": [(16,), (32,), (64,), (32, 32)],
    "batch_size": [128, 256, 512],
}


@dataclass(frozen=True, slots=True)
class NotedScore:
    """Scores by accuracy, and notes when.

    Attributes
    ----------
    path : str
        The file of the notes.
    """

    path: str

    def __call__(self, estimator: Any, X: Any, y: Any) -> float:
        """Return the accuracy."""
        score = float(estimator.score(X, y))
        note = [time.time(), float(estimator.alpha), int(estimator.t_), score]
        with Path(self.path).open("a") as file:
            file.write(json.dumps(note) + "\n")
        return score


def ready_at(path: str) -> float:
    """Return when a candidate had its mean score; infinity if none had."""
    scores: dict[tuple[float, int], list[float]] = {}
    for line in Path(path).read_text("ascii").splitlines():
        when, alpha, n_seen, score = json.loads(line)
        known = scores.setdefault((alpha, n_seen), [])
        known.append(score)
        if len(known) == N_SPLITS and np.mean(known) >= ENOUGH:
            return float(when)
    return float("inf")


def data(n_samples: int = 24_000) -> tuple[Any, Any]:
    """Return X of 50 columns, and y of 4 classes with noise."""
    made: tuple[Any, Any] = make_classification(
        n_samples,
        50,
        n_informative=20,
        n_redundant=10,
        n_classes=4,
        n_clusters_per_class=4,
        class_sep=0.7,
        flip_y=0.05,
        random_state=0,
    )
    return made


def halving(kind: Any, path: str, seed: int, **options: Any) -> Any:
    """Make a halving search."""
    return kind(
        MLPClassifier(random_state=0),
        SPACE,
        n_candidates=N_CANDIDATES,
        resource="max_iter",
        max_resources=MOST,
        min_resources=1,
        cv=N_SPLITS,
        scoring=NotedScore(path),
        return_train_score=False,
        refit=False,
        random_state=seed,
        **options,
    )


def timed(fit: Callable[[str], Any]) -> tuple[float, float, float]:
    """Return seconds to the score, seconds in all, and the best score of the end."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/scores"
        began = time.time()
        found = fit(path)
        wall_s = time.time() - began
        top = found.cv_results_["iter"] == np.max(found.cv_results_["iter"])
        best = float(np.nanmax(found.cv_results_["mean_test_score"][top]))
        return ready_at(path) - began, wall_s, best


def report(ratios: Mapping[str, list[float]]) -> None:
    """Print medians of the ratios to each of scikit-learn's contenders."""
    for base in ("same slots", "loky"):
        to = ratios.get(f"scikit-learn, {base}", [])
        for name, values in ratios.items() if to else ():
            own = [one / other for one, other in zip(values, to, strict=True)]
            print(
                f"{name:26} median {median(own):.2f} times scikit-learn's, {base} "
                f"({min(own):.2f} to {max(own):.2f})"
            )


def main() -> None:
    """Run rounds, and print their times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--no-loky", action="store_true")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    with (
        local_cluster(1, given.slots, dashboard_address=":0") as cluster,
        cluster.get_client() as client,
        joblib.parallel_config("loky", n_jobs=given.slots, inner_max_num_threads=1),
    ):

        def ours(path: str, seed: int, **options: Any) -> Any:
            search = halving(AsyncHalvingSearchCV, path, seed, **options)
            return DaskSearchCV(search, client=client).fit(X, y)

        def anew(path: str, seed: int) -> Any:
            return ours(path, seed, warm_start=False)

        def theirs(path: str, seed: int) -> Any:
            return halving(HalvingRandomSearchCV, path, seed, n_jobs=given.slots).fit(
                X, y
            )

        def theirs_here(path: str, seed: int) -> Any:
            search = halving(HalvingRandomSearchCV, path, seed)
            return DaskSearchCV(search, client=client).fit(X, y)

        contenders = {
            "asynchronous": ours,
            "asynchronous, models anew": anew,
            "scikit-learn, same slots": theirs_here,
            "scikit-learn, loky": theirs,
        }
        if given.no_loky:
            del contenders["scikit-learn, loky"]
        X, y = data(300)
        for fit in contenders.values():
            with tempfile.TemporaryDirectory() as folder:
                fit(f"{folder}/scores", 0)
        X, y = data()
        ratios: dict[str, list[float]] = {name: [] for name in contenders}
        for seed in range(given.rounds):
            times = {
                name: timed(lambda path, fit=fit: fit(path, seed))  # noqa: B023
                for name, fit in contenders.items()
            }
            for name, (ready_s, wall_s, best) in times.items():
                ratio = ready_s / times["scikit-learn, same slots"][0]
                ratios[name].append(ratio)
                print(
                    f"seed {seed}: {name:26} {ENOUGH:.2f} after {ready_s:5.1f} s "
                    f"({ratio:.2f} times), {wall_s:5.1f} s in all, best {best:.3f}",
                    flush=True,
                )
    report(ratios)


if __name__ == "__main__":
    main()
