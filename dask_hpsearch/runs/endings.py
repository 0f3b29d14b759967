"""What a run that is over has: its result, or why there is none, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dask_hpsearch import next_steps
from dask_hpsearch.errors import HPSearchError, RunCancelledError, RunFailedError
from dask_hpsearch.runs.driving import result_name, without_estimator
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
    """
    whole, slim = (result_name(generation, estimator=one) for one in (True, False))
    if not estimator and folder.exists(slim):
        found: tuple[Any, str | None] = folder.load_pickle(slim)
        return found
    search, stopped = folder.load_pickle(whole)
    # Its driver may have been killed between the two.
    return search if estimator else without_estimator(search), stopped


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
