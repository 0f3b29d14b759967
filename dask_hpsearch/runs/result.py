"""What a run that is over has: its result, or why there is none, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dask_hpsearch.exceptions import (
    HPSearchError,
    ResultUnreadableError,
    RunCancelledError,
    RunFailedError,
)
from dask_hpsearch.journal import next_steps
from dask_hpsearch.runs.driver.drive import result_name, without_estimator
from dask_hpsearch.runs.generations import generation_of
from dask_hpsearch.runs.logs import last_word, logs_of

if TYPE_CHECKING:
    from dask_hpsearch.journal.folder import RunFolder

_LOG_TAIL = 2000


def load_result(
    folder: RunFolder, generation: int, *, estimator: bool
) -> tuple[Any, str | None]:
    """Load the fitted search, and why it covers only a part, if it does.

    Parameters
    ----------
    folder : RunFolder
    generation : int
    estimator : bool
        Whether with the refitted estimator, which may be large.

    Raises
    ------
    ObjectNotFoundError
        If there is none.
    ResultUnreadableError
        If it refers to what this process lacks.
    """
    whole, slim = (result_name(generation, estimator=one) for one in (True, False))
    if not estimator and folder.exists(slim):
        return _loaded(folder, slim)
    search, stopped = _loaded(folder, whole)
    # Its driver may have been killed between the two.
    return search if estimator else without_estimator(search), stopped


def _loaded(folder: RunFolder, name: str) -> tuple[Any, str | None]:
    """Load a result, of which a part may be defined elsewhere."""
    try:
        found: tuple[Any, str | None] = folder.load_pickle(name)
    except (AttributeError, ImportError) as error:
        if isinstance(error, HPSearchError):
            raise
        msg = (
            f"the result of run {folder.run_id} refers to what this process lacks "
            f"({type(error).__name__}: {error}): import or define it here first, or read "
            "the result without the fitted estimator, result(estimator=False)"
        )
        raise ResultUnreadableError(msg) from error
    return found


def why_unstored(
    folder: RunFolder, state: str, why: str, *, estimator: bool
) -> Exception:
    """Make the error of a run that ended well, and whose result is not in the store.

    Parameters
    ----------
    folder : RunFolder
    state : str
    why : str
        What kept it out.
    estimator : bool
        Whether the whole result was asked for.
    """
    text = f"run {folder.run_id} is {state}, but its result is not in the store: {why}"
    if estimator and folder.exists(result_name(generation_of(folder), estimator=False)):
        way = "result(estimator=False) has all but the fitted estimator"
    else:
        way = "trials() has the scores, best() the best parameters"
    return RunFailedError(f"{text}; {way}")


def why_no_result(folder: RunFolder, state: str, text: str) -> HPSearchError:
    """Make the error of a run without a result.

    Parameters
    ----------
    folder : RunFolder
    state : str
        One of `states.ENDED`.
    text : str
        The error that ended it, if its journal has one.
    """
    run_id = folder.run_id
    if state == "cancelled":
        return RunCancelledError(f"run {run_id} was cancelled")
    if state == "failed" and text.startswith("its driver"):
        logs = logs_of(folder.store, run_id)
        tail = "\n".join(logs.values())[-_LOG_TAIL:]
        way = f"its log ends with:\n{tail}"
    else:
        more = "logs() has more, " if state == "failed" else ""
        way = f"{more}{next_steps.to_go_on(folder.store.url)}"
    text = text or last_word(run_id)
    was = state if state == "failed" else f"was {state}"
    why = f": {text}" if text else ""
    if folder.store.url in text:  # it says itself how it goes on
        return RunFailedError(f"run {run_id} has no result, it {was}{why}")
    return RunFailedError(f"run {run_id} has no result, it {was}{why}; {way}")
