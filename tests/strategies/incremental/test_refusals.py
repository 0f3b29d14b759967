"""What dask-ml's searches cannot be run with is refused, with the way out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from dask_ml.model_selection import HyperbandSearchCV, IncrementalSearchCV

from dask_hpsearch import DaskSearchCV
from dask_hpsearch.exceptions import UnsupportedSearchError
from tests.strategies.incremental.models import Curve
from tests.strategies.incremental.oracle import in_blocks

if TYPE_CHECKING:
    from distributed import Client

RNG = np.random.default_rng(0)
X, y = RNG.normal(size=(120, 3)), RNG.integers(0, 2, 120)
SPACE = {"level": [0.4, 0.6, 0.8], "speed": [0.2, 1.0]}


def two_scores(estimator: Any, X: Any, y: Any) -> dict[str, float]:
    """Return scores by name, as scikit-learn's searches take them."""
    return {"good": estimator.score(X, y), "bad": 0.0}


@pytest.mark.parametrize(
    ("scoring", "names"),
    [
        (["accuracy", "f1"], "accuracy, f1"),
        (("accuracy", "f1"), "accuracy, f1"),
        ({"one": "accuracy", "two": "f1"}, "one, two"),
        (two_scores, "good, bad"),
    ],
    ids=["list", "tuple", "dict", "function"],
)
@pytest.mark.parametrize("n_models", [1, 3])
def test_several_scores_are_refused(
    scoring: Any, names: str, n_models: int, client: Client
) -> None:
    """dask-ml cannot compare them either: its TypeError does not name the parameter."""
    search = IncrementalSearchCV(
        Curve(), SPACE, n_models, decay_rate=None, max_iter=2, scoring=scoring
    )

    with pytest.raises(UnsupportedSearchError, match=rf"\({names}\): .*scoring="):
        DaskSearchCV(search, client=client).fit(X, y)


@pytest.mark.parametrize("length", [100, 130])
@pytest.mark.parametrize("form", ["arrays", "Dask arrays"])
def test_data_of_unequal_lengths_are_refused(
    length: int, form: str, client: Client
) -> None:
    """Rows of one would be paired with no row, or with others, of the other."""
    target = np.resize(y, length)
    data = in_blocks(X, target, 50) if form == "Dask arrays" else (X, target)
    search = HyperbandSearchCV(Curve(), SPACE, max_iter=2)

    with pytest.raises(ValueError, match=f"same number of rows, got 120 and {length}"):
        DaskSearchCV(search, client=client).fit(*data)
