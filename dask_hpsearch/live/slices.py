"""The scores of candidates over each parameter that varies, as charts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from dask_hpsearch.live.candidates import Status
from dask_hpsearch.live.charts import slice_chart
from dask_hpsearch.live.state import shown_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dask_hpsearch.live.candidates import CandidateProgress

_MOST_CHARTS = 6
_MOST_POINTS = 400
_LEAST_RATIO = 100.0
_MOST_CATEGORIES = 12


def slice_charts(progress: CandidateProgress) -> list[tuple[str, str]]:
    """Draw each of the first parameters that vary.

    Returns
    -------
    list of (str, str)
        Name and SVG.
    """
    found = progress.candidates()
    complete = found.compares & (found.status == Status.COMPLETE)
    rows = np.flatnonzero(complete & np.isfinite(found.scores))
    if len(rows) > _MOST_POINTS:  # all of the best, and some of the others
        order = rows[np.argsort(-found.scores[rows], kind="stable")]
        others = order[np.linspace(50, len(order) - 1, _MOST_POINTS - 50).astype(int)]
        rows = np.sort(np.append(order[:50], others))
    params = [
        progress.params_of(int(found.calls[row]), int(found.numbers[row]))
        for row in rows.tolist()
    ]
    scores = found.scores[rows].tolist()
    charts = []
    for name in _varied(params)[:_MOST_CHARTS]:
        known = [place for place, one in enumerate(params) if name in one]
        values = [params[place][name] for place in known]
        numbers = _numbers(values)
        chart = slice_chart(
            name,
            [shown_value(one) for one in values],
            [scores[place] for place in known],
            numbers,
            log=numbers is not None and _is_logarithmic(numbers),
        )
        charts.append((name, chart))
    return charts


def _varied(params: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of parameters with several values that a chart has room for."""
    varied = []
    for name in dict.fromkeys(name for one in params for name in one):
        values = [one[name] for one in params if name in one]
        n_texts = len({shown_value(one) for one in values})
        if n_texts > 1 and (_numbers(values) or n_texts <= _MOST_CATEGORIES):
            varied.append(name)
    return varied


def _numbers(values: Sequence[Any]) -> list[float] | None:
    """Return values as numbers; None if some are not finite numbers."""
    if any(isinstance(one, bool) or not isinstance(one, int | float) for one in values):
        return None
    numbers = [float(one) for one in values]
    return numbers if all(map(np.isfinite, numbers)) else None


def _is_logarithmic(numbers: Sequence[float]) -> bool:
    """Whether positive numbers of several decades lie in the middle of their logarithms."""
    low, high = min(numbers), max(numbers)
    if low <= 0 or high / low < _LEAST_RATIO:
        return False
    median = float(np.median(numbers))
    middle, middle_of_logs = (low + high) / 2, math.sqrt(low * high)
    return abs(median - middle_of_logs) < abs(median - middle)
