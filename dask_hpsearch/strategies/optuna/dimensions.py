"""skopt's dimensions as Optuna's distributions, and values of one as those of the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dask_hpsearch.exceptions import UnsupportedSearchError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_LOGARITHMIC = "log-uniform"
_KEPT = bool, int, float, str  # by Optuna's storages


class Dimensions:
    """The dimensions of a search space.

    A category is itself for Optuna, so that samplers such as `GridSampler` may name it. It is
    its ordinal if the dimension has one that Optuna's storages cannot keep (Optuna would
    warn of it), or two that are equal.

    Parameters
    ----------
    names : sequence of str
        Of the parameters.
    dimensions : sequence of skopt.space.Dimension

    Attributes
    ----------
    distributions : dict of str to optuna.distributions.BaseDistribution

    Raises
    ------
    UnsupportedSearchError
        If a dimension is of another kind than skopt's three.
    """

    def __init__(self, names: Sequence[str], dimensions: Sequence[Any]) -> None:
        self._names = list(names)
        self._dimensions = list(dimensions)
        self.distributions = {
            name: _distribution_of(one)
            for name, one in zip(self._names, self._dimensions, strict=True)
        }

    def point_of(self, params: Mapping[str, Any]) -> list[Any]:
        """Return a trial's parameters as a point of the space."""
        return [
            one.categories[params[name]] if _has_ordinals(one) else params[name]
            for name, one in zip(self._names, self._dimensions, strict=True)
        ]

    def params_of(self, point: Sequence[Any]) -> dict[str, Any]:
        """Return a point as the parameters of a trial."""
        return {
            name: _ordinal_of(value, one) if _has_ordinals(one) else value
            for name, one, value in zip(
                self._names, self._dimensions, point, strict=True
            )
        }


def _has_ordinals(dimension: Any) -> bool:
    """Whether a dimension's categories are their ordinals for Optuna."""
    categories = getattr(dimension, "categories", None)
    if categories is None:
        return False
    if not all(one is None or isinstance(one, _KEPT) for one in categories):
        return True
    # Each once: 1 and True are equal, and NaN is not equal to itself.
    return any(sum(one == other for other in categories) != 1 for one in categories)


def _ordinal_of(value: Any, dimension: Any) -> int:
    """Return which category a value is: the same object, or else an equal one."""
    categories = list(dimension.categories)
    for at, category in enumerate(categories):
        if category is value:
            return at
    return int(categories.index(value))


def _distribution_of(dimension: Any) -> Any:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )
    from skopt.space import Categorical, Integer, Real

    if isinstance(dimension, Categorical):
        ordinals = range(len(dimension.categories))
        has_ordinals = _has_ordinals(dimension)
        return CategoricalDistribution(
            ordinals if has_ordinals else dimension.categories
        )
    if isinstance(dimension, Integer):
        low, high = int(dimension.low), int(dimension.high)
        return IntDistribution(low, high, log=dimension.prior == _LOGARITHMIC)
    if isinstance(dimension, Real):
        bounds = float(dimension.low), float(dimension.high)
        return FloatDistribution(*bounds, log=dimension.prior == _LOGARITHMIC)
    msg = (
        f"sampler=... cannot draw from {dimension!r}: use skopt's Real, Integer or "
        "Categorical, or leave sampler out"
    )
    raise UnsupportedSearchError(msg)
