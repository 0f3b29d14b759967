"""Parameters and results in the journal."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from dask_hpsearch.parameters import decode_result, digest_of, encode_result, shown

VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
)


@given(parameters=st.dictionaries(st.text(), VALUES, max_size=5), data=st.data())
def test_order_does_not_matter(parameters: dict[str, Any], data: Any) -> None:
    """A digest is of the values alone."""
    names = data.draw(st.permutations(list(parameters)))

    assert digest_of({name: parameters[name] for name in names}) == digest_of(
        parameters
    )


@given(a=st.floats(allow_nan=False), b=st.floats(allow_nan=False))
def test_numbers_have_one_digest_if_they_are_equal(a: float, b: float) -> None:
    """The last digit counts; the type does not."""
    assert (digest_of({"x": a}) == digest_of({"x": np.float64(b)})) == (a == b)


def test_an_integer_is_its_float() -> None:
    """1 and 1.0 are the same setting; True and "1" are others."""
    one, real, true, text = ({"x": value} for value in (1, 1.0, True, "1"))

    assert digest_of(one) == digest_of(real)
    assert len({digest_of(one), digest_of(true), digest_of(text)}) == 3


def test_estimators_are_told_by_their_parameters() -> None:
    """Steps of a pipeline as values of a search."""
    same = digest_of({"step": LogisticRegression(C=2)})

    assert same == digest_of({"step": LogisticRegression(C=2.0)})
    assert same != digest_of({"step": LogisticRegression(C=3)})
    assert same != digest_of({"step": DecisionTreeClassifier()})


@given(
    score=st.floats(),
    times=st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)),
    error=st.none() | st.text(),
)
def test_results_keep_their_last_digit(
    score: float, times: tuple[float, float], error: str | None
) -> None:
    """What JSON holds comes back equal, NaN and infinities included."""
    result = {
        "fit_error": error,
        "test_scores": {"a": np.float64(score), "b": 1},
        "n_test_samples": np.int64(30),
        "fit_time": times[0],
        "score_time": times[1],
    }

    decoded = decode_result(json.loads(json.dumps(encode_result(result))))

    a = decoded["test_scores"].pop("a")
    assert a == score or (math.isnan(a) and math.isnan(score))
    assert decoded == {**result, "test_scores": {"b": 1}}


def test_odd_results_are_pickled() -> None:
    """Scores of any type come back."""
    result = {"test_scores": {"matrix": np.eye(2)}, "fit_error": None}

    decoded = decode_result(json.loads(json.dumps(encode_result(result))))

    np.testing.assert_array_equal(decoded["test_scores"]["matrix"], np.eye(2))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(0.5), 0.5),
        ("x" * 500, 200),
        (LogisticRegression(), "LogisticRegression()"),
    ],
)
def test_people_see_short_values(value: Any, expected: Any) -> None:
    """Numbers stay numbers, anything else is short text."""
    seen = shown({"p": value})["p"]

    assert (len(seen) if isinstance(expected, int) else seen) == expected
