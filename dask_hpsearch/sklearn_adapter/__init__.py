"""The only place that knows scikit-learn's private fit call and its search classes.

Supported: scikit-learn 1.9. Each module lists the private parts that it uses.
"""

from __future__ import annotations

from dask_hpsearch.sklearn_adapter.cross_validation import cross_validated
from dask_hpsearch.sklearn_adapter.evaluations import (
    answering,
    first_fit,
    parallel_of,
)
from dask_hpsearch.sklearn_adapter.fit_calls import (
    REDUCERS,
    FitCall,
    Portable,
    before_errors_are_text,
    distinct_functions,
    failed_result,
    fit_call_of,
    raises_errors,
    run_fit,
    same_settings,
    scores_predictions_only,
    wrap,
)
from dask_hpsearch.sklearn_adapter.searches import (
    FixedSplits,
    best_of,
    check_of,
    check_version,
    complete_stopped_search,
    evaluates_once,
    has_several_scores,
    hooked,
    is_bayes,
    is_halving,
    is_search,
    report_fit_errors,
    score_of,
    splitter_of,
    strategy_of,
    without_fitted_state,
)

__all__ = [
    "REDUCERS",
    "FitCall",
    "FixedSplits",
    "Portable",
    "answering",
    "before_errors_are_text",
    "best_of",
    "callbacks",
    "check_of",
    "check_version",
    "complete_stopped_search",
    "cross_validated",
    "distinct_functions",
    "evaluates_once",
    "failed_result",
    "first_fit",
    "fit_call_of",
    "has_several_scores",
    "hooked",
    "is_bayes",
    "is_halving",
    "is_search",
    "parallel_of",
    "raises_errors",
    "report_fit_errors",
    "run_fit",
    "same_settings",
    "score_of",
    "scores_predictions_only",
    "splitter_of",
    "strategy_of",
    "warning_filters",
    "without_fitted_state",
    "wrap",
]
