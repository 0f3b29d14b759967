"""The result of a run that has ended, or the error that says why there is none."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from dask_hpsearch.exceptions import (
    HPSearchError,
    ResultUnreadableError,
    RunCancelledError,
    RunFailedError,
)
from dask_hpsearch.journal import next_steps
from dask_hpsearch.journal.run_state import RunState
from dask_hpsearch.runs.generations import current_generation
from dask_hpsearch.runs.logs import logs_of, read_last_error

if TYPE_CHECKING:
    from dask_hpsearch.journal.folder import RunFolder

_LOG_TAIL = 2000
_BRACKETS = "_SuccessiveHalvings_"  # the fitted brackets of dask-ml's HyperbandSearchCV


def result_name(generation: int, *, estimator: bool) -> str:
    """Return the name of the object that holds a run's result."""
    return (
        f"result-{generation}.pkl"
        if estimator
        else f"result-without-estimator-{generation}.pkl"
    )


def without_estimator(search: Any) -> Any:
    """Return a copy of a fitted search without its refitted estimator."""
    slim = copy.copy(search)
    vars(slim).pop("best_estimator_", None)
    brackets = vars(slim).get(_BRACKETS)
    if brackets is not None:
        own = {number: without_estimator(one) for number, one in brackets.items()}
        vars(slim)[_BRACKETS] = own
    return slim


def load_result(
    folder: RunFolder, generation: int, *, estimator: bool
) -> tuple[Any, str | None]:
    """Load the fitted search, and why it was stopped early, if it was.

    Parameters
    ----------
    folder : RunFolder
    generation : int
    estimator : bool
        Whether to load the refitted estimator, which may be large.

    Raises
    ------
    ObjectNotFoundError
        If there is none.
    ResultUnreadableError
        If it refers to a module or name that this process lacks.
    """
    whole, slim = (result_name(generation, estimator=one) for one in (True, False))
    if not estimator and folder.exists(slim):
        return _loaded(folder, slim)
    search, stopped = _loaded(folder, whole)
    # The driver may have been killed between storing the two.
    return search if estimator else without_estimator(search), stopped


def _loaded(folder: RunFolder, name: str) -> tuple[Any, str | None]:
    """Load a result, which may refer to names that are not defined here."""
    try:
        found: tuple[Any, str | None] = folder.load_pickle(name)
    except (AttributeError, ImportError) as error:
        if isinstance(error, HPSearchError):
            raise
        msg = (
            f"the result of run {folder.run_id} refers to a name that this process lacks "
            f"({type(error).__name__}: {error}): import or define it here first, or read "
            "the result without the fitted estimator, result(estimator=False)"
        )
        raise ResultUnreadableError(msg) from error
    return found


def why_unstored(
    folder: RunFolder, state: RunState, why: str, *, estimator: bool
) -> Exception:
    """Return the error for a run that ended well but has no result in the store.

    Parameters
    ----------
    folder : RunFolder
    state : RunState
    why : str
        Why the result is not stored.
    estimator : bool
        Whether the whole result was asked for.
    """
    text = f"run {folder.run_id} is {state}, but its result is not in the store: {why}"
    slim = result_name(current_generation(folder), estimator=False)
    if estimator and folder.exists(slim):
        way = "result(estimator=False) has all but the fitted estimator"
    else:
        way = "trials() has the scores, best() the best parameters"
    return RunFailedError(f"{text}; {way}")


def why_no_result(folder: RunFolder, state: RunState, text: str) -> HPSearchError:
    """Return the error for a run that ended without a result.

    Parameters
    ----------
    folder : RunFolder
    state : RunState
    text : str
        The error that ended the run, if its journal has one.
    """
    run_id = folder.run_id
    if state == RunState.CANCELLED:
        return RunCancelledError(f"run {run_id} was cancelled")
    if state == RunState.FAILED and text.startswith("its driver"):
        logs = logs_of(folder.store, run_id)
        tail = "\n".join(logs.values())[-_LOG_TAIL:]
        way = f"its log ends with:\n{tail}"
    else:
        more = "logs() has more, " if state == RunState.FAILED else ""
        way = f"{more}{next_steps.to_resume(folder.store.url)}"
    text = text or read_last_error(run_id)
    was = str(state) if state == RunState.FAILED else f"was {state}"
    why = f": {text}" if text else ""
    if folder.store.url in text:  # the text has the next step
        return RunFailedError(f"run {run_id} has no result, it {was}{why}")
    return RunFailedError(f"run {run_id} has no result, it {was}{why}; {way}")
