"""Drives a run: journal, requests of others, result; in whichever process."""

from __future__ import annotations

import copy
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
from typing import TYPE_CHECKING, Any

from dask_hpsearch import sklearn_adapter
from dask_hpsearch.data.prefetch import EarlyUpload
from dask_hpsearch.exceptions import (
    RunCancelledError,
    SearchStopped,
    StoreError,
    UnpicklableError,
    UntrustedObjectError,
)
from dask_hpsearch.execution.cost import meter_of
from dask_hpsearch.execution.fit import fit_trials
from dask_hpsearch.journal.next_steps import note_how_to_go_on
from dask_hpsearch.journal.run_journal import RunJournal
from dask_hpsearch.journal.serialization import shown
from dask_hpsearch.runs.states import StateNotes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from dask_hpsearch.budget import CostMeter
    from dask_hpsearch.data import DataStore
    from dask_hpsearch.engine.engine import Engine
    from dask_hpsearch.execution.fitted import Fitted
    from dask_hpsearch.execution.settings import Settings
    from dask_hpsearch.journal.folder import RunFolder
    from dask_hpsearch.runs.create import Work

_logger = logging.getLogger(__name__)
REQUESTS = "requests/"
_LOOK_EVERY_S = 0.5
_BEATS_EVERY_LOOKS = 10
_CANCEL_WAIT_S = 5.0


def result_name(generation: int, *, estimator: bool) -> str:
    """Name of the object that holds a run's result."""
    return (
        f"result-{generation}.pkl"
        if estimator
        else f"result-without-estimator-{generation}.pkl"
    )


class _Stop:
    """The first reason to stop, for an engine that may come later."""

    def __init__(self) -> None:
        self.problem: StoreError | None = None
        self._reason: str | None = None
        self._asked_at = 0.0
        self._engine: Engine | None = None
        self._lock = threading.Lock()

    def engine_runs(self, engine: Engine) -> None:
        with self._lock:
            self._engine = engine
            if self._reason is not None:
                engine.stop(self._reason)

    def __call__(self, reason: str) -> None:
        with self._lock:
            graver = reason == "cancelled" and self._reason != "cancelled"
            if self._reason is None or graver:
                self._reason = reason
                self._asked_at = time.monotonic()
                if self._engine is not None:
                    self._engine.stop(reason)

    def usage(self) -> dict[str, Any]:
        """Tell how large the cluster is, and what is wrong with it, for those who look on."""
        with self._lock:
            if self._engine is None:
                return {}
            watch, problem = self._engine.watch, self._engine.problems.text
            shown = {"x": problem} if problem else {}
            return {"w": watch.workers, "n": watch.slots, "b": watch.running, **shown}

    def is_overdue(self) -> bool:
        """Whether the driver was cancelled, and still has not ended."""
        waited = time.monotonic() - self._asked_at
        return self._reason == "cancelled" and waited > _CANCEL_WAIT_S

    def give_up(self, error: StoreError) -> None:
        self.problem = self.problem or error
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
    goes_on: Callable[[BaseException], bool] = lambda _: False,
    heartbeat_timeout_s: float | None = None,
    before_end: Callable[[], None] = lambda: None,
) -> Fitted:
    """Fit a run's search, from where its journal ends, and store the result.

    Parameters
    ----------
    folder : RunFolder
    work : Work
    data_store : DataStore
    settings : Settings
    generation : int
        How often the run was extended.
    driver : str, optional
        This driver's name, if its process is its own.
    ignored : collection of str
        Requests that were made of earlier drivers.
    goes_on, heartbeat_timeout_s
        As for `StateNotes`.
    before_end : callable
        Called when the result is there, and nobody knows yet.

    Raises
    ------
    RunCancelledError
        If the run was cancelled meanwhile.
    StoreError
        If the store cannot be written any more; ``error.partial`` is the search with
        what had finished by then.
    """
    stop, ahead = _Stop(), EarlyUpload(data_store)
    journal = RunJournal(
        folder,
        generation=generation,
        on_error=stop.give_up,
        on_splits=functools.partial(ahead, what="a split"),
    )
    notes = StateNotes(
        journal,
        driver or uuid.uuid4().hex,
        own=driver is not None,
        goes_on=goes_on,
        heartbeat_timeout_s=heartbeat_timeout_s,
    )
    meter = meter_of(settings, journal.spent_usd, journal.spent_earlier_usd)
    try:
        notes.note("running")
        with _watching(folder, journal, stop, ignored, notes, meter=meter):
            fitted = _fit(work, settings, data_store, journal, stop, meter=meter)
        fitted, unstored = _store_result(folder, journal, fitted, generation)
        before_end()
        _note_result(notes, fitted, unstored)
    except BaseException as error:
        notes.note_end(error)
        if not isinstance(error, RunCancelledError):
            note_how_to_go_on(error, folder.store.url)
        raise
    finally:
        ahead.close()
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
) -> Fitted:
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
            on_engine=stop.engine_runs,
        )
    except SearchStopped as stopped:  # with nothing finished
        if stop.problem is None:
            raise
        raise stop.problem from stopped
    if stop.problem is not None:
        raise _with_partial(stop.problem, fitted)
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
    """Return the result that is there: its driver may have asked for other candidates."""
    try:
        search, stopped = folder.load_pickle(name)
    except UntrustedObjectError as error:
        _logger.warning("%s: another result is kept from its place", error)
        return own
    more_than_that = stopped is not None and own.stopped is None
    return own if more_than_that else replace(own, search=search, stopped=stopped)


def _note_result(notes: StateNotes, fitted: Fitted, unstored: str) -> None:
    """Note that there is a result, and what it says, for those who do not load it."""
    score, params = sklearn_adapter.best_of(fitted.search)
    best = None if params is None else {"score": score, "params": shown(params)}
    notes.note(
        "stopped" if fitted.stopped else "finished",
        best=best,
        reason=fitted.stopped,
        unstored=unstored,
    )


def without_estimator(search: Any) -> Any:
    """Return a fitted search without what is large."""
    slim = copy.copy(search)
    vars(slim).pop("best_estimator_", None)
    return slim


def _end_process(journal: RunJournal, notes: StateNotes) -> None:
    """End a driver that does not listen, such as one in a long refit."""
    notes.note("cancelled")
    _close(journal)
    os._exit(1)


@contextmanager
def _watching(
    folder: RunFolder,
    journal: RunJournal,
    stop: _Stop,
    ignored: Collection[str],
    notes: StateNotes,
    *,
    meter: CostMeter | None,
) -> Iterator[None]:
    """Look for requests to stop or cancel, and show that the driver is alive."""
    ended = threading.Event()

    def look() -> None:
        looks = 0
        while not ended.wait(_LOOK_EVERY_S if looks else 0.0):
            looks += 1
            try:
                names = {one.name for one in folder.store.list(REQUESTS)}
            except StoreError:
                continue
            for reason in ("cancelled", "stopped"):
                asked = f"{REQUESTS}{reason}-"
                if any(name.startswith(asked) for name in names.difference(ignored)):
                    stop(reason)
            if notes.own and stop.is_overdue():
                _end_process(journal, notes)
            if looks % _BEATS_EVERY_LOOKS == 0:
                memory = {"m": _peak_bytes()} if notes.own else {}
                journal.note("beat", **_spent(meter), **stop.usage(), **memory)

    thread = threading.Thread(target=look, name="dask-hpsearch-requests", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        if meter is not None:
            journal.note("beat", **_spent(meter))


def _peak_bytes() -> int:
    """Return the most memory that this process has used."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _spent(meter: CostMeter | None) -> dict[str, float]:
    """Return what a beat says of the cost so far."""
    return {} if meter is None else {"usd": round(meter.usd, 6)}
