"""Writes a run to MLflow from this process."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from dask_hpsearch.exceptions import HPSearchError, TrackerError, TrackerWarning
from dask_hpsearch.exports.mlflow_settings import (
    MlflowTracker,
    SearchDescription,
    SearchEnd,
    check_installed,
)
from dask_hpsearch.runs.generations import current_generation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dask_hpsearch.exports.candidate_result import CandidateResult
    from dask_hpsearch.exports.mlflow_runs import MlflowRuns
    from dask_hpsearch.journal.folder import RunFolder
    from dask_hpsearch.runs.run import SearchRun


def export_run(
    run: SearchRun,
    folder: RunFolder,
    candidates: Sequence[CandidateResult],
    tracker: MlflowTracker,
    X: Any,
) -> str:
    """Write a run as it is now.

    Parameters
    ----------
    run : SearchRun
    folder : RunFolder
        Of the run.
    candidates : sequence of CandidateResult
        Of the run; those that are unfinished are left out.
    tracker : MlflowTracker
    X : array-like or None
        Rows for the model's signature.

    Returns
    -------
    str
        The id of the run at MLflow.

    Raises
    ------
    MissingExtraError
        If MLflow is not installed.
    TrackerError
        If MLflow cannot be reached, or refuses a request.
    """
    check_installed("to_mlflow()")
    settings = tracker.resolved()
    try:
        from dask_hpsearch.exports.mlflow_runs import MlflowRuns

        described = SearchDescription.of_run(folder.manifest, folder.store.url)
        runs = MlflowRuns(settings, described)
        runs.write(candidates)
        if settings.log_model and run.state.has_result:
            _log_model(runs, run, folder, X)
        runs.end(_end_of(run))
    except HPSearchError:
        raise
    except Exception as error:
        msg = (
            f"cannot write the run to MLflow at {settings.tracking_uri}: "
            f"{type(error).__name__}: {error}; once that is mended, to_mlflow() goes on "
            "without doubles"
        )
        raise TrackerError(msg) from error
    return runs.parent


def _end_of(run: SearchRun) -> SearchEnd:
    snapshot, state = run.look()
    params = snapshot.best_params
    return SearchEnd(
        state="running" if state.is_under_way else str(state),
        reason=snapshot.reason or "",
        best_score=snapshot.best_score,
        best_params=None if params is None else dict(params),
    )


def _log_model(runs: MlflowRuns, run: SearchRun, folder: RunFolder, X: Any) -> None:
    from dask_hpsearch.exports.mlflow_model import example_of, log_model

    try:
        model = getattr(run.result(), "best_estimator_", None)
    except HPSearchError as error:
        warnings.warn(f"the model is not logged: {error}", TrackerWarning, stacklevel=4)
        return
    if model is not None:
        example = None if X is None else example_of(X)
        log_model(runs, model, example, generation=current_generation(folder))
