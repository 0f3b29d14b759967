"""A smooth surface of scores over two parameters."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from dask_hpsearch.plots.search_data import FloatArray

_LENGTHS = (0.15, 0.3, 0.6, 1.2)
_NOISES = (1e-3, 1e-2, 1e-1, 1.0)
_MOST_POINTS = 500  # its time grows with the third power


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """The mean of a Gaussian process through scores.

    Attributes
    ----------
    points : ndarray of shape (n_points, n_features)
        Each feature from 0 to 1.
    weights : ndarray of shape (n_points,)
    center, low, high : float
        Mean and range of the scores.
    length : float
        Length scale of the kernel, a radial basis function.
    """

    points: FloatArray
    weights: FloatArray
    center: float
    low: float
    high: float
    length: float

    @classmethod
    def through(cls, points: FloatArray, scores: FloatArray) -> Surface:
        """Fit a surface; leave-one-out errors choose its length scale and its noise.

        The error of a point that is left out follows from the fit of all points: see
        Rasmussen and Williams, Gaussian Processes for Machine Learning, section 5.4.2.
        """
        step = -(-len(points) // _MOST_POINTS)
        points, scores = points[::step], scores[::step]
        center, spread = float(scores.mean()), float(scores.std()) or 1.0
        values = (scores - center) / spread
        best_error, best = np.inf, (_LENGTHS[-1], np.zeros(len(points)))
        for length, noise in itertools.product(_LENGTHS, _NOISES):
            kernel = _kernel(points, points, length) + noise * np.eye(len(points))
            inverse = np.linalg.inv(kernel)
            weights = inverse @ values
            error = float(np.mean((weights / np.diag(inverse)) ** 2))
            if error < best_error:
                best_error, best = error, (length, weights)
        length, weights = best
        return cls(
            points=points,
            weights=weights * spread,
            center=center,
            low=float(scores.min()),
            high=float(scores.max()),
            length=length,
        )

    def at(self, points: FloatArray) -> FloatArray:
        """Return the surface at points, within the range of the scores."""
        found = self.center + _kernel(points, self.points, self.length) @ self.weights
        clipped: FloatArray = np.clip(found, self.low, self.high)
        return clipped


def _kernel(first: FloatArray, second: FloatArray, length: float) -> FloatArray:
    squares = ((first[:, np.newaxis, :] - second[np.newaxis, :, :]) ** 2).sum(axis=2)
    found: FloatArray = np.exp(-squares / (2 * length**2))
    return found
