"""Calls the user's ``on_candidate``, in one thread, in order of completion."""

from __future__ import annotations

import logging
import queue
import threading
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dask_hpsearch.exceptions import CallbackWarning
from dask_hpsearch.execution.callers import user_stacklevel
from dask_hpsearch.journal.callback_events import CallbackEvent
from dask_hpsearch.safe_text import message_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dask_hpsearch.exports.candidate_result import CandidateResult
    from dask_hpsearch.journal.events import Event
    from dask_hpsearch.journal.run_journal import RunJournal

_logger = logging.getLogger(__name__)
_NOTE_EVERY_S = 0.5


class CandidateCallback:
    """Calls a function with each candidate that has ended.

    The journal notes the candidates it was called with: a later driver of the run does not
    call it again with these. Those of the last second before a driver is killed may not be
    noted, and are then repeated.

    Parameters
    ----------
    function : callable
        An error in it becomes one warning, and does not end the search.
    journal : RunJournal, optional
    """

    def __init__(
        self,
        function: Callable[[CandidateResult], Any],
        journal: RunJournal | None,
    ) -> None:
        self._function = function
        self._journal = journal
        self._called: set[tuple[int, int]] = set()
        self._called_earlier: Counter[tuple[int, str]] = Counter()
        if journal is not None:
            self._read(journal.earlier.notes(), journal.generation)
        self._waiting: queue.SimpleQueue[CandidateResult | None] = queue.SimpleQueue()
        self._n_errors = 0
        self._first_error = ""
        self._thread = threading.Thread(
            target=self._run, name="dask-hpsearch-on-candidate", daemon=True
        )
        self._thread.start()

    def put(self, result: CandidateResult) -> None:
        """Call the function soon, unless it was called with this candidate before."""
        key = result.call, result.number
        if key in self._called:
            return
        self._called.add(key)
        parameters = result.call, result.digest
        if self._called_earlier[parameters]:
            self._called_earlier[parameters] -= 1
            return
        self._waiting.put(result)

    def close(self) -> None:
        """Wait until the function was called with all candidates, then warn of its errors.

        Warns
        -----
        CallbackWarning
        """
        self._waiting.put(None)
        self._thread.join()
        if self._n_errors:
            more = (
                f" (the first of {self._n_errors} errors)" if self._n_errors > 1 else ""
            )
            text = f"on_candidate raised {self._first_error}{more}; the search went on"
            warnings.warn(text, CallbackWarning, stacklevel=user_stacklevel())

    def _read(self, events: Iterable[Event], generation: int) -> None:
        """Read with which candidates earlier drivers have called the function.

        Within a generation of a run ordinals name a candidate; in a later one, parameters.
        """
        for event in events:
            if isinstance(event, CallbackEvent):
                if event.generation == generation:
                    self._called.update(one[:2] for one in event.candidates)
                else:
                    self._called_earlier.update(
                        (call, digest) for call, _, digest in event.candidates
                    )

    def _run(self) -> None:
        called: list[CandidateResult] = []
        note_at = 0.0  # at once, if the last note was some time ago
        while True:
            pause_s = max(0.0, note_at - time.monotonic()) if called else None
            try:
                result = self._waiting.get(timeout=pause_s)
            except queue.Empty:
                self._note(called)
                note_at = time.monotonic() + _NOTE_EVERY_S
                continue
            if result is None:
                self._note(called)
                return
            self._call(result)
            called.append(result)
            if time.monotonic() > note_at + _NOTE_EVERY_S:  # others wait all the time
                self._note(called)
                note_at = time.monotonic() + _NOTE_EVERY_S

    def _call(self, result: CandidateResult) -> None:
        try:
            self._function(result)
        except Exception as error:
            self._n_errors += 1
            if self._n_errors == 1:
                self._first_error = _text_of(error, result)
                _logger.debug("on_candidate has raised", exc_info=error)

    def _note(self, called: list[CandidateResult]) -> None:
        """Note in the journal with which candidates the function was called."""
        if called and self._journal is not None:
            event = CallbackEvent(
                generation=self._journal.generation,
                time=time.time(),
                candidates=tuple((one.call, one.number, one.digest) for one in called),
            )
            self._journal.note(event)
        called.clear()


def _text_of(error: Exception, result: CandidateResult) -> str:
    """Return what an error says, and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1]
    place = f"{Path(last.filename).name}, line {last.lineno}"
    text = f"{type(error).__name__}: {message_of(error)}"
    return f"{text} ({place}, candidate {result.name})"
