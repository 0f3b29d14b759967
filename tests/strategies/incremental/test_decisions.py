"""Decisions, histories and results equal dask-ml's on the same scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from dask_ml.model_selection import (
    HyperbandSearchCV,
    IncrementalSearchCV,
    InverseDecaySearchCV,
    SuccessiveHalvingSearchCV,
)
from scipy.stats import loguniform, uniform
from sklearn.base import clone
from sklearn.linear_model import SGDClassifier

from dask_hpsearch import DaskSearchCV
from tests.strategies.incremental.models import Curve
from tests.strategies.incremental.oracle import (
    fitted_by_dask_ml,
    in_blocks,
    outcome_of,
)

if TYPE_CHECKING:
    from distributed import Client

RNG = np.random.default_rng(0)
X, y = RNG.normal(size=(350, 4)), RNG.integers(0, 2, 350)
DATA = in_blocks(X, y, 50)  # seven blocks
SPACE = {"level": uniform(0.3, 0.7), "speed": loguniform(0.05, 5)}
GRID = {"level": [0.4, 0.6, 0.8], "speed": [0.2, 1.0]}
KINDS: dict[str, tuple[type, dict[str, Any]]] = {
    "incremental": (IncrementalSearchCV, {"decay_rate": None, "max_iter": 6}),
    "decay": (InverseDecaySearchCV, {"n_initial_parameters": 12}),
    "halving": (
        SuccessiveHalvingSearchCV,
        {"n_initial_parameters": 9, "n_initial_iter": 2},
    ),
    "hyperband": (HyperbandSearchCV, {"max_iter": 9}),
}
# Each with the parameters that it adds to those above.
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("incremental", {"patience": 3, "tol": 0.02, "max_iter": 20}),
    ("incremental", {"patience": 5, "tol": 0.05, "fits_per_score": 2, "max_iter": 20}),
    ("incremental", {"fits_per_score": 3, "max_iter": 7}),
    ("incremental", {"n_initial_parameters": "grid", "max_iter": 3}),
    ("decay", {"n_initial_parameters": "grid"}),
    ("decay", {"decay_rate": 2.0}),
    ("decay", {"decay_rate": 0.5, "fits_per_score": 3, "patience": 4, "max_iter": 30}),
    ("decay", {"test_size": 0.3}),
    ("halving", {"aggressiveness": 2, "n_initial_parameters": 16}),
    ("halving", {"n_initial_iter": 1}),
    ("halving", {"max_iter": 7, "patience": 4, "tol": 0.1}),
    ("halving", {"test_size": 0.4}),
    ("hyperband", {"aggressiveness": 4, "max_iter": 16}),
    ("hyperband", {"patience": True, "max_iter": 27, "tol": 0.05}),
    ("hyperband", {"patience": 3, "test_size": 0.2}),
    ("hyperband", {"max_iter": 1}),
]


def made(kind: str, estimator: Any = None, **options: Any) -> Any:
    """Make a search."""
    search, own = KINDS[kind]
    space = GRID if options.get("n_initial_parameters") == "grid" else SPACE
    return search(estimator or Curve(), space, **(own | options))


def assert_equal_dask_ml(
    search: Any, client: Client, data: Any = DATA, **fit_params: Any
) -> Any:
    """Fit a search both ways, and compare all that can be; return ours."""
    expected = fitted_by_dask_ml(clone(search), *data, **fit_params)

    found = DaskSearchCV(search, client=client).fit(*data, **fit_params)

    assert type(found.search_) is type(search)
    assert outcome_of(found.search_) == outcome_of(expected)
    return found.search_


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("kind", KINDS)
def test_decisions_equal_those_of_dask_ml(kind: str, seed: int, client: Client) -> None:
    """Which models go on, on which blocks of data, and what is said of them afterwards."""
    assert_equal_dask_ml(made(kind, random_state=seed), client)


@pytest.mark.parametrize(
    ("kind", "options"), VARIANTS, ids=lambda one: one if isinstance(one, str) else None
)
def test_each_parameter_means_what_it_means_in_dask_ml(
    kind: str, options: dict[str, Any], client: Client
) -> None:
    """patience, tol, fits_per_score, test_size, grids, rates."""
    assert_equal_dask_ml(made(kind, random_state=3, **options), client)


@pytest.mark.parametrize("kind", KINDS)
def test_models_of_scikit_learn_are_trained_as_by_dask_ml(
    kind: str, client: Client
) -> None:
    """To the last digit; a scorer and further arguments of partial_fit included."""
    kinds, own = KINDS[kind]
    space = {"alpha": loguniform(1e-5, 1), "penalty": ["l1", "l2"]}
    model = SGDClassifier(random_state=0)
    search = kinds(model, space, random_state=0, scoring="f1", **own)

    found = assert_equal_dask_ml(search, client, classes=[0, 1])

    assert found.scorer_._score_func.__name__ == "f1_score"
    assert 0 <= found.score(*DATA) <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_generator_is_used_in_the_order_of_dask_ml(kind: str, client: Client) -> None:
    """One RandomState splits the data, draws parameters and shuffles blocks."""
    search, reference = (
        made(kind, random_state=np.random.RandomState(7)) for _ in range(2)
    )
    expected = fitted_by_dask_ml(reference, *DATA)

    found = DaskSearchCV(search, client=client).fit(*DATA)

    assert outcome_of(found.search_) == outcome_of(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_in_memory_are_one_block_as_in_dask_ml(
    kind: str, client: Client
) -> None:
    """dask-ml makes one block of a NumPy array."""
    found = assert_equal_dask_ml(made(kind, random_state=1), client, (X, y))

    assert len(set(found.best_estimator_.blocks_)) == 1


@pytest.mark.parametrize("kind", ["halving", "hyperband"])
def test_as_many_calls_are_made_as_the_metadata_promises(
    kind: str, client: Client
) -> None:
    """Of partial_fit, and as many models."""
    search = made(kind, random_state=0)

    found = DaskSearchCV(search, client=client).fit(*DATA).search_

    calls = [one[-1]["partial_fit_calls"] for one in found.model_history_.values()]
    assert sum(calls) == search.metadata["partial_fit_calls"]
    assert len(calls) == search.metadata["n_models"]
    for key in ("n_models", "partial_fit_calls"):
        assert found.metadata_[key] == search.metadata[key]
