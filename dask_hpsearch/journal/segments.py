"""Journal segments: immutable, sealed objects of a store, each a list of JSON events.

A writer collects events and writes them as a segment at least every second. From time to
time it copies the events of its latest segments into a snapshot, so that a reader opens few
objects; the first line of a snapshot names the segments that it covers, and the snapshots
before it. Fits are stored as columns where that saves space. Object names are unique to the
writer: two drivers of one run never write the same object.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dask_hpsearch.exceptions import StoreError, UntrustedObjectError
from dask_hpsearch.journal.contents import (
    Content,
    JournalContent,
    split_events,
    to_line,
    to_lines,
)
from dask_hpsearch.security import signing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dask_hpsearch.journal.events import Event
    from dask_hpsearch.stores import Store

_logger = logging.getLogger(__name__)
SEGMENTS, SNAPSHOTS = "journal/", "snapshots/"
_FLUSH_EVERY_S = 1.0
# Events that come faster are written every second: a segment each would be too many.
_MOST_PER_S_AT_ONCE = 10
_COMPACT_AFTER_SEGMENTS = 24
_COMPACT_AFTER_SHARE = 0.25
_MOST_UNCOVERED = 128
_READERS = 32


class JournalWriter:
    """Appends events to a run's journal.

    Parameters
    ----------
    store : Store
        The run's folder.
    run_id : str
    key : SigningKey
        The run's key.
    on_error : callable
        Called once with the first `StoreError`. Events that cannot be written stay in
        memory, and are written with the next ones.
    """

    def __init__(
        self,
        store: Store,
        run_id: str,
        key: signing.SigningKey,
        *,
        on_error: Callable[[StoreError], None],
    ) -> None:
        self._store = store
        self._run_id = run_id
        self._key = key
        self._on_error = on_error
        self.name = uuid.uuid4().hex[:12]
        self._count = 0
        self._events: list[Event] = []
        self._shown: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._uncovered: list[_Written] = []
        self._snapshots: list[str] = []
        self._n_covered = 0
        self._recent: deque[tuple[float, int]] = deque()
        self._thread = threading.Thread(
            target=self._run, name="dask-hpsearch-journal", daemon=True
        )
        self._thread.start()

    def append(
        self,
        event: Event,
        *,
        on_flushed: Callable[[], None] | None = None,
        soon: bool = False,
    ) -> None:
        """Add an event.

        Parameters
        ----------
        event : Event
        on_flushed : callable, optional
            Called once the event is in the store: only then may it be displayed.
        soon : bool
            Write the event and those before it now, in the writer's thread.
        """
        with self._lock:
            self._events.append(event)
            if on_flushed is not None:
                self._shown.append(on_flushed)
        if soon:
            self._wake.set()

    def after_flush(self, call: Callable[[], None]) -> None:
        """Call a function once all events so far are in the store."""
        with self._lock:
            self._shown.append(call)

    def flush(self) -> None:
        """Write all events before returning.

        Raises
        ------
        StoreError
            If they cannot be written; they stay in memory for the next attempt.
        """
        with self._flushing:
            with self._lock:
                events, self._events = self._events, []
                shown, self._shown = self._shown, []
            if not (events or shown):
                return
            try:
                if events:
                    self._write(events)
            except StoreError:
                with self._lock:
                    self._events[:0] = events
                    self._shown[:0] = shown
                raise
            # Within the lock: a flush that finds nothing to write returns only after
            # the events that another thread has written are displayed.
            for call in shown:
                call()

    def close(self) -> None:
        """Write the last events and end the thread.

        Raises
        ------
        StoreError
            If the last events cannot be written.
        """
        self._closed.set()
        self._wake.set()
        self._thread.join()
        self.flush()

    def _run(self) -> None:
        reported = False
        while not self._closed.is_set():
            self._wake.wait(_FLUSH_EVERY_S)
            self._wake.clear()
            self._closed.wait(self._pause_s())
            try:
                self.flush()
                self.compact_if_due()
            except StoreError as error:
                if not reported:
                    reported = True
                    self._on_error(error)

    def _write(self, events: list[Event]) -> None:
        name = f"{SEGMENTS}{self.name}-{self._count:06d}"
        self._count += 1
        plain, columns = split_events(events)
        self._create(name, b"\n".join([*to_lines(plain), *columns]))
        self._uncovered.append(_Written(name, len(events), plain, columns))
        self._recent.append((time.monotonic(), len(events)))

    def _pause_s(self) -> float:
        """Return how long to wait because many events were written in the last second."""
        now, recent = time.monotonic(), self._recent
        while recent and recent[0][0] <= now - _FLUSH_EVERY_S:
            recent.popleft()
        if sum(n_events for _, n_events in list(recent)) <= _MOST_PER_S_AT_ONCE:
            return 0.0
        return recent[-1][0] + _FLUSH_EVERY_S - now

    def _create(self, name: str, content: bytes) -> None:
        self._store.create(name, signing.seal(self._key, self._run_id, name, content))

    def compact_if_due(self) -> None:
        """Write a snapshot if there are many segments since the last one."""
        with self._flushing:
            segments = self._uncovered
            new = sum(one.n_events for one in segments)
            if not _is_due(len(segments), new, self._n_covered):
                return
            self._uncovered = []
            name = f"{SNAPSHOTS}{self.name}-{self._count:06d}"
        head = {"covers": [one.name for one in segments], "after": self._snapshots}
        plain, columns = split_events([one for part in segments for one in part.plain])
        columns += [line for part in segments for line in part.columns]
        try:
            lines = [to_line(head), *to_lines(plain), *columns]
            self._create(name, b"\n".join(lines))
        except StoreError:
            with self._flushing:
                self._uncovered[:0] = segments
            raise
        self._snapshots.append(name)
        self._n_covered += new


@dataclass(frozen=True, slots=True)
class _Written:
    """A segment that no snapshot covers yet.

    Attributes
    ----------
    name : str
    n_events : int
    plain : list of Event
        Those that are stored one by one.
    columns : list of bytes
        The others, as they are stored.
    """

    name: str
    n_events: int
    plain: list[Event]
    columns: list[bytes]


def _is_due(segments: int, new: int, covered: int) -> bool:
    """Whether a snapshot is due.

    Each has more events than those before it by a share, so that snapshots are few; but a
    reader never has to open very many segments in addition.

    Parameters
    ----------
    segments : int
        Segments that no snapshot covers.
    new, covered : int
        Events in these, and in all snapshots.
    """
    if segments < _COMPACT_AFTER_SEGMENTS:
        return False
    return new >= _COMPACT_AFTER_SHARE * covered or segments >= _MOST_UNCOVERED


def write_once(
    store: Store, run_id: str, key: signing.SigningKey, events: Iterable[Event]
) -> None:
    """Append events from a process that does not drive the run.

    Raises
    ------
    StoreError
        If they cannot be written.
    """
    name = f"{SEGMENTS}{uuid.uuid4().hex[:12]}-000000"
    content = b"\n".join(to_lines(events))
    store.create(name, signing.seal(key, run_id, name, content))


class JournalReader:
    """Reads a run's journal.

    Parameters
    ----------
    store : Store
        The run's folder.
    run_id : str
    public : str
        The run's public key: objects without its seal are refused.

    Attributes
    ----------
    refused : dict of str to str
        Reasons by the names of refused objects.
    """

    def __init__(self, store: Store, run_id: str, public: str) -> None:
        self._store = store
        self._run_id = run_id
        self._public = public
        self._known: dict[str, Content] = {}
        self.refused: dict[str, str] = {}

    def events(self) -> list[Event]:
        """Return all events; those of one writer are in order, apart from fits.

        Of a run with very many fits, `read` takes less memory.
        """
        return self.read().events()

    def read(self) -> JournalContent:
        """Read what has been written since the last time; return the whole journal.

        Objects that were read before are not read again. An object that is altered,
        truncated or foreign is left out, and named in `refused` and in the log.
        """
        with ThreadPoolExecutor(
            2
        ) as threads:  # each listing may be a request to a bucket
            segments, snapshots = (
                [one.name for one in listing]
                for listing in threads.map(self._store.list, (SEGMENTS, SNAPSHOTS))
            )
        latest = {name.rsplit("-", 1)[0]: name for name in snapshots}
        found = self._read_all(latest.values())
        found |= self._read_all([n for one in found.values() for n in one.after])
        covered = {name for content in found.values() for name in content.covers}
        found |= self._read_all([name for name in segments if name not in covered])
        self._known = {name: self._known[name] for name in found}
        return JournalContent(found)

    def _read_all(self, names: Iterable[str]) -> dict[str, Content]:
        names = list(names)
        new = [name for name in names if name not in self._known]
        if new:
            with ThreadPoolExecutor(min(_READERS, len(new))) as threads:
                read = zip(new, threads.map(self._read, new), strict=True)
                self._known.update((n, found) for n, found in read if found is not None)
        return {name: self._known[name] for name in names if name in self._known}

    def _read(self, name: str) -> Content | None:
        try:
            sealed = self._store.read(name)
            content = signing.unseal(self._public, self._run_id, name, sealed)
            return Content.from_lines(content)
        except (UntrustedObjectError, ValueError) as error:
            self.refused[name] = str(error)
            _logger.warning("left out %s of run %s: %s", name, self._run_id, error)
            return Content()
        except StoreError as error:
            _logger.info("could not read %s now: %s", name, error)
            return None
