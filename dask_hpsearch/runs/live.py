"""The live state of a run, read from its journal as that grows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from dask_hpsearch.journal.events import HeartbeatEvent
from dask_hpsearch.live.candidates import CandidateProgress
from dask_hpsearch.live.state import About, live_state
from dask_hpsearch.runs import views
from dask_hpsearch.runs.generations import current_generation
from dask_hpsearch.runs.states import why_ended

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dask_hpsearch.journal.events import Event
    from dask_hpsearch.live.state import LiveState
    from dask_hpsearch.progress import ProgressSnapshot
    from dask_hpsearch.runs.run import SearchRun


class LiveRun:
    """A run as views show it.

    Parameters
    ----------
    run : SearchRun
    can_scale : bool
        Whether the view can scale the run's cluster.

    Attributes
    ----------
    about : About
    progress : CandidateProgress
        The candidates as of the last `refresh`.
    snapshot : ProgressSnapshot
        The progress as of the last `refresh`.
    """

    def __init__(self, run: SearchRun, *, can_scale: bool = False) -> None:
        self._run = run
        self._can_scale = can_scale
        manifest = run._folder.manifest  # noqa: SLF001 (of this package)
        self.about = About(
            run_id=run.run_id,
            name=run.task_name or "",
            search=manifest.search_class,
            url=run.url,
            created=manifest.created,
        )
        self.progress: CandidateProgress
        self.snapshot: ProgressSnapshot
        self._replay = views.RunProgress(
            refit=manifest.traits["refit"], counter=self._new_counter
        )

    def _new_counter(self, clock: Callable[[], float]) -> CandidateProgress:
        self.progress = CandidateProgress(clock)
        return self.progress

    def refresh(self) -> LiveState:
        """Read what the journal has gained; return the state.

        Raises
        ------
        StoreError
            If the run's store cannot be read.
        """
        run = self._run
        with run._reading:  # noqa: SLF001 (of this package)
            journal = run._reader.read()  # noqa: SLF001
            notes = journal.notes()
            state, error = run._state(notes)  # noqa: SLF001
            generation = current_generation(run._folder)  # noqa: SLF001
            reason = why_ended(notes, state, generation=generation)
            self._replay.update(journal.objects)
            self.snapshot = self._replay.snapshot(ended=state.has_ended, reason=reason)
            problem = run._job_watch.text  # noqa: SLF001
            return live_state(
                self.about,
                self.snapshot,
                self.progress,
                at=time.time(),
                state=str(state),
                error=error,
                problem=problem,
                dashboard=_dashboard_of(notes),
                can_scale=self._can_scale,
            )


def _dashboard_of(notes: Iterable[Event]) -> str:
    """Return the dashboard of the last cluster that a driver noted."""
    noted = [
        one
        for one in notes
        if isinstance(one, HeartbeatEvent) and one.usage is not None
    ]
    last = max(noted, key=lambda one: one.time, default=None)
    return "" if last is None or last.usage is None else last.usage.dashboard
