"""Cases of umap."""

from __future__ import annotations

from typing import Any

from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from umap import UMAP

from tests.libraries.case import SOME_KINDS, Case, flowers


def _embedded(**options: Any) -> Pipeline:
    embedding = UMAP(n_neighbors=5, n_epochs=20, init="random", **options)
    return Pipeline(
        [
            ("scaler", StandardScaler()),
            ("embedding", embedding),
            ("model", KNeighborsClassifier(3)),
        ]
    )


CASES = (
    Case(
        name="umap",
        estimator=lambda: _embedded(n_jobs=1, random_state=0),
        space={"model__n_neighbors": [1, 3, 5]},
        data=flowers,
        kinds=SOME_KINDS,
    ),
    Case(
        name="umap-its-own-parameters",
        estimator=lambda: _embedded(n_jobs=1, random_state=0),
        space={"embedding__n_neighbors": [4, 6], "embedding__min_dist": [0.1, 0.5]},
        data=flowers,
    ),
)
UNSEEDED = Case(
    name="umap-unseeded",
    estimator=_embedded,  # in threads, which a seed forbids
    space={"model__n_neighbors": [1, 3]},
    data=flowers,
)
