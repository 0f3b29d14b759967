"""Calls of ``evaluate_candidates`` that run no fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.model_selection._search import BaseSearchCV

from dask_hpsearch import sklearn_adapter
from tests.estimators import Deed, flowers

if TYPE_CHECKING:
    from collections.abc import Callable

X, y = flowers()


class Once(BaseSearchCV):
    """A search that does what a test says with ``evaluate_candidates``."""

    def __init__(self, deed: Callable[[Any], Any], **options: Any) -> None:
        super().__init__(Deed(), cv=2, refit=False, return_train_score=False, **options)
        self.deed = deed

    def _run_search(self, evaluate_candidates: Any) -> None:
        self.seen_ = self.deed(evaluate_candidates)


def captured(evaluate: Any) -> Any:
    """Capture the first fit of a call, then evaluate another candidate."""
    parallel = sklearn_adapter.parallel_of(evaluate)
    call = sklearn_adapter.first_fit(parallel, lambda: evaluate([{"number": 3}]))
    evaluate([{"number": 5}])
    return call


def test_a_first_fit_is_captured_and_not_run() -> None:
    """The search goes on as if it had not been called."""
    search = Once(captured).fit(X, y)

    call = search.seen_
    assert call.parameters == {"number": 3}
    assert (call.candidate, call.split, call.n_splits) == (0, 0, 2)
    assert len(call.train) + len(call.test) == len(X)
    assert not hasattr(call.estimator, "cut_")
    assert search.cv_results_["params"] == [{"number": 5}]


def test_a_call_is_answered_with_known_results() -> None:
    """scikit-learn builds its table from them; no fit runs."""
    result = {
        "fit_error": None,
        "test_scores": 0.5,
        "n_test_samples": 3,
        "fit_time": 1.0,
        "score_time": 0.0,
    }

    def answer(evaluate: Any) -> None:
        parallel = sklearn_adapter.parallel_of(evaluate)
        with sklearn_adapter.answering(parallel, lambda _: [result, result]):
            evaluate([{"number": 1}])
        evaluate([{"number": 2}])

    search = Once(answer).fit(X, y)

    assert search.cv_results_["mean_test_score"][0] == 0.5
    assert search.cv_results_["mean_fit_time"][0] == 1.0
    assert np.isfinite(search.cv_results_["mean_test_score"][1])


def test_an_error_of_the_call_is_raised() -> None:
    """As without capturing."""

    def empty(evaluate: Any) -> Any:
        parallel = sklearn_adapter.parallel_of(evaluate)
        return sklearn_adapter.first_fit(parallel, lambda: evaluate(None))

    with pytest.raises(TypeError):
        Once(empty).fit(X, y)
