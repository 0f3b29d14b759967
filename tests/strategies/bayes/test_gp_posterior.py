"""Beliefs against models that are fitted again."""

from __future__ import annotations

import numpy as np
import pytest
from skopt.learning import GaussianProcessRegressor
from skopt.learning.gaussian_process.kernels import ConstantKernel, Matern

from dask_hpsearch.strategies.bayes.gp_posterior import Posterior

rng = np.random.default_rng(0)
X = rng.random((12, 3))
values = np.sin(5 * X).sum(axis=1)
elsewhere = rng.random((40, 3))
pending = rng.random((4, 3))


def model(**options: object) -> GaussianProcessRegressor:
    """Fit a process whose hyperparameters stay as they are."""
    kernel = ConstantKernel(1.5) * Matern(length_scale=[0.5, 0.8, 0.3], nu=2.5)
    options = {"noise": 1e-3, "optimizer": None, **options}
    return GaussianProcessRegressor(kernel=kernel, **options).fit(X, values)


@pytest.mark.parametrize("normalize_y", [True, False])
def test_without_beliefs_it_predicts_as_the_model(normalize_y: bool) -> None:  # noqa: FBT001 (a model's own word)
    """Mean and standard deviation are those of the model that it was made from."""
    learnt = model(normalize_y=normalize_y)

    mean, std = Posterior(learnt, X, list(values)).predict(elsewhere)

    expected_mean, expected_std = learnt.predict(elsewhere, return_std=True)
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-6)
    np.testing.assert_allclose(std, expected_std, rtol=1e-4)


def test_a_belief_is_as_good_as_a_model_that_is_fitted_to_it() -> None:
    """Expectations stay, and are surer near what is believed."""
    learnt = model(normalize_y=False)
    posterior = Posterior(learnt, X, list(values))
    watched = posterior.watch(elsewhere)

    believed = [posterior.believe(x) for x in pending[:2]]
    watched = posterior.watch(elsewhere)
    believed += [posterior.believe_watched(x, watched) for x in pending[2:]]

    np.testing.assert_allclose(believed, learnt.predict(pending), rtol=1e-6)
    again = GaussianProcessRegressor(
        kernel=learnt.kernel, noise=1e-3, optimizer=None, normalize_y=False
    ).fit(np.vstack([X, pending]), [*values, *believed])
    mean, std = again.predict(elsewhere, return_std=True)
    for found in (watched.predict(elsewhere), posterior.predict(elsewhere)):
        np.testing.assert_allclose(found[0], mean, rtol=1e-4)
        np.testing.assert_allclose(found[1], std, rtol=1e-3)


def test_points_that_coincide_are_no_harm() -> None:
    """Without noise there is hardly a factor: as much is added as that takes."""
    twice = np.vstack([X, X])

    posterior = Posterior(model(noise=0), twice, [*values, *values])
    posterior.believe(X[0])

    assert np.isfinite(posterior.predict(elsewhere)).all()
