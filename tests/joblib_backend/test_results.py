"""What becomes of the outcome of a fit."""

from __future__ import annotations

import pickle
from typing import Any

from dask_hpsearch.joblib_backend.results import fit_result
from dask_hpsearch.messages import Outcome
from dask_hpsearch.sklearn_adapter import FitCall


def result_after_transport(result: dict[str, Any]) -> dict[str, Any]:
    """Return a result as it comes from a slot."""
    call = FitCall(None, None, None, None, [0], [1], {}, 0, 1, 0, 1, {})
    return fit_result(call, Outcome(0, "ok", pickle.dumps(result)))


def test_results_share_their_keys() -> None:
    """The texts of a million results would take more memory than their scores."""
    result = {"fit_error": None, "test_scores": {"accuracy_a": 0.5, "loss_b": 0.1}}

    one, other = (result_after_transport(result) for _ in range(2))

    assert one == other == result
    for mine, its in ((one, other), (one["test_scores"], other["test_scores"])):
        assert all(a is b for a, b in zip(mine, its, strict=True))


def test_a_result_is_as_the_slot_sent_it() -> None:
    """Whatever a scorer returns as scores."""
    for scores in (0.5, {1: 0.5}, {"a": 0.5, 2: 0.1}, None):
        result = {"test_scores": scores, "fit_time": 1.0, "parameters": {"a": {"b": 1}}}
        assert result_after_transport(result) == result
