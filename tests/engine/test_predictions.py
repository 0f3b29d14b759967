"""How long fits take is predicted from their parameters."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dask_hpsearch.engine.predictions import MOST_SAMPLES, Encoder, fit_times


def predicted(
    known: list[tuple[dict[str, Any], float]], new: list[dict[str, Any]]
) -> list[float]:
    """Predict the seconds of new candidates from those of known ones."""
    encoder = Encoder()
    rows = [encoder.row(parameters) for parameters, _ in known]
    more = [encoder.row(parameters) for parameters in new]
    model = fit_times(rows, [seconds for _, seconds in known], encoder.numeric)
    seconds: list[float] = np.exp(model.predict(more)).tolist()
    return seconds


def test_times_in_proportion_to_a_number_are_predicted() -> None:
    """A forest of twice the trees takes twice the time, also between those that were seen."""
    known = [({"n_estimators": n}, n / 100) for n in (20, 50, 120, 400)]

    seconds = predicted(known, [{"n_estimators": 80}, {"n_estimators": 250}])

    np.testing.assert_allclose(seconds, [0.8, 2.5], rtol=0.25)


def test_numbers_and_categories_act_together() -> None:
    """The degree of a kernel matters for one kernel only."""
    rng = random.Random(0)

    def candidate() -> tuple[dict[str, Any], float]:
        kernel, c = rng.choice(["poly", "rbf"]), 10 ** rng.uniform(-3, 3)
        return {"kernel": kernel, "C": c}, (c**0.5 if kernel == "poly" else 1.0)

    known, new = [[candidate() for _ in range(n)] for n in (40, 100)]

    seconds = predicted(known, [parameters for parameters, _ in new])

    errors = np.abs(np.log(seconds) - np.log([took for _, took in new]))
    assert np.median(errors) < 0.3


def test_the_size_of_a_sequence_counts() -> None:
    """Hidden layers of a network are a tuple: more and larger ones take longer."""
    shapes = [(10,), (100,), (10, 10), (50, 50), (200, 100), (20, 20, 20)]
    known = [({"hidden_layer_sizes": shape}, sum(shape) / 100) for shape in shapes]

    small, large = predicted(
        known, [{"hidden_layer_sizes": (15, 5)}, {"hidden_layer_sizes": (150, 100)}]
    )

    assert small < 0.6
    assert large > 1.5


def test_a_parameter_may_be_missing_or_none() -> None:
    """Grids are lists with different parameters, and depth may be unlimited."""
    known: list[tuple[dict[str, Any], float]] = [
        ({"max_depth": 2}, 0.2),
        ({"max_depth": 4}, 0.4),
        ({"max_depth": None}, 3.0),
        ({"other": True}, 1.0),
    ]

    unlimited, shallow, unseen = predicted(
        known, [{"max_depth": None}, {"max_depth": 3}, {"new": "a"}]
    )

    assert shallow < unseen < unlimited


class Hostile:
    """Refuses to be compared, hashed or printed."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise ValueError

    def __repr__(self) -> str:
        raise ValueError


VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.lists(st.floats(), max_size=3)
    | st.builds(Hostile)
    | st.builds(lambda: np.zeros(3))
    | st.builds(lambda: np.float32(2))
)


@given(
    candidates=st.lists(
        st.dictionaries(st.sampled_from("abc"), VALUES), min_size=3, max_size=20
    ),
    seconds=st.lists(st.floats(0, 1e6), min_size=20, max_size=20),
)
def test_whatever_the_parameters_predictions_are_numbers(
    candidates: list[dict[str, Any]], seconds: list[float]
) -> None:
    """Values of any kind, and times of any length."""
    known = list(zip(candidates, seconds, strict=False))

    assert all(0 < one < math.inf for one in predicted(known, candidates))


def test_many_candidates_are_sampled() -> None:
    """The work does not grow with what is known."""
    encoder = Encoder()
    rows = [encoder.row({"n": n}) for n in range(1, 1000)]

    model = fit_times(rows, list(range(1, 1000)), encoder.numeric)

    assert len(model.weights) == MOST_SAMPLES
    assert np.exp(model.predict([rows[499]]))[0] == pytest.approx(500, rel=0.2)


def test_columns_do_not_grow_without_end() -> None:
    """Texts that are all different say nothing after a while."""
    encoder = Encoder()
    for number in range(1000):
        encoder.row({"name": f"name {number}"})

    assert len(encoder.numeric) < 100


@pytest.mark.parametrize(
    "values",
    [[1e-320, 2e-320, 3e-320], [-1e99, 1e99, 5e-324], [1e-300, 1e99, 1.0], [0, 0, 0]],
)
def test_extreme_numbers_warn_of_nothing(values: list[float]) -> None:
    """Whatever their logarithms and differences are, predictions are numbers."""
    candidates = [{"a": value} for value in values]

    seconds = predicted(list(zip(candidates, [1.0, 2.0, 3.0], strict=True)), candidates)

    assert all(0.1 < one < 10 for one in seconds)
