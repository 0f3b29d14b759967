"""The states of a run, as its journal stores them and as users read them."""

from __future__ import annotations

import enum


class RunState(enum.StrEnum):
    """The state of a run; each is equal to its plain word, and prints as it.

    `dask_hpsearch.runs.states` decides which of them a run is in.
    """

    STARTING = "starting"
    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"
    CANCELLED = "cancelled"
    FAILED = "failed"
    INTERRUPTED = "interrupted"

    def __repr__(self) -> str:
        return repr(self.value)

    @property
    def is_under_way(self) -> bool:
        """Whether a driver works on the run, or is about to."""
        return self in (RunState.STARTING, RunState.RUNNING)

    @property
    def has_ended(self) -> bool:
        """Whether nothing more happens to the run unless a user resumes it."""
        return not self.is_under_way

    @property
    def has_result(self) -> bool:
        """Whether the run has a fitted search, of all candidates or of some."""
        return self in (RunState.FINISHED, RunState.STOPPED)
