"""Fits one of dask-ml's searches that train models by ``partial_fit``."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dask_hpsearch import sklearn_adapter
from dask_hpsearch.exceptions import SearchStopped, StoreError
from dask_hpsearch.execution.fitted import warn_stopped
from dask_hpsearch.joblib_backend.session import Session
from dask_hpsearch.journal import next_steps
from dask_hpsearch.strategies.incremental.strategy import IncrementalStrategy
from dask_hpsearch.strategies.model_states import ModelStates

if TYPE_CHECKING:
    from dask_hpsearch.data import DataStore
    from dask_hpsearch.engine.engine import Engine
    from dask_hpsearch.journal.run_journal import RunJournal
    from dask_hpsearch.progress import SearchProgress
    from dask_hpsearch.recorder.listener import RecordListener

_LIMITS = "max_time", "max_cost"


@dataclass(frozen=True, slots=True)
class IncrementalWork:
    """A search, which is fitted itself, and the arguments of its ``fit``."""

    search: Any
    X: Any
    y: Any
    params: dict[str, Any]


def fit_incremental(
    work: IncrementalWork,
    engine: Engine,
    progress: SearchProgress,
    *,
    data_store: DataStore,
    journal: RunJournal | None,
    listener: RecordListener | None = None,
) -> str | None:
    """Fit a search with the models that its journal has, and others trained by an engine.

    Returns
    -------
    str or None
        Why it was stopped early, if it was.

    Raises
    ------
    SearchStopped
        If it was stopped before any model was scored.
    Exception
        As a model's ``partial_fit`` or scoring has raised it.
    """
    run = None if journal is None else journal.folder.store
    with ModelStates(data_store, run) as states:
        strategy = IncrementalStrategy(
            Session(engine),
            data_store,
            states,
            progress,
            journal=journal,
            listener=listener,
        )
        try:
            strategy.fit(work.search, work.X, work.y, work.params)
        except SearchStopped as stop:
            text = (
                f"the search was stopped ({stop}) before any model was scored: give it more "
                "time"
            )
            if journal is not None:
                limit = f"{stop}=..." if str(stop) in _LIMITS else ""
                url = journal.folder.store.url
                text += f"; {next_steps.to_resume(url, limit)}"
            raise SearchStopped(text) from None
        if journal is not None:
            with suppress(StoreError):  # raised again when the run stores its result
                journal.flush()  # then states that are needed no more are removed
    progress.chosen(*sklearn_adapter.best_of(work.search))
    progress.ended(strategy.stopped)
    if strategy.stopped:
        warn_stopped(strategy.stopped, _covered(work.search), progress.hint)
    return strategy.stopped


def _covered(search: Any) -> str:
    """Return what the results of a stopped search cover, in words."""
    n_scored = len(search.model_history_)
    return f"scores so far, of {n_scored} models"
