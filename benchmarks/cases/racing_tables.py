"""Scores and times of six real searches, computed once: what `racing` simulates on.

Each table has more candidates than a search draws, so that searches with other seeds have
other candidates, and other winners.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
from scipy.stats import loguniform, randint, uniform
from sklearn.base import clone
from sklearn.datasets import (
    load_breast_cancer,
    load_digits,
    make_classification,
)
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import get_scorer
from sklearn.model_selection import ParameterSampler, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

N_POOL = 130
N_SPLITS = (5, 10)


@dataclass(frozen=True, slots=True)
class Table:
    """A search's candidates, and the scores and seconds of all their fits.

    Attributes
    ----------
    name : str
    parameters : list of dict
    scores, seconds : ndarray of shape (n_candidates, n_splits)
    """

    name: str
    parameters: list[dict[str, Any]]
    scores: NDArray[np.float64]
    seconds: NDArray[np.float64]


def handwriting(n_samples: int) -> tuple[Any, Any]:
    """Make images of 28 x 28 from the digits of 8 x 8: enlarged, moved, with noise."""
    X, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    chosen = rng.integers(len(X), size=n_samples)
    images = np.kron(X[chosen].reshape(-1, 8, 8), np.ones((3, 3)))
    canvas = np.zeros((n_samples, 28, 28))
    for place, image in enumerate(images):
        down, right = rng.integers(0, 5, size=2)
        canvas[place, down : down + 24, right : right + 24] = image
    noise = rng.normal(scale=4.0, size=canvas.shape)
    return (canvas + noise).reshape(n_samples, -1), y[chosen]


def searches() -> dict[str, tuple[Any, dict[str, Any], tuple[Any, Any]]]:
    """Return the searches by name: estimator, space and data."""
    hard = make_classification(
        1500, 20, n_informative=8, n_classes=3, flip_y=0.05, random_state=1
    )
    noisy = make_classification(
        500, 30, n_informative=10, n_classes=2, flip_y=0.15, random_state=2
    )
    return {
        "forest, breast cancer": (
            RandomForestClassifier(random_state=0),
            {
                "n_estimators": randint(5, 35),
                "max_features": uniform(0.05, 0.9),
                "min_samples_leaf": randint(1, 20),
                "max_depth": [2, 4, 8, None],
            },
            load_breast_cancer(return_X_y=True),
        ),
        "boosting, synthetic": (
            GradientBoostingClassifier(random_state=0),
            {
                "n_estimators": randint(5, 25),
                "learning_rate": loguniform(0.02, 1.0),
                "max_depth": randint(1, 5),
                "subsample": uniform(0.4, 0.6),
                "max_features": ["sqrt", 0.3],
            },
            hard,
        ),
        "SVC, digits": (
            make_pipeline(StandardScaler(), SVC()),
            {"svc__C": loguniform(1e-2, 1e3), "svc__gamma": loguniform(1e-5, 1e0)},
            tuple(one[:500] for one in load_digits(return_X_y=True)),
        ),
        "SGD, handwriting": (
            SGDClassifier(random_state=0, max_iter=6, tol=None),
            {
                "alpha": loguniform(1e-6, 1e2),
                "loss": ["hinge", "log_loss", "modified_huber"],
                "penalty": ["l2", "elasticnet"],
                "eta0": loguniform(1e-4, 1e-1),
                "learning_rate": ["optimal", "invscaling", "adaptive"],
            },
            handwriting(250),
        ),
        "MLP, synthetic, noisy": (
            make_pipeline(StandardScaler(), MLPClassifier(random_state=0, max_iter=8)),
            {
                "mlpclassifier__hidden_layer_sizes": [(8,), (32,), (64,), (32, 32)],
                "mlpclassifier__alpha": loguniform(1e-6, 1e1),
                "mlpclassifier__learning_rate_init": loguniform(1e-4, 1e-1),
                "mlpclassifier__batch_size": [32, 64, 128],
            },
            noisy,
        ),
        "kNN, handwriting": (
            KNeighborsClassifier(),
            {
                "n_neighbors": randint(1, 60),
                "weights": ["uniform", "distance"],
                "p": [1, 2],
            },
            handwriting(400),
        ),
    }


def tables(folder: Path, *, n_jobs: int) -> list[Table]:
    """Return the tables of all searches; those that are in the folder are read."""
    found = []
    for name in searches():
        for n_splits in N_SPLITS:
            path = (
                folder / f"{name.replace(', ', '-').replace(' ', '-')}-{n_splits}.npz"
            )
            if not path.exists():
                scores, seconds = _computed(name, n_splits, n_jobs=n_jobs)
                np.savez(path, scores=scores, seconds=seconds)
            with np.load(path) as stored:
                scores, seconds = stored["scores"], stored["seconds"]
            found.append(Table(name, candidates(name), scores, seconds))
    return found


def candidates(name: str) -> list[dict[str, Any]]:
    """Return the candidates of a search's table."""
    _, space, _ = searches()[name]
    return list(ParameterSampler(space, N_POOL, random_state=0))


def _computed(name: str, n_splits: int, *, n_jobs: int) -> tuple[Any, Any]:
    began = time.perf_counter()
    estimator, _, (X, y) = searches()[name]
    splits = list(StratifiedKFold(n_splits, shuffle=True, random_state=0).split(X, y))
    pairs = joblib.Parallel(n_jobs=n_jobs, batch_size=8)(
        joblib.delayed(_fit)(estimator, one, X, y, *split)
        for one in candidates(name)
        for split in splits
    )
    table = np.array(pairs).reshape(N_POOL, n_splits, 2)
    took = {"table": name, "n_splits": n_splits, "s": time.perf_counter() - began}
    print(json.dumps(took), flush=True)
    return table[..., 0], table[..., 1]


def _fit(  # noqa: PLR0917 (called once, in order)
    estimator: Any, parameters: dict[str, Any], X: Any, y: Any, train: Any, test: Any
) -> tuple[float, float]:
    """Return the score of a fit, and its CPU time: other processes may run."""
    import warnings

    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        began = time.process_time()
        fitted = clone(estimator).set_params(**parameters).fit(X[train], y[train])
        score = get_scorer("accuracy")(fitted, X[test], y[test])
        return score, time.process_time() - began
