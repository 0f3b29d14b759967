"""Drives one search, start to end: client, engine, backend, ``search.fit``, result."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import joblib

from dask_hpsearch import sklearn_adapter
from dask_hpsearch.execution.early_ends import check_early_ends
from dask_hpsearch.execution.fitted import Fitted, warn_stopped
from dask_hpsearch.execution.incremental_fit import IncrementalWork, fit_incremental
from dask_hpsearch.execution.running_engine import running_engine
from dask_hpsearch.joblib_backend.backend import EvaluationBackend
from dask_hpsearch.joblib_backend.session import Session
from dask_hpsearch.journal import next_steps
from dask_hpsearch.progress import SearchProgress
from dask_hpsearch.recorder.dropped import dropped_candidates
from dask_hpsearch.recorder.evaluation_hook import EvaluationHook
from dask_hpsearch.recorder.recorder import Recorder
from dask_hpsearch.recorder.standings import EarlyEnds
from dask_hpsearch.sklearn_adapter import callbacks
from dask_hpsearch.strategies.bayes.strategy import BayesStrategy
from dask_hpsearch.strategies.halving.search import AsyncHalvingSearchCV
from dask_hpsearch.strategies.halving.strategy import HalvingStrategy
from dask_hpsearch.strategies.incremental.kinds import is_incremental
from dask_hpsearch.strategies.model_states import ModelStates, remove_all
from dask_hpsearch.strategies.optuna.samplers import check_sampler
from dask_hpsearch.strategies.optuna.search import OptunaFit, is_optuna_search
from dask_hpsearch.strategies.optuna.strategy import OptunaStrategy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dask_hpsearch.budget import CostMeter
    from dask_hpsearch.data import DataStore
    from dask_hpsearch.engine.engine import Engine
    from dask_hpsearch.execution.settings import Settings
    from dask_hpsearch.journal.run_journal import RunJournal
    from dask_hpsearch.recorder.listener import RecordListener


def fit_trials(
    search: Any,
    X: Any,
    y: Any,
    params: dict[str, Any],
    settings: Settings,
    *,
    data_store: DataStore,
    journal: RunJournal | None = None,
    meter: CostMeter | None = None,
    on_engine: Callable[[Engine], None] = lambda _: None,
    listener: RecordListener | None = None,
) -> Fitted:
    """Fit a search, its fits in the slots of a Dask client's workers.

    Parameters
    ----------
    search : BaseSearchCV, OptunaSearchCV, or one of dask-ml's that train by ``partial_fit``
        Left as it is; a copy is fitted.
    X, y : array-like
    params : dict
        Further arguments of ``search.fit``.
    settings : Settings
    data_store : DataStore
        Holds its data.
    journal : RunJournal, optional
        Has the run's earlier results, and takes new ones.
    meter : CostMeter, optional
        Adds up what the search costs.
    on_engine : callable
        Called with the engine once it runs.
    listener : RecordListener, optional
        Of the recorder.

    Returns
    -------
    Fitted
    """
    sklearn_adapter.check_version()
    check_early_ends(search, settings)
    check_sampler(search, settings.sampler, bayes_async=settings.bayes_async)
    fitted = sklearn_adapter.without_fitted_state(search)
    driven = OptunaFit(fitted) if is_optuna_search(fitted) else fitted
    progress = _progress_of(journal)
    running = running_engine(
        search,
        settings,
        progress,
        data_store=data_store,
        journal=journal,
        meter=meter,
        on_engine=on_engine,
    )
    if is_incremental(search):
        work = IncrementalWork(fitted, X, y, params)
        with running as engine:
            stopped = fit_incremental(
                work,
                engine,
                progress,
                data_store=data_store,
                journal=journal,
                listener=listener,
            )
        return Fitted(fitted, stopped)
    recorder, hook = _recorded(fitted, progress, journal, settings, listener)
    models = _models_of(fitted, data_store, journal, recorder, hook)
    with models as states, running as engine, hook.attached(driven):
        backend = _backend_of(fitted, engine, recorder, hook, settings, states=states)
        with joblib.parallel_config(backend=backend):
            driven.fit(X, y, **params)
        progress.chosen(*sklearn_adapter.best_of(fitted))
        progress.ended(hook.stopped)
    if settings.racing:
        fitted.dropped_ = dropped_candidates(recorder.calls)
    if hook.stopped:
        warn_stopped(hook.stopped, _covered(recorder), progress.hint)
    return Fitted(fitted, hook.stopped)


def _progress_of(journal: RunJournal | None) -> SearchProgress:
    progress = SearchProgress()
    if journal is not None:
        progress.hint = next_steps.to_resume(journal.folder.store.url)
    return progress


def _recorded(
    search: Any,
    progress: SearchProgress,
    journal: RunJournal | None,
    settings: Settings,
    listener: RecordListener | None,
) -> tuple[Recorder, EvaluationHook]:
    """Make the recorder of a search, and the hook by which the search reports to it."""
    tolerant = _is_model_based(search)
    recorder = Recorder(
        progress,
        refit=getattr(search, "refit", None),
        tolerant=tolerant,
        journal=journal,
        unseeded=getattr(search, "random_state", 0) is None,
        early_ends=EarlyEnds(
            racing=settings.racing,
            stop_score=settings.stop_score,
            patience=settings.patience,
        ),
        listener=listener,
    )
    return recorder, EvaluationHook(recorder, tolerant=tolerant)


def _backend_of(
    search: Any,
    engine: Engine,
    recorder: Recorder,
    hook: EvaluationHook,
    settings: Settings,
    *,
    states: ModelStates | None,
) -> EvaluationBackend:
    """Make the joblib backend of a search's evaluation, and its strategy if it has one."""
    # Callbacks are not called for a step that is not fitted again.
    share = settings.share_steps and not callbacks.callbacks_of(search)
    session = Session(engine, log=recorder, share_steps=share)
    recorder.answering, recorder.stop = session.answering, engine.stop
    if sklearn_adapter.is_bayes(search):
        bayes_async = True if settings.racing else settings.bayes_async
        hook.strategy = BayesStrategy(
            session, recorder, bayes_async=bayes_async, sampler=settings.sampler
        )
    elif states is not None:
        hook.strategy = HalvingStrategy(session, recorder, states)
    elif is_optuna_search(search):
        hook.strategy = OptunaStrategy(session, recorder)
    return EvaluationBackend(session, ready=lambda: hook.evaluating)


@contextmanager
def _models_of(
    search: Any,
    data_store: DataStore,
    journal: RunJournal | None,
    recorder: Recorder,
    hook: EvaluationHook,
) -> Iterator[ModelStates | None]:
    """Keep the models of a halving search, up to its end if it is not stopped."""
    if not isinstance(search, AsyncHalvingSearchCV):
        yield None
        return
    run = None if journal is None else journal.folder.store
    with ModelStates(data_store, run) as states:
        try:
            yield states
        finally:
            recorder.forget_stored()
    if run is not None and not hook.stopped:
        remove_all(run)


def _is_model_based(search: Any) -> bool:
    """Whether each call's scores steer the next ask (skopt's BayesSearchCV)."""
    return any(base.__module__.startswith("skopt.") for base in type(search).__mro__)


def _covered(recorder: Recorder) -> str:
    """Return which candidates the results of a stopped search cover, in words."""
    done = sum(len(call.complete()) for call in recorder.calls)
    total = sum(len(call.candidates) for call in recorder.calls)
    return f"{done} of {total} candidates that had finished"
