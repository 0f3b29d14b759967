"""A fit whose driver is elsewhere: this process looks on, and takes the result."""

from __future__ import annotations

import contextlib
import warnings
from typing import TYPE_CHECKING

from dask_hpsearch.driver import Fitted
from dask_hpsearch.errors import SearchStoppedWarning
from dask_hpsearch.progress import ProgressSnapshot, SearchProgress, show

if TYPE_CHECKING:
    from dask_hpsearch.runs.run import SearchRun

_LOOK_EVERY_S = 1.0


class ProgressFromAfar(SearchProgress):
    """The progress of a run, as of the last look at its journal."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = ProgressSnapshot()

    def snapshot(self) -> ProgressSnapshot:
        """Return what was seen last."""
        return self.seen


def follow(run: SearchRun, *, progress: bool) -> Fitted:
    """Wait for a run's end and return its result, as a fit in this process would.

    A first Ctrl-C ends the run with what has finished; a second one leaves it to itself.

    Parameters
    ----------
    run : SearchRun
    progress : bool
        Whether to show how far it is.

    Raises
    ------
    RunFailedError, RunCancelledError
        If it has no result.
    """
    seen = ProgressFromAfar()
    interrupted = False
    with show(seen, enabled=progress):
        try:
            _wait(run, seen)
        except KeyboardInterrupt:
            interrupted = True
            run.stop()
            _wait(run, seen)
        seen.seen, _ = run.look()
    search, stopped = run.outcome()
    if stopped is not None:
        stopped = "interrupted" if interrupted else stopped
        _warn_stopped(search, stopped)
    return Fitted(search, stopped, run.url)


def _wait(run: SearchRun, seen: ProgressFromAfar) -> None:
    while True:
        seen.seen, _ = run.look()
        with contextlib.suppress(TimeoutError):
            run.wait(_LOOK_EVERY_S)
            return


def _warn_stopped(search: object, stopped: str) -> None:
    done = len(getattr(search, "cv_results_", {}).get("params", ()))
    warnings.warn(
        f"the search was stopped ({stopped}): its results cover the {done} candidates "
        "that had finished",
        SearchStoppedWarning,
        stacklevel=5,
    )
