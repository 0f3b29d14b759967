"""The engine of one search, with its client, deadline, budget and display."""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from dask_hpsearch.engine.engine import Engine
from dask_hpsearch.exceptions import StoreError
from dask_hpsearch.execution.client import client_for
from dask_hpsearch.execution.cost import budget_of, shown_slots
from dask_hpsearch.progress import show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dask_hpsearch.budget import CostMeter
    from dask_hpsearch.data import DataStore
    from dask_hpsearch.execution.settings import Settings
    from dask_hpsearch.journal.run_journal import RunJournal
    from dask_hpsearch.progress import SearchProgress


@contextmanager
def running_engine(
    search: Any,
    settings: Settings,
    progress: SearchProgress,
    *,
    data_store: DataStore,
    journal: RunJournal | None,
    meter: CostMeter | None,
    on_engine: Callable[[Engine], None],
) -> Iterator[Engine]:
    """Run an engine while the block lasts, until the search's time or money is spent.

    At the end, everything is in the journal.

    Parameters
    ----------
    search : object
        Its ``n_jobs`` is the size of a cluster of its own.
    settings : Settings
    progress : SearchProgress
        Displayed meanwhile.
    data_store : DataStore
        Holds the search's data.
    journal : RunJournal or None
    meter : CostMeter or None
        Adds up what the search costs.
    on_engine : callable
        Called with the engine once it runs.
    """
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
        yield engine


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
