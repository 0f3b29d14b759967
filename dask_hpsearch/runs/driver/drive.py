"""Drives a run once: with its journal, the requests to its driver, and its result."""

from __future__ import annotations

import functools
import logging
import os
import resource
import sys
import threading
import time
import uuid
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from dask_hpsearch import sklearn_adapter
from dask_hpsearch.data.prefetch import EarlyUpload
from dask_hpsearch.engine.client import dashboard_link
from dask_hpsearch.exceptions import (
    RunCancelledError,
    SearchStopped,
    StoreError,
    UnpicklableError,
    UntrustedObjectError,
)
from dask_hpsearch.execution.cost import meter_of
from dask_hpsearch.execution.fit import fit_trials
from dask_hpsearch.execution.reporting import reporting
from dask_hpsearch.journal.events import BestCandidate, ClusterUsage, HeartbeatEvent
from dask_hpsearch.journal.next_steps import add_next_step
from dask_hpsearch.journal.run_journal import RunJournal
from dask_hpsearch.journal.run_state import RunState
from dask_hpsearch.journal.serialization import shown
from dask_hpsearch.runs.dask_page import show_on_dask
from dask_hpsearch.runs.requests import list_requests, requested_states
from dask_hpsearch.runs.result import result_name, without_estimator
from dask_hpsearch.runs.run import SearchRun
from dask_hpsearch.runs.states import StateNotes
from dask_hpsearch.strategies import model_states

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from dask_hpsearch.budget import CostMeter
    from dask_hpsearch.data import DataStore
    from dask_hpsearch.engine.engine import Engine
    from dask_hpsearch.execution.fitted import Fitted
    from dask_hpsearch.execution.reporting import Reporting
    from dask_hpsearch.execution.settings import Settings
    from dask_hpsearch.journal.folder import RunFolder
    from dask_hpsearch.runs.create import Work

_logger = logging.getLogger(__name__)
_POLL_S = 0.5
_POLLS_PER_HEARTBEAT = 10
_CANCEL_TIMEOUT_S = 5.0


class _Stop:
    """The first reason to stop, for an engine that may start later."""

    def __init__(self) -> None:
        self.store_error: StoreError | None = None
        self._reason: str | None = None
        self._requested_at = 0.0
        self._engine: Engine | None = None
        self._dashboard = ""
        self._lock = threading.Lock()

    def set_engine(self, engine: Engine) -> None:
        dashboard = dashboard_link(engine.client)
        with self._lock:
            self._dashboard = dashboard
            self._engine = engine
            if self._reason is not None:
                engine.stop(self._reason)

    def __call__(self, reason: str) -> None:
        with self._lock:
            cancelled = RunState.CANCELLED
            more_urgent = reason == cancelled and self._reason != cancelled
            if self._reason is None or more_urgent:
                self._reason = reason
                self._requested_at = time.monotonic()
                if self._engine is not None:
                    self._engine.stop(reason)

    def usage(self) -> ClusterUsage | None:
        """Return the cluster's size and problem; None before the engine starts."""
        with self._lock:
            if self._engine is None:
                return None
            watch = self._engine.watch
            return ClusterUsage(
                workers=watch.workers,
                slots=watch.slots,
                running=watch.running,
                problem=self._engine.problems.text,
                dashboard=self._dashboard,
            )

    def is_overdue(self) -> bool:
        """Whether the run was cancelled some time ago, and the driver has not ended."""
        waited = time.monotonic() - self._requested_at
        return self._reason == RunState.CANCELLED and waited > _CANCEL_TIMEOUT_S

    def give_up(self, error: StoreError) -> None:
        self.store_error = self.store_error or error
        self("store")


def drive_run(
    folder: RunFolder,
    work: Work,
    data_store: DataStore,
    settings: Settings,
    *,
    generation: int = 0,
    driver: str | None = None,
    ignored: Collection[str] = (),
    will_retry: Callable[[BaseException], bool] = lambda _: False,
    heartbeat_timeout_s: float | None = None,
    before_end: Callable[[], None] = lambda: None,
) -> Fitted:
    """Fit a run's search from where its journal ends, and store the result.

    Parameters
    ----------
    folder : RunFolder
    work : Work
    data_store : DataStore
    settings : Settings
    generation : int
        Of the run.
    driver : str, optional
        Name of this driver, if the process ends with it.
    ignored : collection of str
        Requests that were made to earlier drivers.
    will_retry, heartbeat_timeout_s
        As for `StateNotes`.
    before_end : callable
        Called when the result is stored, before the journal notes it.

    Raises
    ------
    RunCancelledError
        If the run was cancelled in the meantime.
    StoreError
        If the store can no longer be written; ``error.partial`` is the search fitted on
        the candidates that had finished.
    """
    stop, upload = _Stop(), EarlyUpload(data_store)
    journal = RunJournal(
        folder,
        generation=generation,
        on_error=stop.give_up,
        on_splits=functools.partial(upload, what="a split"),
    )
    notes = StateNotes(
        journal,
        driver or uuid.uuid4().hex,
        own=driver is not None,
        will_retry=will_retry,
        heartbeat_timeout_s=heartbeat_timeout_s,
    )
    meter = meter_of(settings, journal.spent_usd, journal.spent_earlier_usd)
    try:
        notes.note(RunState.RUNNING)
        with reporting(work.search, settings, journal) as reports:
            with _handling_requests(folder, journal, stop, ignored, notes, meter=meter):
                fitted = _fit(
                    work,
                    settings,
                    data_store,
                    journal,
                    stop,
                    meter=meter,
                    reports=reports,
                )
            fitted, unstored = _store_result(folder, journal, fitted, generation)
            with _noting_heartbeats(journal):
                reports.fit_ended()
                reports.result_stored(fitted, work.X)
        if fitted.stopped is None and journal.has_models:
            model_states.remove_all(folder.store)
        before_end()
        _note_result(notes, fitted, unstored)
    except BaseException as error:
        notes.note_end(error)
        if not isinstance(error, RunCancelledError):
            add_next_step(error, folder.store.url)
        raise
    finally:
        upload.close()
        _close(journal)
    return fitted


def _fit(
    work: Work,
    settings: Settings,
    data_store: DataStore,
    journal: RunJournal,
    stop: _Stop,
    *,
    meter: CostMeter | None,
    reports: Reporting,
) -> Fitted:
    def on_engine(engine: Engine) -> None:
        stop.set_engine(engine)
        show_on_dask(engine.client, SearchRun(journal.folder))

    try:
        fitted = fit_trials(
            work.search,
            work.X,
            work.y,
            work.params,
            settings,
            data_store=data_store,
            journal=journal,
            meter=meter,
            on_engine=on_engine,
            listener=reports.listener,
        )
    except SearchStopped as stopped:  # with nothing finished
        if stop.store_error is None:
            raise
        raise stop.store_error from stopped
    if stop.store_error is not None:
        raise _with_partial(stop.store_error, fitted)
    return fitted


def _with_partial(error: StoreError, fitted: Fitted) -> StoreError:
    error.partial = fitted.search
    error.add_note(
        "the candidates that had finished are in memory: error.partial is the search "
        "fitted on them (DaskSearchCV has it as search_)"
    )
    return error


def _close(journal: RunJournal) -> None:
    try:
        journal.close()
    except StoreError as error:
        _logger.error("the journal's last events are not written: %s", error)  # noqa: TRY400 (a message is enough)


def _store_result(
    folder: RunFolder, journal: RunJournal, fitted: Fitted, generation: int
) -> tuple[Fitted, str]:
    """Store the result once; a second driver uses the one that is there.

    Returns
    -------
    fitted : Fitted
    unstored : str
        Why the refitted estimator is not in the store; "" if it is.
    """
    whole, slim = (result_name(generation, estimator=one) for one in (True, False))
    unstored = ""
    try:
        journal.flush()
        try:
            if not folder.create_pickle(whole, (fitted.search, fitted.stopped)):
                fitted = _found(folder, whole, fitted)
        except UnpicklableError as error:
            unstored = str(error)
            _logger.warning("the run keeps its result without the estimator: %s", error)
        folder.create_pickle(slim, (without_estimator(fitted.search), fitted.stopped))
    except StoreError as error:
        raise _with_partial(error, fitted) from error.__cause__
    except UnpicklableError as error:
        unstored = str(error)
        _logger.warning("the run keeps no result: %s", error)
    return fitted, unstored


def _found(folder: RunFolder, name: str, own: Fitted) -> Fitted:
    """Return the stored result: its driver may have asked for other candidates."""
    try:
        search, stopped = folder.load_pickle(name)
    except UntrustedObjectError as error:
        _logger.warning("%s: this driver's result cannot be stored", error)
        return own
    has_more = stopped is not None and own.stopped is None
    return own if has_more else replace(own, search=search, stopped=stopped)


def _note_result(notes: StateNotes, fitted: Fitted, unstored: str) -> None:
    score, params = sklearn_adapter.best_of(fitted.search)
    best = BestCandidate()
    if params is not None:
        best = BestCandidate(score=score, params=shown(params))
    notes.note_result(best, reason=fitted.stopped, unstored=unstored)


def _end_process(journal: RunJournal, notes: StateNotes) -> None:
    """End a driver that cannot stop its work, such as a long refit."""
    notes.note(RunState.CANCELLED)
    _close(journal)
    os._exit(1)


@contextmanager
def _handling_requests(
    folder: RunFolder,
    journal: RunJournal,
    stop: _Stop,
    ignored: Collection[str],
    notes: StateNotes,
    *,
    meter: CostMeter | None,
) -> Iterator[None]:
    """Stop or cancel the run on request, and note heartbeats, while the context lasts."""
    ended = threading.Event()

    def poll() -> None:
        polls = 0
        knows_slots = False
        while not ended.wait(_POLL_S if polls else 0.0):
            polls += 1
            try:
                names = list_requests(folder.store)
            except StoreError:
                continue
            for state in requested_states(set(names).difference(ignored)):
                stop(state.value)  # it may be pickled with the result
            if notes.own and stop.is_overdue():
                _end_process(journal, notes)
            usage = stop.usage()
            first = not knows_slots and usage is not None and usage.slots > 0
            if first or polls % _POLLS_PER_HEARTBEAT == 0:
                knows_slots = knows_slots or first
                peak_nbytes = _peak_nbytes() if notes.own else 0
                _note_heartbeat(journal, meter, usage, peak_nbytes)

    thread = threading.Thread(target=poll, name="dask-hpsearch-requests", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        if meter is not None:
            _note_heartbeat(journal, meter)


@contextmanager
def _noting_heartbeats(journal: RunJournal) -> Iterator[None]:
    """Note heartbeats while the context lasts."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(_POLL_S * _POLLS_PER_HEARTBEAT):
            _note_heartbeat(journal, None)

    thread = threading.Thread(target=beat, name="dask-hpsearch-heartbeats", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _note_heartbeat(
    journal: RunJournal,
    meter: CostMeter | None,
    usage: ClusterUsage | None = None,
    peak_nbytes: int = 0,
) -> None:
    """Note that the driver is alive, what it uses, and the cost so far."""
    event = HeartbeatEvent(
        generation=journal.generation,
        time=time.time(),
        usage=usage,
        cost_usd=None if meter is None else round(meter.usd, 6),
        peak_nbytes=peak_nbytes,
    )
    journal.note(event)


def _peak_nbytes() -> int:
    """Return the most memory that this process has used, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
