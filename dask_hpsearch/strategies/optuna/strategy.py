"""OptunaSearchCV without its threads: trials run in the slots of a cluster.

`OptunaStrategy` captures the fit call of scikit-learn's ``cross_validate``, which
OptunaSearchCV makes for each trial, and runs it for the trials of the study as slots become
free. The study is the user's; its trials have the attributes that OptunaSearchCV gives them.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from dask_hpsearch.recorder.call import RecordingSplitter
from dask_hpsearch.strategies.optuna.partial_fits import PartialFits
from dask_hpsearch.strategies.optuna.partial_steps import Training
from dask_hpsearch.strategies.optuna.split_fits import (
    SplitFits,
    prunes_splits,
    reports_means,
)
from dask_hpsearch.strategies.optuna.study import StudyTrials
from dask_hpsearch.strategies.optuna.trial_loop import Limits, TrialLoop
from dask_hpsearch.strategies.session_slots import SessionSlots

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dask_hpsearch.joblib_backend.session import Session
    from dask_hpsearch.recorder.call import RecordedCall
    from dask_hpsearch.recorder.recorder import Evaluate, Recorder
    from dask_hpsearch.sklearn_adapter import FitCall
    from dask_hpsearch.strategies.optuna.search import OptunaFit
    from dask_hpsearch.strategies.optuna.trial_loop import Work


class OptunaStrategy:
    """Runs the trials of an OptunaSearchCV.

    Parameters
    ----------
    session : Session
        Runs the fits.
    recorder : Recorder
    """

    def __init__(self, session: Session, recorder: Recorder) -> None:
        self._session = session
        self._recorder = recorder

    def __call__(self, fit: OptunaFit, evaluate: Evaluate) -> bool:
        """Run a search."""
        del evaluate  # results are in the study
        search = fit.search
        call, splits = self._capture(fit)
        self._session.wait_for_slots()
        recorded = self._recorder.open_call(splits, n_candidates=search.n_trials or 0)
        call = dataclasses.replace(
            call, n_splits=len(splits), n_candidates=search.n_trials
        )
        trials = StudyTrials(
            search.study_, search.param_distributions, run_id=self._recorder.run_id
        )
        loop = TrialLoop(
            trials,
            self._work(fit, call, recorded),
            _RecordedNotes(self._recorder, recorded),
            limits=_limits_of(search),
        )
        loop.run(recorded.steps)
        recorded.taken_in = True
        return True

    def _capture(self, fit: OptunaFit) -> tuple[FitCall, list[Any]]:
        """Capture the fit call of `cross_validate`, and its splits."""
        from sklearn.model_selection import cross_validate

        search, samples = fit.search, fit.samples
        assert samples is not None  # noqa: S101 (set before the search runs)
        splits: list[Any] = []
        with self._session.capturing() as captured:
            cross_validate(
                search.estimator,
                samples.X,
                samples.y,
                cv=RecordingSplitter(samples.cv, splits.extend),
                error_score=search.error_score,
                params=dict(samples.fit_params),
                groups=samples.groups,
                return_train_score=search.return_train_score,
                scoring=search.scorer_,
            )
        assert captured.call is not None  # noqa: S101 (it is scikit-learn's own)
        return captured.call, splits

    def _work(self, fit: OptunaFit, call: FitCall, recorded: RecordedCall) -> Work:
        search = fit.search
        if search.enable_pruning:
            return PartialFits(
                self._session,
                self._recorder,
                recorded,
                call,
                training=_training_of(fit),
                max_iter=search.max_iter,
            )
        return SplitFits(
            SessionSlots(self._session, call, recorded),
            self._recorder,
            recorded,
            error_score=search.error_score,
            prunes=prunes_splits(search),
            means=reports_means(search),
        )


class _RecordedNotes:
    """The steps of a recorded call."""

    def __init__(self, recorder: Recorder, call: RecordedCall) -> None:
        self._recorder = recorder
        self._call = call

    def known(self, ordinal: int) -> Mapping[str, Any]:
        _, params = self._call.asks[ordinal]
        self._call.candidates.append(params)
        return params

    def asked(self, ordinal: int, params: Mapping[str, Any]) -> None:
        kept = dict(params)
        self._call.candidates.append(kept)
        self._call.asks[ordinal] = 0, kept
        self._recorder.note_ask(self._call, ordinal, 0, kept)

    def told(self, ordinal: int, value: float, state: str) -> None:
        self._recorder.note_tell(self._call, ordinal, 0, value, trial=state)

    def store(self) -> None:
        self._recorder.store()


def _training_of(fit: OptunaFit) -> Training:
    """Return how models are trained, as ``_Objective._cross_validate_with_pruning`` does."""
    from sklearn.base import is_classifier

    search, samples = fit.search, fit.samples
    assert samples is not None  # noqa: S101 (set before the search runs)
    params = dict(samples.fit_params)
    if is_classifier(search.estimator):
        y = samples.y
        classes = np.array([None]) if y is None else np.unique(y)
        params.setdefault("classes", classes)
    return Training(
        scorer=search.scorer_,
        partial_fit_params=params,
        error_score=search.error_score,
        return_train_score=search.return_train_score,
    )


def _limits_of(search: Any) -> Limits:
    catch = search.catch
    return Limits(
        n_trials=search.n_trials,
        timeout_s=search.timeout,
        callbacks=tuple(search.callbacks or ()),
        catch=(catch,) if isinstance(catch, type) else tuple(catch),
    )
