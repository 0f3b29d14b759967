"""Where a run's state is decided, from the events of its drivers, and where it is noted."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from dask_hpsearch.exceptions import ClientClosedError, RunCancelledError, SearchStopped
from dask_hpsearch.journal.events import StateEvent
from dask_hpsearch.journal.run_state import RunState
from dask_hpsearch.journal.segments import write_once
from dask_hpsearch.raised_errors import came_from_fit
from dask_hpsearch.runs.driver_process import (
    describe_process,
    is_on_this_machine,
    is_running,
)
from dask_hpsearch.safe_text import message_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from dask_hpsearch.journal.events import BestCandidate, DriverProcess, Event
    from dask_hpsearch.journal.folder import RunFolder
    from dask_hpsearch.journal.run_journal import RunJournal

# Errors that end a driver, and are not the search's own.
_INTERRUPTIONS = (KeyboardInterrupt, ClientClosedError, SearchStopped)
_START_TIMEOUT_S = 60.0
_HEARTBEAT_TIMEOUT_S = 60.0


def state_of(
    events: Iterable[Event], *, generation: int, created: float, has_result: bool
) -> tuple[RunState, str]:
    """Decide the state of a run.

    Parameters
    ----------
    events : iterable of Event
        All events of its journal.
    generation : int
        The current generation; states of earlier ones do not count.
    created : float
        When the run was created, in seconds since the epoch.
    has_result : bool
        Whether the result of this generation is in the store.

    Returns
    -------
    state : RunState
    error : str
        The error that ended the run; empty if there is none.
    """
    events = list(events)
    noted = _states(events, generation)
    last = _last_of_each_driver(noted)
    if not last:
        young = time.time() - created < _START_TIMEOUT_S
        return (RunState.STARTING if young else RunState.INTERRUPTED), ""
    for event in noted:  # decisive, whatever other drivers noted by clocks that differ
        if event.state.has_result:
            return event.state, ""
    newest_time = max(event.time for event in events)
    alive = {event.state for event in last if _is_alive(event, newest_time)}
    if alive:
        running = RunState.RUNNING in alive
        return (RunState.RUNNING if running else RunState.STARTING), ""
    newest = last[-1]
    if newest.state == RunState.RUNNING:
        return (RunState.FINISHED if has_result else RunState.INTERRUPTED), ""
    if newest.state == RunState.STARTING:
        return RunState.FAILED, newest.error or "its driver did not start"
    return newest.state, newest.error


def why_ended(
    events: Iterable[Event], state: RunState, *, generation: int
) -> str | None:
    """Return in a word why a run ended early; None if it did not.

    Parameters
    ----------
    events : iterable of Event
    state : RunState
        As `state_of` decides it.
    generation : int
    """
    if state == RunState.FINISHED or state.is_under_way:
        return None
    noted = _states(events, generation)
    reasons = (event.reason for event in noted if event.state == state)
    return next((reason for reason in reasons if reason), str(state))


def why_not_stored(events: Iterable[Event], *, generation: int) -> str:
    """Return why the result of a run that ended well is not whole in its store."""
    texts = (event.unstored for event in _states(events, generation))
    return next((text for text in texts if text), "it is gone")


def _states(events: Iterable[Event], generation: int) -> list[StateEvent]:
    """Return the states that were noted in a generation."""
    return [
        event
        for event in events
        if isinstance(event, StateEvent) and event.generation == generation
    ]


def _last_of_each_driver(noted: Sequence[StateEvent]) -> list[StateEvent]:
    """Return the last state that each driver noted, in order of time."""
    ordered = sorted(noted, key=lambda event: event.time)
    last = {event.process.driver: event for event in ordered}
    return sorted(last.values(), key=lambda event: event.time)


def _is_alive(noted: StateEvent, newest_time: float) -> bool:
    """Whether the driver that noted a state is still alive.

    A process of its own ends with the driver. One that the driver shares, such as a
    notebook's, may run longer than the driver: then heartbeats decide.
    """
    if not noted.state.is_under_way:
        return False
    process = noted.process
    # Kubernetes starts a lost Job again, which may have to wait for a node.
    timeout_s = process.heartbeat_timeout_s
    timeout_s = _HEARTBEAT_TIMEOUT_S if timeout_s is None else timeout_s
    silent = time.time() - newest_time > timeout_s
    if not is_on_this_machine(process):
        return not silent
    return is_running(process) and (process.own or not silent)


class StateNotes:
    """Notes a driver's states in the run's journal.

    Parameters
    ----------
    journal : RunJournal
    driver : str
        Name of the driver, unique.
    own : bool
        Whether this process ends with the driver.
    will_retry : callable
        Whether the driver tries again after an error.
    heartbeat_timeout_s : float, optional
        As for `describe_process`.
    """

    def __init__(
        self,
        journal: RunJournal,
        driver: str,
        *,
        own: bool,
        will_retry: Callable[[BaseException], bool] = lambda _: False,
        heartbeat_timeout_s: float | None = None,
    ) -> None:
        self._journal = journal
        self.own = own
        self._will_retry = will_retry
        self._process = describe_process(
            driver, os.getpid(), own=own, heartbeat_timeout_s=heartbeat_timeout_s
        )

    def note(self, state: RunState, *, error: str = "") -> None:
        """Note a state without a result."""
        event = StateEvent(
            generation=self._journal.generation,
            time=time.time(),
            state=state,
            process=self._process,
            error=error,
        )
        self._journal.note(event)

    def note_result(
        self, best: BestCandidate, *, reason: str | None, unstored: str
    ) -> None:
        """Note that there is a result, for readers that do not load it.

        Parameters
        ----------
        best : BestCandidate
        reason : str or None
            Why the search was stopped early, if it was.
        unstored : str
            Why the result is not whole in the store.
        """
        event = StateEvent(
            generation=self._journal.generation,
            time=time.time(),
            state=RunState.STOPPED if reason else RunState.FINISHED,
            process=self._process,
            best=best,
            reason=reason,
            unstored=unstored,
        )
        self._journal.note(event)

    def note_end(self, error: BaseException) -> None:
        """Note how an error ended the driver.

        A lost scheduler interrupts a run: it can be resumed on another one. So does a
        stop before the first candidate: the run can be resumed with more time.
        """
        text = f"{type(error).__name__}: {message_of(error)}"
        if isinstance(error, RunCancelledError):
            self.note(RunState.CANCELLED)
        elif self._will_retry(error):
            self.note(RunState.STARTING, error=text)
        elif isinstance(error, _INTERRUPTIONS) and not came_from_fit(error):
            self.note(RunState.INTERRUPTED, error=text)
        else:
            # Looking at a run, which imports this module too, needs nothing of slots.
            from dask_hpsearch.slots import no_internet

            no_internet.explain(error)  # a refit is fitted by the driver
            explanation = no_internet.explanation_of(error)
            text = f"{text}. {explanation}" if explanation else text
            self.note(RunState.FAILED, error=text)


def note_state(
    folder: RunFolder,
    state: RunState,
    process: DriverProcess,
    *,
    generation: int,
    at: float | None = None,
    error: str = "",
) -> None:
    """Note a state in a run's journal from a process that does not drive the run.

    Parameters
    ----------
    folder : RunFolder
    state : RunState
    process : DriverProcess
        The driver on whose behalf it is noted.
    generation : int
    at : float, optional
        Seconds since the epoch; default: now.
    error : str

    Raises
    ------
    StoreError
        If the store cannot be written.
    """
    event = StateEvent(
        generation=generation,
        time=time.time() if at is None else at,
        state=state,
        process=process,
        error=error,
    )
    write_once(folder.store, folder.run_id, folder.signing_key(), [event])
