"""A search reports to its recorder, and is completed from what that has."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.naive_bayes import GaussianNB

from dask_hpsearch.exceptions import RunCancelledError, SearchStopped
from dask_hpsearch.progress import SearchProgress
from dask_hpsearch.recorder.evaluation_hook import EvaluationHook
from dask_hpsearch.recorder.recorder import Recorder
from dask_hpsearch.sklearn_adapter import FitCall
from tests.estimators import flowers

if TYPE_CHECKING:
    from collections.abc import Callable

X, y = flowers()
SMOOTHING = [1e-9, 1e-3, 1.0]


def search_of() -> GridSearchCV:
    """Return a search of three candidates on two splits."""
    grid = {"var_smoothing": SMOOTHING}
    return GridSearchCV(GaussianNB(), grid, cv=2, refit=False)


def recorded() -> tuple[Recorder, EvaluationHook]:
    """Return a recorder without a journal, and its hook."""
    recorder = Recorder(SearchProgress(), refit=False)
    return recorder, EvaluationHook(recorder)


def fit_of(candidate: int, split: int) -> FitCall:
    """Return a fit by its ordinals."""
    nothing: dict[str, Any] = dict.fromkeys(
        ("function", "estimator", "X", "y", "train", "test", "parameters")
    )
    return FitCall(
        **nothing,
        split=split,
        n_splits=2,
        candidate=candidate,
        n_candidates=3,
        shared={"error_score": np.nan},
    )


def stopping_after(
    recorder: Recorder, n_fits: int, reason: str
) -> Callable[[Any, Any], bool]:
    """Return a strategy that has some results when it is stopped."""

    def strategy(search: Any, evaluate: Any) -> bool:
        del search, evaluate
        splits = list(KFold(2).split(X, y))
        call = recorder.open_call(splits, n_candidates=3)
        call.candidates += [{"var_smoothing": one} for one in SMOOTHING]
        for number in range(n_fits):
            result = {
                "test_scores": number / 10,
                "fit_error": None,
                "fit_time": 0.1,
                "score_time": 0.1,
                "n_test_samples": 1,
            }
            recorder.finished(fit_of(number // 2, number % 2), result)
        raise SearchStopped(reason)

    return strategy


def test_a_search_reports_its_candidates_and_splits() -> None:
    """As it hands them to scikit-learn; it is as before afterwards."""
    recorder, hook = recorded()
    search = search_of()

    with hook.attached(search):
        search.fit(X, y)

    (call,) = recorder.calls
    assert [one["var_smoothing"] for one in call.candidates] == SMOOTHING
    assert len(call.splits) == 2
    assert call.taken_in
    assert hook.evaluating
    assert hook.stopped is None
    assert "_run_search" not in vars(search)


def test_known_results_are_found_by_their_ordinals() -> None:
    """Those of the call that runs."""
    recorder, _ = recorded()
    call = recorder.begin_call([{}, {}])
    recorder.note_splits(call, [(0, 1), (1, 0)], stored=False)
    result = {"test_scores": 0.5, "fit_error": None}

    recorder.finished(fit_of(1, 0), result)

    assert recorder.known(fit_of(1, 0)) == result
    assert recorder.known(fit_of(0, 0)) is None
    assert recorder.n_fits == 4


@pytest.mark.parametrize("n_fits", [2, 3, 5])
def test_a_search_that_is_stopped_has_its_complete_candidates(n_fits: int) -> None:
    """A candidate with half of its splits is none."""
    recorder, hook = recorded()
    search = search_of()
    hook.strategy = stopping_after(recorder, n_fits, "max_time")
    answers: list[Any] = []

    def answering(results: list[dict[str, Any]]) -> Any:
        answers.append(results)
        return nullcontext()

    recorder.answering = answering

    with hook.attached(search):
        search.fit(X, y)

    assert hook.stopped == "max_time"
    assert len(search.cv_results_["params"]) == n_fits // 2
    assert len(answers[0]) == 2 * (n_fits // 2)


def test_a_search_that_is_stopped_without_a_candidate_says_so() -> None:
    """With the way out."""
    recorder, hook = recorded()
    search = search_of()
    hook.strategy = stopping_after(recorder, 1, "max_time")

    with (
        hook.attached(search),
        pytest.raises(SearchStopped, match=r"\(max_time\) before any .* more time"),
    ):
        search.fit(X, y)


def test_a_cancelled_search_has_no_results() -> None:
    """Even if candidates are complete."""
    recorder, hook = recorded()
    search = search_of()
    hook.strategy = stopping_after(recorder, 6, "cancelled")

    with hook.attached(search), pytest.raises(RunCancelledError):
        search.fit(X, y)
