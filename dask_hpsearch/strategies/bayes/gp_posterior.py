"""A Gaussian process that counts pending points as evaluated.

A pending point has the value that the model expects there ("kriging believer"). That
changes no expected value, only the variance: it is one more row of a Cholesky factor (Rasmussen and Williams, Gaussian Processes for Machine Learning, section
2.2 and appendix A.3), where fitting the model again takes thirty times as long.

Of skopt's ``GaussianProcessRegressor`` this uses ``kernel_``, ``noise_``, ``alpha`` and
``normalize_y``.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular

_JITTERS = (1e-10, 1e-8, 1e-6, 1e-4)
_LEAST_VARIANCE = 1e-12


class Posterior:
    """A Gaussian process with the hyperparameters of a fitted one.

    Parameters
    ----------
    learnt : skopt.learning.GaussianProcessRegressor
        Fitted to any data.
    X : ndarray of shape (n_samples, n_features)
        Evaluated points, transformed.
    values : list of float
    """

    def __init__(self, learnt: Any, X: Any, values: list[float]) -> None:
        self._kernel = learnt.kernel_  # skopt has set its noise to zero
        alpha = learnt.alpha if np.ndim(learnt.alpha) == 0 else 0.0
        self._noise = float(learnt.noise_ or 0.0) + float(alpha)
        y = np.asarray(values, dtype=float)
        self._mean, self._scale = 0.0, 1.0
        if learnt.normalize_y:
            self._mean, self._scale = float(y.mean()), float(y.std()) or 1.0
        self._X = np.asarray(X)
        self._factor = self._factor_of(self._kernel(self._X))
        y = (y - self._mean) / self._scale
        self._weights = cho_solve((self._factor, True), y)

    def _factor_of(self, K: Any) -> Any:
        """Factorise, with more noise if points nearly coincide."""
        for more in _JITTERS:
            self._noise += more
            noisy = K + self._noise * np.eye(len(K))
            with contextlib.suppress(np.linalg.LinAlgError):
                return cholesky(noisy, lower=True)
        return cholesky(noisy, lower=True)

    def predict(self, X: Any, *, return_std: bool = True) -> tuple[Any, Any]:
        """Return mean and standard deviation at points, as scikit-learn's models do."""
        del return_std
        watched = self.watch(X)
        return watched.mean, watched.std

    def believe(self, x: Any) -> float:
        """Count a point as evaluated; return its believed value."""
        watched = self.watch(x.reshape(1, -1))
        self._add(x, watched)
        return float(watched.mean[0])

    def watch(self, X: Any) -> Watched:
        """Return mean and deviation at points, updated as points are believed."""
        K = self._kernel(self._X, X)
        n_known = len(self._weights)
        mean = self._weights @ K[:n_known] * self._scale + self._mean
        rows = solve_triangular(self._factor, K, lower=True, check_finite=False)
        variance = self._kernel.diag(X) - np.einsum("ij,ij->j", rows, rows)
        return Watched(np.asarray(X), mean, rows, variance, self._scale)

    def believe_watched(self, x: Any, watched: Watched) -> float:
        """Believe a point, and update the watched points."""
        at = self.watch(x.reshape(1, -1))
        deviation = np.sqrt(max(at.variance[0], 0.0) + self._noise)
        K = self._kernel(x.reshape(1, -1), watched.X)[0]
        row = (K - at.rows[:, 0] @ watched.rows) / deviation
        watched.rows = np.vstack([watched.rows, row])
        watched.variance = watched.variance - row**2
        self._add(x, at)
        return float(at.mean[0])

    def _add(self, x: Any, at: Watched) -> None:
        n = len(self._factor)
        factor = np.zeros((n + 1, n + 1))
        factor[:n, :n] = self._factor
        factor[n, :n] = at.rows[:, 0]
        factor[n, n] = np.sqrt(max(at.variance[0], 0.0) + self._noise)
        self._factor = factor
        self._X = np.vstack([self._X, x])


class Watched:
    """The posterior at some points.

    Attributes
    ----------
    X : ndarray of shape (n_points, n_features)
    mean : ndarray of shape (n_points,)
    rows : ndarray of shape (n_known, n_points)
        Covariances with the known points, in terms of the posterior's factor.
    variance : ndarray of shape (n_points,)
        In terms of the kernel.
    """

    def __init__(
        self, X: Any, mean: Any, rows: Any, variance: Any, scale: float
    ) -> None:
        self.X = X
        self.mean = mean
        self.rows = rows
        self.variance = variance
        self._scale = scale

    @property
    def std(self) -> Any:
        """Standard deviation at the points, in units of the values."""
        return np.sqrt(np.maximum(self.variance, _LEAST_VARIANCE)) * self._scale

    def predict(self, _X: Any, *, return_std: bool = True) -> tuple[Any, Any]:
        """Return mean and standard deviation at these very points."""
        del return_std
        return self.mean, self.std
