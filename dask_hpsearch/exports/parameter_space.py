"""The space of a search, whatever its class, as Optuna's distributions."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dask_hpsearch.journal.serialization import shown_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Attributes that hold the space: scikit-learn's, skopt's and dask-ml's.
_ATTRIBUTES = ("param_distributions", "param_grid", "search_spaces", "parameters")
_LOGARITHMIC = ("loguniform", "reciprocal")  # SciPy's names of one distribution
_TAIL = 1e-6  # of an unbounded distribution, beyond the range that is shown
_DECADES = 100.0


def space_of(search: Any) -> dict[str, list[Any]]:
    """Return what a search draws each parameter from.

    Parameters
    ----------
    search : object
        A search of scikit-learn, skopt, Optuna or dask-ml.

    Returns
    -------
    dict of str to list
        Lists and distributions as the search has them: one for each of its spaces that has
        the parameter. Empty if the class is not known.
    """
    for name in _ATTRIBUTES:
        spaces = getattr(search, name, None)
        if spaces is not None:
            break
    else:
        return {}
    of_skopt = name == "search_spaces"
    found: dict[str, list[Any]] = {}
    for space in [spaces] if hasattr(spaces, "items") else list(spaces):
        # skopt's may have a number of candidates beside them.
        own = space[0] if isinstance(space, tuple) else space
        for parameter, spec in own.items():
            values = _dimension_of(spec) if of_skopt else spec
            found.setdefault(str(parameter), []).append(values)
    return found


def distributions_of(
    space: Mapping[str, Sequence[Any]], values: Mapping[str, Sequence[Any]]
) -> dict[str, Any]:
    """Return an Optuna distribution for each parameter.

    Lists are categories. Of a distribution that cannot be read, and of parameters that the
    space does not have, the values decide.

    Parameters
    ----------
    space : mapping of str to sequence
        As `space_of` returns it.
    values : mapping of str to sequence
        Values of the candidates, by parameter, as a journal has them.
    """
    found = {}
    for name, known in values.items():
        drawn = _of_drawn(space[name]) if name in space else None
        found[name] = _of_values(known) if drawn is None else drawn
    return found


def with_value(distribution: Any, value: Any) -> Any:
    """Return a distribution that has a value: wider, if it lies outside."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if isinstance(distribution, CategoricalDistribution):
        choices = distribution.choices
        return (
            distribution
            if any(_same(value, one) for one in choices)
            else CategoricalDistribution([*choices, value])
        )
    if not _is_number(value) or distribution.low <= value <= distribution.high:
        return distribution
    low, high = min(distribution.low, value), max(distribution.high, value)
    log = distribution.log and low > 0
    if isinstance(distribution, IntDistribution) and value == int(value):
        return IntDistribution(int(low), int(high), log=log)
    return FloatDistribution(float(low), float(high), log=log)


def _of_drawn(specs: Sequence[Any]) -> Any:
    """Return the distribution of one or several lists and distributions; None if unknown."""
    if all(_is_list(one) for one in specs):
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(_distinct(one for each in specs for one in each))
    known = [None if _is_list(one) else _of_distribution(one) for one in specs]
    return known[0] if len(known) == 1 or _all_equal(known) else None


def _is_list(spec: Any) -> bool:
    """Whether a parameter has listed values: a sequence, or an array."""
    return isinstance(spec, Sequence) or hasattr(spec, "tolist")


def _dimension_of(spec: Any) -> Any:
    """Return one of skopt's dimensions, which may be given as a list or a tuple."""
    try:
        from skopt.space import check_dimension

        return check_dimension(spec)
    except (ImportError, TypeError, ValueError):
        return None  # the values decide


def _of_distribution(spec: Any) -> Any:
    """Return the distribution of what a search draws from; None if it is not known."""
    if hasattr(spec, "single") and hasattr(spec, "to_internal_repr"):
        return _plain_categories(spec)  # Optuna's own
    if hasattr(spec, "rvs") and hasattr(spec, "dist"):
        return _of_scipy(spec)
    return _of_skopt(spec) if hasattr(spec, "transformed_bounds") else None


def _plain_categories(distribution: Any) -> Any:
    from optuna.distributions import CategoricalDistribution

    if isinstance(distribution, CategoricalDistribution):
        return CategoricalDistribution(_distinct(distribution.choices))
    return distribution


def _of_scipy(frozen: Any) -> Any:
    """Return the distribution of a frozen one of SciPy; its tails are cut."""
    from optuna.distributions import FloatDistribution, IntDistribution

    low, high = (float(one) for one in frozen.support())
    low = float(frozen.ppf(_TAIL)) if math.isinf(low) else low
    high = float(frozen.ppf(1 - _TAIL)) if math.isinf(high) else high
    if not (math.isfinite(low) and math.isfinite(high)):
        return None
    if hasattr(frozen.dist, "pmf"):
        return IntDistribution(int(low), int(high))
    log = frozen.dist.name in _LOGARITHMIC and low > 0
    return FloatDistribution(low, high, log=log)


def _of_skopt(dimension: Any) -> Any:
    """Return the distribution of one of skopt's three kinds of dimensions."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if hasattr(dimension, "categories"):
        return CategoricalDistribution(_distinct(dimension.categories))
    log = dimension.prior == "log-uniform"
    if isinstance(dimension.low, numbers.Integral):
        return IntDistribution(int(dimension.low), int(dimension.high), log=log)
    return FloatDistribution(float(dimension.low), float(dimension.high), log=log)


def _of_values(values: Sequence[Any]) -> Any:
    """Return a distribution with the values that there are."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if not values or not all(map(_is_number, values)):
        return CategoricalDistribution(_distinct(values) or [None])
    low, high = min(values), max(values)
    if not (math.isfinite(low) and math.isfinite(high)):
        return CategoricalDistribution(_distinct(values))
    log = low > 0 and high / low >= _DECADES
    if all(isinstance(one, int) for one in values):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(float(low), float(high), log=log)


def _distinct(values: Iterable[Any]) -> list[Any]:
    """Return values as a journal has them, each once."""
    found: list[Any] = []
    for value in values:
        shown = shown_value(value)
        if not any(_same(shown, one) for one in found):
            found.append(shown)
    return found


def _same(one: Any, other: Any) -> bool:
    """Whether two values are one category for Optuna, which takes True for 1."""
    return bool(one == other) or (_is_nan(one) and _is_nan(other))


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _all_equal(values: Sequence[Any]) -> bool:
    return all(one is not None and one == values[0] for one in values)
