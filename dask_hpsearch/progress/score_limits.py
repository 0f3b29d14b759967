"""The range of scores that a picture shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FENCE = 3.0  # interquartile ranges below the lower quartile: worse scores are clipped


def score_limits(scores: NDArray[np.float64]) -> tuple[float, float]:
    """Return the range of scores to display: outliers among the bad ones are left out.

    Otherwise one candidate that learned nothing flattens the differences of all others.
    """
    finite = scores[np.isfinite(scores)]
    if not len(finite):
        return 0.0, 1.0
    lower, upper = np.quantile(finite, [0.25, 0.75])
    fence = lower - _FENCE * (upper - lower)
    kept = finite[finite >= fence] if upper > lower else finite
    low, high = float(kept.min()), float(kept.max())
    if low == high:
        pad = abs(low) * 0.05 or 0.05
        return low - pad, high + pad
    return low, high
