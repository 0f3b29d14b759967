"""Drives one search, start to end: client, engine, backend, ``search.fit``, result."""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import joblib

from dask_hpsearch import sklearn_adapter
from dask_hpsearch.engine.engine import Engine
from dask_hpsearch.exceptions import StoreError
from dask_hpsearch.execution.client import client_for
from dask_hpsearch.execution.cost import budget_of, shown_slots
from dask_hpsearch.execution.early_ends import check_early_ends
from dask_hpsearch.execution.fitted import Fitted, warn_stopped
from dask_hpsearch.joblib_backend.backend import EvaluationBackend
from dask_hpsearch.joblib_backend.session import Session
from dask_hpsearch.journal import next_steps
from dask_hpsearch.progress import SearchProgress, show
from dask_hpsearch.recorder.dropped import dropped_candidates
from dask_hpsearch.recorder.evaluation_hook import EvaluationHook
from dask_hpsearch.recorder.recorder import Recorder
from dask_hpsearch.recorder.standings import EarlyEnds
from dask_hpsearch.sklearn_adapter import callbacks
from dask_hpsearch.strategies.bayes.strategy import BayesStrategy
from dask_hpsearch.strategies.optuna.samplers import check_sampler
from dask_hpsearch.strategies.optuna.search import OptunaFit, is_optuna_search
from dask_hpsearch.strategies.optuna.strategy import OptunaStrategy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dask_hpsearch.budget import CostMeter
    from dask_hpsearch.data import DataStore
    from dask_hpsearch.execution.settings import Settings
    from dask_hpsearch.journal.run_journal import RunJournal


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
) -> Fitted:
    """Fit a search, its fits in the slots of a Dask client's workers.

    Parameters
    ----------
    search : BaseSearchCV or OptunaSearchCV
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
    recorder, hook = _recorded(fitted, progress, journal, settings)
    with ExitStack() as stack:
        client = stack.enter_context(client_for(settings, search))
        budget = stack.enter_context(
            budget_of(meter, settings.cluster or client.cluster)
        )
        engine = stack.enter_context(
            Engine(
                client,
                data_store,
                fit_timeout_s=settings.fit_timeout_s,
                worker_timeout_s=settings.worker_timeout_s,
                on_slots=shown_slots(progress, budget),
                cluster=settings.cluster,
                on_problem=progress.problem_changed,
            )
        )
        if budget is not None:
            budget.stop = engine.stop
        on_engine(engine)
        stack.enter_context(show(progress, enabled=settings.progress))
        stack.enter_context(_all_written(journal))
        stack.enter_context(_deadline(engine, settings.max_time_s))
        stack.enter_context(hook.attached(driven))
        backend = _backend_of(fitted, engine, recorder, hook, settings)
        stack.enter_context(joblib.parallel_config(backend=backend))
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
    )
    return recorder, EvaluationHook(recorder, tolerant=tolerant)


def _backend_of(
    search: Any,
    engine: Engine,
    recorder: Recorder,
    hook: EvaluationHook,
    settings: Settings,
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
    elif is_optuna_search(search):
        hook.strategy = OptunaStrategy(session, recorder)
    return EvaluationBackend(session, ready=lambda: hook.evaluating)


@contextmanager
def _deadline(engine: Engine, max_time_s: float | None) -> Iterator[None]:
    """Stop the engine after some seconds."""
    if max_time_s is None:
        yield
        return
    seconds = min(max_time_s, threading.TIMEOUT_MAX)  # it may be infinite
    timer = threading.Timer(seconds, engine.stop, args=("max_time",))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def _all_written(journal: RunJournal | None) -> Iterator[None]:
    """Write the journal's gathered events, however the search ends.

    Fits are shown once they are written, so the last progress shown has all of them.
    """
    try:
        yield
    finally:
        if journal is not None:
            with suppress(StoreError):  # raised again when the run stores its result
                journal.flush()


def _is_model_based(search: Any) -> bool:
    """Whether each call's scores steer the next ask (skopt's BayesSearchCV)."""
    return any(base.__module__.startswith("skopt.") for base in type(search).__mro__)


def _covered(recorder: Recorder) -> str:
    """Return which candidates the results of a stopped search cover, in words."""
    done = sum(len(call.complete()) for call in recorder.calls)
    total = sum(len(call.candidates) for call in recorder.calls)
    return f"{done} of {total} candidates that had finished"
