"""How a run stands, told from what its drivers noted."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Any

from dask_hpsearch.exceptions import ClientClosedError, RunCancelledError, SearchStopped
from dask_hpsearch.journal.segments import write_once
from dask_hpsearch.raised_errors import came_from_fit
from dask_hpsearch.runs.launch.local_process import is_running, started_at
from dask_hpsearch.safe_text import message_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dask_hpsearch.journal.folder import RunFolder
    from dask_hpsearch.journal.run_journal import RunJournal

Event = dict[str, Any]
ENDED = ("finished", "stopped", "cancelled", "failed", "interrupted")
UNDER_WAY = ("starting", "running")
WITH_RESULT = ("finished", "stopped")
# What ends a driver without being the search's fault.
INTERRUPTIONS = (KeyboardInterrupt, ClientClosedError, SearchStopped)
_STARTING_FOR_S = 60.0
_SILENT_FOR_S = 60.0


def state_of(
    events: Iterable[Event], *, generation: int, created: float, has_result: bool
) -> tuple[str, str]:
    """Tell how a run stands.

    Parameters
    ----------
    events : iterable of dict
        All events of its journal.
    generation : int
        How often it was extended; what drivers noted before counts no more.
    created : float
        When the run was made, in seconds since the epoch.
    has_result : bool

    Returns
    -------
    state, error : str
        One of `ENDED` or `UNDER_WAY`; the text of the error that ended it, if any.
    """
    events = list(events)
    noted = [one for one in events if one["e"] == "state" and one["g"] == generation]
    last = _last_of_each_driver(noted)
    if not last:
        young = time.time() - created < _STARTING_FOR_S
        return ("starting" if young else "interrupted"), ""
    for one in noted:  # whatever else was noted, by clocks that differ
        if one["state"] in WITH_RESULT:
            return one["state"], ""
    newest_t = max(event["t"] for event in events)
    living = [one["state"] for one in last if _lives(one, newest_t)]
    if living:
        return ("running" if "running" in living else "starting"), ""
    newest = last[-1]
    if newest["state"] == "running":
        return ("finished" if has_result else "interrupted"), ""
    if newest["state"] == "starting":
        return "failed", newest.get("error") or "its driver did not start"
    return newest["state"], newest.get("error", "")


def why_ended(events: Iterable[Event], state: str, *, generation: int) -> str | None:
    """Tell in a word why a run ended before its time; None if it did not.

    Parameters
    ----------
    events : iterable of dict
    state : str
        As `state_of` tells it.
    generation : int
    """
    if state == "finished" or state in UNDER_WAY:
        return None
    noted = [one for one in events if one["e"] == "state" and one["g"] == generation]
    reasons = [one.get("reason") for one in noted if one["state"] == state]
    return next((str(one) for one in reasons if one), state)


def why_not_stored(events: Iterable[Event], *, generation: int) -> str:
    """Tell why the result of a run that ended well is not whole in its store."""
    texts = [
        one.get("unstored")
        for one in events
        if one["e"] == "state" and one["g"] == generation
    ]
    return next((str(text) for text in texts if text), "it is gone")


def _last_of_each_driver(noted: list[Event]) -> list[Event]:
    """Last state that each driver noted, in order of time."""
    last = {one["driver"]: one for one in sorted(noted, key=lambda one: one["t"])}
    return sorted(last.values(), key=lambda one: one["t"])


def _lives(noted: Event, newest_t: float) -> bool:
    """Whether the driver that noted a state is still there.

    A process of its own lives as long as the driver; one that the driver shares with a
    notebook may live longer: then there are signs of life, every few seconds.
    """
    if noted["state"] not in UNDER_WAY:
        return False
    # A Job is started again by Kubernetes, and may have to wait for a node.
    silent = time.time() - newest_t > noted.get("heartbeat_timeout", _SILENT_FOR_S)
    if noted["host"] != socket.gethostname() or "heartbeat_timeout" in noted:
        return not silent
    running = is_running(noted["pid"], noted["process"])
    return running and (noted["own"] or not silent)


def signature_of(
    driver: str, pid: int, *, own: bool, heartbeat_timeout_s: float | None = None
) -> dict[str, Any]:
    """Describe a driver's process, as `state_of` reads it.

    Parameters
    ----------
    driver : str
        Its name, unique.
    pid : int
        Its process, on this machine.
    own : bool
        Whether the process ends with the driver.
    heartbeat_timeout_s : float, optional
        How long it may be silent, if it is on another machine, before it is thought gone.
    """
    signature = {
        "driver": driver,
        "host": socket.gethostname(),
        "pid": pid,
        "process": started_at(pid),
        "own": own,
    }
    return (
        signature
        if heartbeat_timeout_s is None
        else signature | {"heartbeat_timeout": heartbeat_timeout_s}
    )


class StateNotes:
    """Notes a driver's states in the run's journal.

    Parameters
    ----------
    journal : RunJournal
    driver : str
        The driver's name, unique.
    own : bool
        Whether this process ends with the driver.
    goes_on : callable
        Tells of an error whether the driver begins again after it.
    heartbeat_timeout_s : float, optional
        As for `signature_of`.
    """

    def __init__(
        self,
        journal: RunJournal,
        driver: str,
        *,
        own: bool,
        goes_on: Callable[[BaseException], bool] = lambda _: False,
        heartbeat_timeout_s: float | None = None,
    ) -> None:
        self._journal = journal
        self.own = own
        self._goes_on = goes_on
        pid = os.getpid()
        self._signature = signature_of(
            driver, pid, own=own, heartbeat_timeout_s=heartbeat_timeout_s
        )

    def note(self, state: str, **more: Any) -> None:
        """Note a state."""
        self._journal.note("state", state=state, **self._signature, **more)

    def note_end(self, error: BaseException) -> None:
        """Note how an error ended the driver.

        A lost scheduler interrupts a run: with another one it goes on. So does a stop
        before the first candidate: with more time it goes on.
        """
        text = f"{type(error).__name__}: {message_of(error)}"
        if isinstance(error, RunCancelledError):
            self.note("cancelled")
        elif self._goes_on(error):
            self.note("starting", error=text)
        elif isinstance(error, INTERRUPTIONS) and not came_from_fit(error):
            self.note("interrupted", error=text)
        else:
            self.note("failed", error=text)


def note_state(
    folder: RunFolder,
    state: str,
    signature: dict[str, Any],
    *,
    generation: int,
    at: float | None = None,
    **more: Any,
) -> None:
    """Note a state in a run's journal from a process that does not drive it.

    Raises
    ------
    StoreError
        If the store does not take it.
    """
    moment = time.time() if at is None else at
    event = {"e": "state", "state": state, "g": generation, "t": moment}
    key = folder.signing_key()
    write_once(folder.store, folder.run_id, key, [event | signature | more])
