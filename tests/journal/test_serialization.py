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

from dask_hpsearch.journal.serialization import (
    decode_result,
    digest_of,
    encode_result,
    is_of,
    shown,
)
from dask_hpsearch.progress.text import shorten_params
from dask_hpsearch.safe_text import repr_of

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


class Awkward:
    """A value that fails, in a way of its own, when it is looked into."""

    def __init__(self, way: str) -> None:
        self.way = way

    def __repr__(self) -> str:
        if self.way == "text of another time":
            self.times = getattr(self, "times", 0) + 1
            return f"asked {self.times} times"
        return self._fail("repr")

    def __str__(self) -> str:
        return self._fail("str")

    def __eq__(self, other: object) -> bool:
        self._fail("equality")
        return self is other

    __hash__ = None  # type: ignore[assignment]

    def get_params(self, *, deep: bool = True) -> dict[str, Any]:
        """Return none, at least."""
        self._fail("parameters")
        return {}

    def _fail(self, way: str) -> str:
        if self.way in {way, "all"}:
            raise RuntimeError(way)
        return way


def _recursive() -> list[Any]:
    loop: list[Any] = [1]
    loop.append(loop)
    return loop


AWKWARD = {
    "no repr": Awkward("repr"),
    "no parameters": Awkward("parameters"),
    "no equality": Awkward("equality"),
    "nothing": Awkward("all"),
    "another text each time": Awkward("text of another time"),
    "in a dict": {"a": {"b": Awkward("all")}},
    "keys of one text": {1: 0.5, "1": None},
    "None and its name": {None: 1, "None": "x"},
    "NaN as keys": {float("nan"): 1, np.float64("nan"): "x"},
    "a long integer": 10**5000,
    "a long integer within": {"n": [10**5000]},
    "in itself": _recursive(),
    "a structure": np.array((1, 2.0), dtype=[("a", int), ("b", float)])[()],
    "objects": np.array([Awkward("all"), None], dtype=object),
    "a set": {"a", "b", "c"},
    "a surrogate": "\ud800",
}


@pytest.mark.parametrize("kind", AWKWARD)
def test_no_value_ends_a_search(kind: str) -> None:
    """Whatever fails: there is a digest, always the same, and a text for people."""
    parameters = {"x": AWKWARD[kind], "n": 1}

    assert is_of(digest_of(parameters), parameters)
    assert digest_of(parameters) != digest_of(parameters | {"n": 2})
    json.dumps(shown(parameters))
    repr_of(parameters)
    shorten_params(parameters)


def test_keys_of_one_text_are_told_apart() -> None:
    """Which of the two has which value counts."""
    one, other = ({"x": {1: a, "1": b}} for a, b in ((0.5, 2.0), (2.0, 0.5)))

    assert digest_of(one) != digest_of(other)


def test_long_integers_are_told_apart() -> None:
    """To the last digit, though nobody is shown it."""
    assert digest_of({"x": 10**5000}) != digest_of({"x": 10**5000 + 1})


def test_a_set_has_one_digest_as_far_as_a_resume_goes() -> None:
    """Its text is in the order of hashes, which another process has otherwise."""
    sets = {"x": {"a", "b"}}

    assert is_of("0" * 16, sets)
    assert not is_of("0" * 16, {"x": ["a", "b"], "f": len, "t": np.float32})
