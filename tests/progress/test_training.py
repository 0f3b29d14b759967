"""Progress of searches that train models by partial_fit: calls count as fits."""

from __future__ import annotations

import math

from dask_hpsearch.progress import SearchProgress


def test_calls_of_partial_fit_are_counted_as_fits() -> None:
    """Those that are known so far: one of each model at least, then those of each round."""
    progress = SearchProgress()

    progress.training_started(0, n_models=3)
    at_first = progress.snapshot()
    progress.calls_wanted(0, {0: 1, 1: 1, 2: 1})
    for model in range(3):
        progress.model_trained(0, model, 1, params={"x": model}, score=0.1 * model)
    after_a_round = progress.snapshot()
    progress.calls_wanted(0, {2: 5})
    progress.model_trained(0, 2, 3, params={"x": 2}, score=None)
    later = progress.snapshot()

    assert (at_first.fits_done, at_first.fits_total) == (0, 3)
    assert (after_a_round.fits_done, after_a_round.fits_total) == (3, 3)
    assert (later.fits_done, later.fits_total) == (5, 7)
    assert later.best_params == {"x": 2}


def test_a_model_counts_with_its_last_score() -> None:
    """Of equal scores the first counts, over all brackets the best; NaN is none."""
    progress = SearchProgress()
    for bracket in (0, 1):
        progress.training_started(bracket, n_models=2)

    progress.model_trained(0, 0, 1, params={"x": 0}, score=0.9)
    progress.model_trained(0, 0, 2, params={"x": 0}, score=0.5)
    progress.model_trained(0, 1, 1, params={"x": 1}, score=0.5)
    progress.model_trained(1, 0, 1, params={"x": 2}, score=math.nan)
    assert progress.snapshot().best_params == {"x": 0}
    progress.model_trained(1, 1, 1, params={"x": 3}, score=0.7)

    assert progress.snapshot().best_params == {"x": 3}
    assert progress.snapshot().best_score == 0.7


def test_a_call_that_is_reported_twice_counts_once() -> None:
    """Two drivers of one run may have made it."""
    progress = SearchProgress()
    progress.training_started(0, n_models=1)

    for calls in (2, 1, 2):
        progress.model_trained(0, 0, calls, params={}, score=0.5)

    assert progress.snapshot().fits_done == 2
