"""A fit whose driver is elsewhere: this process looks on, and takes the result."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from dask_hpsearch.exceptions import PodStartError, RunFailedError, StoreError
from dask_hpsearch.execution.fitted import Fitted, warn_stopped
from dask_hpsearch.journal import next_steps
from dask_hpsearch.progress import ProgressSnapshot, SearchProgress, show
from dask_hpsearch.runs.states import ENDED, WITH_RESULT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dask_hpsearch.runs.run import SearchRun

_LOOK_EVERY_S = 1.0


class RemoteProgress(SearchProgress):
    """The progress of a run, as of the last look at its journal."""

    def __init__(self, run: SearchRun) -> None:
        super().__init__()
        self._run = run
        self._seen = ProgressSnapshot()
        self.hint = next_steps.to_go_on(run.url)

    def snapshot(self) -> ProgressSnapshot:
        """Return what was seen last."""
        return self._seen

    def look(self) -> str:
        """Look; return the run's state."""
        self._seen, state = self._run.look()
        if self._run.watch.text:
            self._seen = replace(self._seen, problem=self._run.watch.text)
        return state

    def wait(self, timeout: float | None = None) -> None:
        """Look on until the run has ended.

        Raises
        ------
        PodStartError
            If its driver cannot start.
        TimeoutError
            After ``timeout`` seconds.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while (state := self.look()) not in ENDED:
            self._run.watch.look(state)
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                msg = f"run {self._run.run_id} is still {state} after {timeout:g} s"
                raise TimeoutError(msg)
            time.sleep(min(_LOOK_EVERY_S, left_s))
        if state not in WITH_RESULT:
            self.end(state)

    def leave(self, hint: str) -> None:
        """Look on no longer, while the run goes on."""
        self._seen = replace(self._seen, ended=False, reason="goes on")
        self.hint = hint

    def end(self, reason: str | None) -> None:
        """Say why the run was stopped, if it was."""
        self._seen = replace(self._seen, reason=reason)


def look_on(run: SearchRun, timeout: float | None, *, hint: str = "") -> None:
    """Show how far a run is until it has ended; Ctrl-C leaves it to itself.

    Parameters
    ----------
    run : SearchRun
    timeout : float or None
        Seconds to look on at most.
    hint : str
        What to say of a run that is left to itself; default: the calls that end it.

    Raises
    ------
    TimeoutError
        After ``timeout`` seconds; the run goes on.
    KeyboardInterrupt
        As it comes; with a note of how the run is ended.
    PodStartError
        If its driver cannot start.
    """
    hint = hint or next_steps.to_end(run.url)
    seen = RemoteProgress(run)
    with show(seen, enabled=True):
        try:
            seen.wait(timeout)
        except (KeyboardInterrupt, TimeoutError) as error:
            seen.leave(hint)
            error.add_note(f"the run goes on; {hint}")
            raise


def follow(run: SearchRun, *, progress: bool) -> Fitted:
    """Wait for a run's end and return its result, as a fit in this process would.

    A first Ctrl-C ends the run with what has finished, or gives it up if nobody has begun
    it; a second one leaves it to itself.

    Parameters
    ----------
    run : SearchRun
    progress : bool
        Whether to show how far it is.

    Raises
    ------
    RunFailedError, RunCancelledError
        If it has no result.
    PodStartError
        If its driver cannot start; the run is given up.
    KeyboardInterrupt
        If that came before any candidate had finished, or twice.
    """
    seen = RemoteProgress(run)
    with show(seen, enabled=progress):
        interrupted = _watched_to_its_end(run, seen)
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
        hint = next_steps.to_go_on(run.url)
        warn_stopped(stopped, f"{done} candidates that had finished", hint)
    return Fitted(search, stopped, run.url)


def _watched_to_its_end(run: SearchRun, seen: RemoteProgress) -> bool:
    """Look on until the run has ended; return whether Ctrl-C had it end early."""
    with _told_what_becomes_of_it(run):
        try:
            seen.wait()
        except KeyboardInterrupt:
            if seen.look() != "starting" or seen.snapshot().fits_done:
                run.stop()
                seen.wait()
                return True
        else:
            return False
    run.cancel()  # it would wait for a driver, and have nothing
    raise KeyboardInterrupt


@contextmanager
def _told_what_becomes_of_it(run: SearchRun) -> Iterator[None]:
    """Say with an error whether the run goes on."""
    try:
        yield
    except PodStartError as error:
        run.cancel()
        again = f"SearchRun.attach({run.url!r}).resume(client)"
        error.add_note(f"the run is given up; {again} tries it again")
        raise
    except (KeyboardInterrupt, StoreError) as error:
        error.add_note(f"the run goes on: SearchRun.attach({run.url!r}) finds it")
        raise
