"""Fits as columns: nothing is lost, and they take little space."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dask_hpsearch.journal.events import FitEvent
from dask_hpsearch.journal.fit_columns import LEAST_ROWS, FitColumns, gathered

SCORES = st.one_of(
    st.floats(allow_nan=False),
    st.integers(-(2**70), 2**70),
    st.none(),
    st.booleans(),
    st.text(max_size=3),
    st.dictionaries(st.sampled_from("ab"), st.floats(allow_nan=False), max_size=2),
)


def fit(number: int, result: dict[str, Any], *, digest: str = "0" * 16) -> FitEvent:
    """Return a fit of some candidate and split."""
    return FitEvent(
        generation=0,
        time=1e9 + number / 7,
        call=1,
        candidate=number // 3,
        split=number % 3,
        digest=digest,
        result=result,
    )


def stored_and_read(fits: list[FitEvent]) -> list[FitEvent]:
    """Return fits as they are read from a journal, where they are in columns."""
    columns, others = gathered(fits)
    read = [FitColumns.from_json(json.loads(json.dumps(c.to_json()))) for c in columns]
    return sorted(
        [event for one in read for event in one.events()] + others,
        key=lambda event: event.time,
    )


@given(
    results=st.lists(
        st.dictionaries(st.sampled_from(["fit_error", "test_scores"]), SCORES),
        max_size=60,
    ),
    digests=st.lists(
        st.sampled_from(["0123456789abcdef", "f" * 16, "", "A" * 16]), min_size=60
    ),
)
def test_fits_are_read_as_they_were(
    results: list[dict[str, Any]], digests: list[str]
) -> None:
    """Whatever is in their results, with the types that it had."""
    fits = [fit(n, result, digest=digests[n % 60]) for n, result in enumerate(results)]

    read = stored_and_read(fits)

    assert read == fits
    assert list(map(repr, read)) == list(map(repr, fits))


@pytest.mark.parametrize("score", [math.nan, math.inf, -0.0, 2**62, 2**63, "x"])
def test_a_score_keeps_its_last_digit(score: Any) -> None:
    """And its sign, and whether it is a number at all."""
    fits = [fit(n, {"test_scores": score}) for n in range(LEAST_ROWS)]

    assert repr(stored_and_read(fits)) == repr(fits)


def test_scores_and_failures_are_read_at_once() -> None:
    """One of several scores, by its name; a text or nothing is no score."""
    several = [
        fit(n, {"test_scores": {"a": 0.5, "b": n / 8}, "fit_error": None})
        for n in range(LEAST_ROWS)
    ]
    failed = [
        fit(n, {"test_scores": None if n else 1, "fit_error": "Error" if n else None})
        for n in range(LEAST_ROWS)
    ]
    (one,), _ = gathered(several)
    (other,), _ = gathered(failed)

    np.testing.assert_array_equal(one.scores("b"), np.arange(LEAST_ROWS) / 8)
    assert np.isnan(one.scores("c")).all()
    assert not one.failed().any()
    np.testing.assert_array_equal(
        other.scores(None), [1.0] + [np.nan] * (LEAST_ROWS - 1)
    )
    assert other.failed().tolist() == [False] + [True] * (LEAST_ROWS - 1)


def test_few_fits_stay_events() -> None:
    """Columns of them would take more space."""
    fits = [fit(n, {}) for n in range(LEAST_ROWS - 1)]

    assert gathered(fits) == ([], fits)


def test_a_fit_in_columns_takes_few_bytes() -> None:
    """Less than half of what it takes as an event, though scores are at random."""
    rng = np.random.default_rng(0)
    fits = [
        fit(
            number,
            {
                "fit_error": None,
                "test_scores": float(rng.random()),
                "fit_time": float(rng.random()),
                "score_time": 0.001,
            },
            digest=rng.bytes(8).hex(),
        )
        for number in range(1000)
    ]
    (columns,), _ = gathered(fits)

    stored = len(json.dumps(columns.to_json()))

    assert stored < sum(len(json.dumps(one.to_json())) for one in fits) / 2


def test_invalid_columns_are_refused() -> None:
    """As invalid events are."""
    with pytest.raises(ValueError, match="invalid fits"):
        FitColumns.from_json({"e": "fits", "g": 0})
