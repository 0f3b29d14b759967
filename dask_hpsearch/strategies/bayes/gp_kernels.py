"""Kernels of skopt's Gaussian processes: learnt ones, and a prior for learning."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize
from sklearn.base import clone

_SCALE, _SCALE_SPREAD = 0.3, 1.0


def with_noise(model: Any) -> Any:
    """Return a learnt kernel with its noise, which skopt removes for predictions."""
    from skopt.learning.gaussian_process.gpr import _param_for_white_kernel_in_Sum
    from skopt.learning.gaussian_process.kernels import WhiteKernel

    kernel = clone(model.kernel_)
    present, name = _param_for_white_kernel_in_Sum(kernel)
    if present and model.noise_ is not None:
        kernel.set_params(**{name: WhiteKernel(noise_level=model.noise_)})
    return kernel


def with_prior(kernel: Any) -> Any:
    """Return a kernel's optimizer that holds length scales near those of the space.

    By the likelihood of a dozen points alone, a parameter often seems not to matter, and
    the search does not vary it until later values show otherwise, which takes longer the
    more candidates are in flight. Points are scaled to a unit cube; a log-normal prior
    around a part of its diagonal is overruled by many points.
    """
    is_scale = [
        "length_scale" in one.name
        for one in kernel.hyperparameters
        for _ in range(0 if one.fixed else one.n_elements)
    ]

    def optimize(value_and_gradient: Any, initial_theta: Any, bounds: Any) -> Any:
        mask = np.zeros(
            len(initial_theta)
        )  # noise, the last, may not be in the kernel yet
        mask[: len(is_scale)] = is_scale
        centre = np.log(_SCALE * np.sqrt(max(mask.sum(), 1)))

        def with_prior(theta: Any) -> tuple[float, Any]:
            value, gradient = value_and_gradient(theta)
            away = mask * (theta - centre) / _SCALE_SPREAD
            return value + away @ away / 2, gradient + away / _SCALE_SPREAD

        found = minimize(
            with_prior, initial_theta, method="L-BFGS-B", jac=True, bounds=bounds
        )
        return found.x, found.fun

    return optimize
