from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import KFold
from sklearn.tree import DecisionTreeClassifier

from tests.oracle.comparison import without_frames
from tests.oracle.structure import difference


def masked(values: list[float], mask: list[bool]) -> np.ma.MaskedArray:
    """Make an array with a mask."""
    return np.ma.MaskedArray(values, mask=mask)


def stump(X: Any) -> DecisionTreeClassifier:
    """Fit a tree."""
    return DecisionTreeClassifier(max_depth=1).fit(X, [0, 0, 1])


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (1, 1.0),
        (np.float64(1), 1.0),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (np.array([1, 2]), np.array([1.0, 2.0])),
        (np.array([1, 2], object), np.array([1, 2.0], object)),
        (masked([1, 2], [False, True]), masked([1, 2], [False, False])),
        ({"mean_fit_time": np.array([1.0])}, {"mean_fit_time": np.array([np.nan])}),
        ({"mean_fit_time": np.array([1.0])}, {"mean_fit_time": np.array([-1.0])}),
        ({"mean_test_score": np.array([1.0])}, {"mean_test_score": np.array([1.1])}),
        (KFold(3), KFold(4)),
        (np.random.RandomState(1), np.random.RandomState(2)),
        (stump([[0], [1], [2]]), stump([[0], [1], [3]])),
    ],
)
def test_differences_are_found(left: Any, right: Any) -> None:
    """The comparison is as strict as the oracle tests need it."""
    assert difference(left, right) is not None


@pytest.mark.parametrize(
    "make",
    [
        lambda: {"a": [np.nan, float("nan")], "std_score_time": np.random.rand(3)},  # noqa: NPY002
        lambda: masked([1, np.random.rand()], [False, True]),  # noqa: NPY002
        lambda: np.array([KFold(3), None, {"x": (1,)}], object),
        lambda: np.random.RandomState(1),
        lambda: stump([[0], [1], [2]]),
    ],
    ids=["times", "masked", "objects", "state", "tree"],
)
def test_equal_objects_have_no_difference(make: Any) -> None:
    """Times, and what a mask hides, may differ."""
    assert difference(make(), make()) is None


def test_cycles_end() -> None:
    """Objects may contain themselves."""
    left: list[Any] = [1]
    right: list[Any] = [1]
    left.append(left)
    right.append(right)

    assert difference(left, right) is None


def test_frames_are_dropped_from_quoted_errors() -> None:
    """What went through which file does not matter; the error itself does."""
    text = (
        "2 fits failed:\nTraceback (most recent call last):\n"
        '  File "a.py", line 1, in f\n    g()\n    ~^^\nValueError: bad\n'
    )

    assert without_frames(text) == (
        "2 fits failed:\nTraceback (most recent call last):\nValueError: bad\n"
    )
