"""The values of a parameter get the axis that suits them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import loguniform, randint, uniform

from dask_hpsearch.plots.parameter_scale import (
    ParameterScale,
    digits_for,
    number_text,
    short_names,
)
from dask_hpsearch.plots.search_data import MISSING


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0.1, 1.0, 10.0, 100.0], "log"),
        ([0.001, 1.0], "log"),
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], "linear"),
        ([10, 20, 50, 100], "log"),
        ([0.2, 0.4, 0.9], "linear"),
        ([0, 1, 10, 100], "linear"),
        ([-1.0, 1.0, 10.0], "linear"),
        ([5], "linear"),
        ([None, 1, 2], "category"),
        ([True, False], "category"),
        (["sqrt", "log2", 0.5], "category"),
        ([(10,), (10, 10)], "category"),
        ([np.float32(0.1), np.int64(3)], "linear"),
        ([float("inf"), 1.0], "category"),
    ],
)
def test_values_choose_their_scale(values: list[Any], kind: str) -> None:
    """Logarithmic if their logarithms are spread more evenly than they are."""
    assert ParameterScale.of("a", values).kind == kind


@pytest.mark.parametrize(
    ("distribution", "kind"),
    [
        (loguniform(1e-4, 1e0), "log"),
        (loguniform(1, 100), "log"),
        (uniform(0, 1000), "linear"),
        (randint(1, 1000), "linear"),
    ],
)
@pytest.mark.parametrize("seed", range(5))
def test_draws_show_their_distribution(distribution: Any, kind: str, seed: int) -> None:
    """A range of three decades is not logarithmic for that alone."""
    drawn = distribution.rvs(size=60, random_state=seed)

    assert ParameterScale.of("a", drawn).kind == kind


def test_categories_are_in_order_and_missing_ones_have_no_place() -> None:
    """None, truth values, numbers, then texts."""
    values = ["b", None, 3, "a", 0.5, True, MISSING]

    scale = ParameterScale.of("a", values)

    assert scale.categories == ("None", "True", "0.5", "3", "a", "b")
    np.testing.assert_array_equal(scale.positions(values), [5, 0, 3, 4, 2, 1, np.nan])


@given(st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=20, unique=True))
def test_parts_of_a_range_are_the_positions_again(values: list[float]) -> None:
    """On a linear scale and on a logarithmic one."""
    scale = ParameterScale.of("a", values)

    units = scale.unit(scale.positions(values))

    assert units.min() == pytest.approx(0.0, abs=1e-9)
    assert units.max() == pytest.approx(1.0)
    np.testing.assert_allclose(scale.at(units), values, rtol=1e-6)


def test_few_values_are_labelled_and_many_are_not() -> None:
    """As far as there is room."""
    assert ParameterScale.of("a", [1, 10, 100]).ticks == (1, 10, 100)
    assert ParameterScale.of("a", [1, 1.2, 1000]).ticks == ()
    assert ParameterScale.of("a", range(50)).ticks == ()


def test_names_lose_the_steps_that_they_do_not_need() -> None:
    """What two have in common at their end needs more."""
    names = ["model__C", "prep__num__strategy", "prep__cat__strategy", "C2"]

    assert list(short_names(names).values()) == [
        "C",
        "num__strategy",
        "cat__strategy",
        "C2",
    ]
    assert short_names(["a__b", "b"]) == {"a__b": "a__b", "b": "b"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.05, "0.05"),
        (20000, "20000"),
        (12345.6, "12346"),
        (1e7, "1e7"),
        (1e-5, "1e-5"),
        (-93_720_000.0, "-9.372e7"),
    ],
)
def test_numbers_are_short_and_have_exponents_only_if_needed(
    value: float, text: str
) -> None:
    """Five digits are easier to read than an exponent."""
    assert number_text(value) == text


def test_close_numbers_get_enough_digits_to_differ() -> None:
    """Scores near 1 are not all called 1."""
    scores = [0.999991, 0.9999915, 0.999992]
    digits = digits_for(scores[0], scores[-1])

    assert len({number_text(one, digits=digits) for one in scores}) == len(scores)
    assert digits_for(0.5, 0.9) == digits_for(0.5, 0.5) == 4


@pytest.mark.parametrize(("low", "high"), [(2, 30), (0.02, 2), (1e-3, 1), (1e-9, 1e9)])
def test_a_logarithmic_axis_has_two_labels_at_least(low: float, high: float) -> None:
    """One number does not make a scale; more than six do not fit."""
    scale = ParameterScale.of("a", np.geomspace(low, high, 30))

    ticks = np.array(scale.tick_locator().tick_values(*scale.limits()))

    inside = (ticks >= scale.limits()[0]) & (ticks <= scale.limits()[1])
    assert scale.kind == "log"
    assert 2 <= inside.sum() <= 6


def test_powers_are_written_as_such_where_zeros_would_be_counted() -> None:
    """0.001 is plain, and a billionth is not."""
    plain = ParameterScale.of("a", np.geomspace(1e-3, 1e0, 30))
    wide = ParameterScale.of("a", np.geomspace(1e-9, 1e0, 30))

    assert plain.label_of(0.001) == "0.001"
    assert wide.label_of(0.001) == "$10^{-3}$"


def test_linear_ticks_are_round() -> None:
    """Multiples of 1, 2, 2.5 or 5, and whole for whole numbers."""
    depth = ParameterScale.of("a", range(2, 12))
    share = ParameterScale.of("a", np.linspace(0.41, 0.98, 30))

    assert list(depth.tick_locator().tick_values(2, 11)) == [2, 4, 6, 8, 10, 12]
    ticks = share.tick_locator().tick_values(0.41, 0.98)
    np.testing.assert_allclose(ticks, [0.4, 0.6, 0.8, 1.0])
