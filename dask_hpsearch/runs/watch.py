"""Displays a run that is driven elsewhere until it has ended."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from dask_hpsearch.journal import next_steps
from dask_hpsearch.progress import ProgressSnapshot, SearchProgress, show
from dask_hpsearch.progress.environment import in_kernel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dask_hpsearch.journal.run_state import RunState
    from dask_hpsearch.runs.run import SearchRun

_POLL_S = 1.0


class RemoteProgress(SearchProgress):
    """The progress of a run, as its journal had it when it was last read."""

    def __init__(self, run: SearchRun) -> None:
        super().__init__()
        self._run = run
        self._job_watch = run._job_watch  # noqa: SLF001 (of this package)
        self._snapshot = ProgressSnapshot()
        self.hint = next_steps.to_resume(run.url)

    def snapshot(self) -> ProgressSnapshot:
        """Return the progress as of the last `refresh`."""
        return self._snapshot

    def refresh(self) -> RunState:
        """Read the journal; return the run's state."""
        self._snapshot, state = self._run.look()
        if self._job_watch.text:
            self._snapshot = replace(self._snapshot, problem=self._job_watch.text)
        return state

    def wait(self, timeout: float | None = None) -> None:
        """Refresh until the run has ended.

        Raises
        ------
        PodStartError
            If its driver cannot start.
        TimeoutError
            After ``timeout`` seconds.
        """
        state = self._job_watch.wait_for_end(self.refresh, timeout, interval=_POLL_S)
        if not state.has_result:
            self.end(str(state))

    def detach(self, hint: str) -> None:
        """Show that the run continues, and what can be done about it."""
        self._snapshot = replace(self._snapshot, ended=False, reason="continues")
        self.hint = hint

    def end(self, reason: str | None) -> None:
        """Show why the run was stopped, if it was."""
        self._snapshot = replace(self._snapshot, reason=reason)


@contextmanager
def shown(
    run: SearchRun, seen: RemoteProgress, *, enabled: bool, blocks: bool
) -> Iterator[None]:
    """Show a run while the context lasts: in a notebook by the live view.

    Parameters
    ----------
    run : SearchRun
    seen : RemoteProgress
        What is shown elsewhere.
    enabled : bool
    blocks : bool
        Whether interrupting the kernel stops the run. Otherwise, the view follows the run
        after an error such as Ctrl-C.
    """
    if not (enabled and in_kernel()):
        with show(seen, enabled=enabled):
            yield
        return
    from dask_hpsearch.runs.notebook_view import start_view

    view = start_view(run, blocks=blocks)
    try:
        yield
    except BaseException:
        if blocks:
            view.close()
        raise
    view.close()


def watch(run: SearchRun, timeout: float | None, *, hint: str = "") -> None:
    """Display a run's progress until it has ended; Ctrl-C leaves the run going.

    Parameters
    ----------
    run : SearchRun
    timeout : float or None
        Seconds to wait at most.
    hint : str
        What to show for a run that continues; default: the calls that end it.

    Raises
    ------
    TimeoutError
        After ``timeout`` seconds; the run continues.
    KeyboardInterrupt
        On Ctrl-C, with a note that says how to end the run.
    PodStartError
        If its driver cannot start.
    """
    hint = hint or next_steps.to_end(run.url)
    seen = RemoteProgress(run)
    with shown(run, seen, enabled=True, blocks=False):
        try:
            seen.wait(timeout)
        except (KeyboardInterrupt, TimeoutError) as error:
            seen.detach(hint)
            error.add_note(f"the run continues; {hint}")
            raise
