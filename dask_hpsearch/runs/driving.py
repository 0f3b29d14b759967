"""Drives a run: journal, requests of others, result; in whichever process."""

from __future__ import annotations

import copy
import logging
import os
import socket
import threading
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dask_hpsearch.driver import Fitted, Settings, fit_trials
from dask_hpsearch.errors import RunCancelledError, StoreError
from dask_hpsearch.journal.record import RunJournal
from dask_hpsearch.runs.processes import started_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dask_hpsearch.data import DataHome
    from dask_hpsearch.journal.folder import RunFolder
    from dask_hpsearch.runs.beginning import Work

_logger = logging.getLogger(__name__)
REQUESTS = "requests/"
_LOOK_EVERY_S = 0.5
_BEATS_EVERY_LOOKS = 10


def result_name(generation: int, *, estimator: bool) -> str:
    """Name of the object that holds a run's result."""
    return (
        f"result-{generation}.pkl"
        if estimator
        else f"result-without-estimator-{generation}.pkl"
    )


def drive_run(
    folder: RunFolder,
    work: Work,
    home: DataHome,
    settings: Settings,
    *,
    generation: int = 0,
) -> Fitted:
    """Fit a run's search, from where its journal ends, and store the result.

    Raises
    ------
    RunCancelledError
        If the run was cancelled meanwhile.
    StoreError
        If the store cannot be written any more; ``error.partial`` is the search with
        what had finished by then.
    """
    trouble: list[StoreError] = []
    stops: list[Callable[[str], None]] = []

    def give_up(error: StoreError) -> None:
        trouble.append(error)
        for stop in stops:
            stop("store")

    journal = RunJournal(folder, generation=generation, on_error=give_up)
    try:
        _note_state(journal, "running")
        with _watching(folder, journal, stops):
            fitted = fit_trials(
                work.search,
                work.X,
                work.y,
                work.params,
                settings,
                home=home,
                journal=journal,
                on_engine=lambda engine: stops.append(engine.stop),
            )
        _raise_if(trouble, fitted)
        journal.flush()
        _store_result(folder, fitted, generation)
        _note_state(journal, "stopped" if fitted.stopped else "finished")
    except BaseException as error:
        _note_end(journal, error)
        raise
    finally:
        _close(journal)
    return fitted


def _raise_if(trouble: list[StoreError], fitted: Fitted) -> None:
    if trouble:
        error = trouble[0]
        error.partial = fitted.search
        error.add_note(
            "the candidates that had finished are in memory: error.partial is the search "
            "fitted on them (DaskSearchCV has it as search_)"
        )
        raise error


def _note_state(journal: RunJournal, state: str, **more: Any) -> None:
    journal.note(
        "state",
        state=state,
        host=socket.gethostname(),
        pid=os.getpid(),
        process=started_at(os.getpid()),
        **more,
    )


def _note_end(journal: RunJournal, error: BaseException) -> None:
    if isinstance(error, RunCancelledError):
        _note_state(journal, "cancelled")
    elif isinstance(error, KeyboardInterrupt):
        _note_state(journal, "interrupted")
    else:
        text = "".join(traceback.format_exception_only(error)).strip()
        _note_state(journal, "failed", error=text)


def _close(journal: RunJournal) -> None:
    try:
        journal.close()
    except StoreError:
        _logger.exception("the journal's last events could not be written")


def _store_result(folder: RunFolder, fitted: Fitted, generation: int) -> None:
    """Store the result once: whoever comes second finds it there."""
    slim = copy.copy(fitted.search)
    vars(slim).pop("best_estimator_", None)
    folder.create_pickle(
        result_name(generation, estimator=False), (slim, fitted.stopped)
    )
    folder.create_pickle(
        result_name(generation, estimator=True), (fitted.search, fitted.stopped)
    )


@contextmanager
def _watching(
    folder: RunFolder, journal: RunJournal, stops: list[Callable[[str], None]]
) -> Iterator[None]:
    """Look for requests to stop or cancel, and show that the driver is alive."""
    ended = threading.Event()
    seen = {one.name for one in folder.store.list(REQUESTS)}

    def look() -> None:
        looks = 0
        while not ended.wait(_LOOK_EVERY_S):
            looks += 1
            try:
                names = {one.name for one in folder.store.list(REQUESTS)} - seen
            except StoreError:
                continue
            for reason in ("cancelled", "stopped"):
                if any(name.startswith(f"{REQUESTS}{reason}-") for name in names):
                    for stop in stops:
                        stop(reason)
            if looks % _BEATS_EVERY_LOOKS == 0:
                journal.note("beat")

    thread = threading.Thread(target=look, name="dask-hpsearch-requests", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
