"""Which first steps candidates have in common is found by their parameters."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.decomposition import PCA, KernelPCA
from sklearn.feature_selection import SelectKBest
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline

from dask_hpsearch.joblib_backend.shared_steps import SharedSteps

PIPELINE = Pipeline(
    [("reduce", PCA()), ("select", SelectKBest()), ("classify", GaussianNB())]
)


def shared(candidates: list[dict[str, Any]], *, known: bool = True) -> list[int]:
    """Return how many steps each candidate shares."""
    steps = SharedSteps(PIPELINE, candidates if known else None)
    return [steps.of(candidate)[0] for candidate in candidates]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([{"classify__var_smoothing": v} for v in (1, 2, 3)], [2, 2, 2]),
        ([{"select__k": v} for v in (1, 2, 2)], [1, 2, 2]),
        ([{"reduce__n_components": v} for v in (1, 2, 2)], [0, 2, 2]),
        ([{"reduce__n_components": v} for v in (1, 1.0, True)], [0, 0, 0]),
        ([{"reduce": PCA(2)}, {"reduce": PCA(2)}, {"reduce": KernelPCA()}], [2, 2, 0]),
        ([{"reduce": "passthrough"}, {"reduce": "passthrough"}], [2, 2]),
        ([{"steps": []}, {"steps": []}], [0, 0]),
        ([{"memory": "folder"}, {"memory": "folder"}], [0, 0]),
        ([{"select__k": 1}], [0]),
    ],
    ids=["last", "second", "first", "types", "steps", "left-out", "all", "own", "one"],
)
def test_candidates_share_the_steps_before_the_first_difference(
    values: list[dict[str, Any]], expected: list[int]
) -> None:
    """A step is shared if another candidate has the same up to there."""
    assert shared(values) == expected


def test_of_candidates_that_are_not_known_yet_any_may_share() -> None:
    """All steps but the last are worth to be kept."""
    assert shared([{"reduce__n_components": v} for v in (1, 2)], known=False) == [2, 2]


def test_only_pipelines_have_steps() -> None:
    """And only those without a memory of the user's own."""
    candidates = [{"C": 1}, {"C": 2}]
    own = Pipeline(PIPELINE.steps, memory="folder")

    for estimator in (GaussianNB(), own, [("reduce", PCA())]):
        assert SharedSteps(estimator, candidates).of({"C": 1}) == (0, None)


def test_a_group_has_one_split_and_one_value_of_what_it_shares() -> None:
    """Fits of other splits have other rows."""
    candidates = [
        {"select__k": k, "classify__var_smoothing": v} for k in (1, 2) for v in (1, 2)
    ]
    steps = SharedSteps(PIPELINE, candidates)

    groups = [
        steps.number(split, steps.of(candidate)[1])
        for candidate in candidates
        for split in ("a", "b")
    ]

    assert groups == [0, 1, 0, 1, 2, 3, 2, 3]


def test_values_of_any_kind_are_compared() -> None:
    """What has no pickle is the same if it is the same object."""
    function = lambda X: X  # noqa: E731
    values = [function, function, lambda X: X]

    assert shared([{"select__score_func": one} for one in values]) == [2, 2, 1]
