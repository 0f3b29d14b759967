"""A fit whose driver is a Job: this process displays the progress and returns the result."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from dask_hpsearch.exceptions import PodStartError, RunFailedError, StoreError
from dask_hpsearch.execution.fitted import Fitted, warn_stopped
from dask_hpsearch.journal import next_steps
from dask_hpsearch.journal.run_state import RunState
from dask_hpsearch.runs.watch import RemoteProgress, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dask_hpsearch.runs.run import SearchRun


def follow(run: SearchRun, *, progress: bool) -> Fitted:
    """Wait for a run's end and return its result, as a fit in this process would.

    The first Ctrl-C ends the run with the candidates that have finished, or cancels it if
    no driver has started; the second one leaves it going.

    Parameters
    ----------
    run : SearchRun
    progress : bool
        Whether to display the progress.

    Raises
    ------
    RunFailedError, RunCancelledError
        If it has no result.
    PodStartError
        If its driver cannot start; the run is cancelled.
    KeyboardInterrupt
        If that came before any candidate had finished, or twice.
    """
    seen = RemoteProgress(run)
    with shown(run, seen, enabled=progress, blocks=True):
        interrupted = _wait_for_end(run, seen)
        try:
            search, stopped = run.outcome()
        except RunFailedError as error:
            if not interrupted:
                raise
            seen.end("interrupted")
            raise KeyboardInterrupt from error
        if stopped is not None and interrupted:
            stopped = "interrupted"
        seen.end(stopped)
    if stopped is not None:
        done = len(getattr(search, "cv_results_", {}).get("params", ()))
        hint = next_steps.to_resume(run.url)
        warn_stopped(stopped, f"{done} candidates that had finished", hint)
    return Fitted(search, stopped, run.url)


def _wait_for_end(run: SearchRun, seen: RemoteProgress) -> bool:
    """Wait until the run has ended; return whether Ctrl-C has stopped it early."""
    with _noting_next_step(run):
        try:
            seen.wait()
        except KeyboardInterrupt:
            if seen.refresh() != RunState.STARTING or seen.snapshot().fits_done:
                run.stop()
                seen.wait()
                return True
        else:
            return False
    run.cancel()  # it has no driver and no result
    raise KeyboardInterrupt


@contextmanager
def _noting_next_step(run: SearchRun) -> Iterator[None]:
    """Add to an error whether the run continues."""
    try:
        yield
    except PodStartError as error:
        run.cancel()
        again = f"SearchRun.attach({run.url!r}).resume(client)"
        error.add_note(f"the run was cancelled; to try again: {again}")
        raise
    except (KeyboardInterrupt, StoreError) as error:
        error.add_note(f"the run continues: SearchRun.attach({run.url!r}) finds it")
        raise
