"""Journal segments: immutable, sealed objects of a store, each a list of JSON events.

A writer collects events and writes them as a segment at least every second. From time to
time it copies its events into a snapshot, so that a reader opens few objects; the first
line of a snapshot names the segments that it covers. Object names are unique to the
writer: two drivers of one run never write the same object.
"""

from __future__ import annotations

import json
import logging
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dask_hpsearch.exceptions import StoreError, UntrustedObjectError
from dask_hpsearch.journal.events import event_from_json
from dask_hpsearch.security import signing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dask_hpsearch.journal.events import Event
    from dask_hpsearch.stores import Store

_logger = logging.getLogger(__name__)
SEGMENTS, SNAPSHOTS = "journal/", "snapshots/"
_FLUSH_EVERY_S = 1.0
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
        self._snapshot_events: list[Event] = []
        self._covered: list[str] = []
        self._uncovered: list[tuple[str, list[Event]]] = []
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
            if not events:
                return
            try:
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
        self._create(name, _to_lines(_stored(events)))
        self._uncovered.append((name, events))

    def _create(self, name: str, content: bytes) -> None:
        self._store.create(name, signing.seal(self._key, self._run_id, name, content))

    def compact_if_due(self) -> None:
        """Write a snapshot if there are many segments since the last one."""
        with self._flushing:
            if not _is_due(self._uncovered, len(self._snapshot_events)):
                return
            for name, events in self._uncovered:
                self._covered.append(name)
                self._snapshot_events += events
            self._uncovered.clear()
            head = {"covers": self._covered}
            name = f"{SNAPSHOTS}{self.name}-{self._count:06d}"
            content = _to_lines([head, *_stored(self._snapshot_events)])
        self._create(name, content)


def _is_due(uncovered: list[tuple[str, list[Event]]], snapshot_events: int) -> bool:
    """Whether a snapshot is due.

    Each is larger than the one before by a share, so that all snapshots together stay
    small; but a reader never has to open very many segments in addition.
    """
    if len(uncovered) < _COMPACT_AFTER_SEGMENTS:
        return False
    new = sum(len(events) for _, events in uncovered)
    enough = new >= _COMPACT_AFTER_SHARE * snapshot_events
    return enough or len(uncovered) >= _MOST_UNCOVERED


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
    store.create(name, signing.seal(key, run_id, name, _to_lines(_stored(events))))


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
        self._known: dict[str, _Content] = {}
        self.refused: dict[str, str] = {}

    def events(self) -> list[Event]:
        """Return all events; those of one writer are in order.

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
        covered = {name for content in found for name in content.covers}
        rest = [name for name in segments if name not in covered]
        found += self._read_all(rest)
        self._forget_all_but({*latest.values(), *rest})
        return [event for content in found for event in content.events]

    def _forget_all_but(self, names: set[str]) -> None:
        for name in self._known.keys() - names:
            del self._known[name]

    def _read_all(self, names: Iterable[str]) -> list[_Content]:
        names = list(names)
        new = [name for name in names if name not in self._known]
        if new:
            with ThreadPoolExecutor(min(_READERS, len(new))) as threads:
                read = zip(new, threads.map(self._read, new), strict=True)
                self._known.update((n, found) for n, found in read if found is not None)
        return [self._known.get(name, _Content()) for name in names]

    def _read(self, name: str) -> _Content | None:
        try:
            sealed = self._store.read(name)
            content = signing.unseal(self._public, self._run_id, name, sealed)
            return _Content.from_lines(content)
        except (UntrustedObjectError, ValueError) as error:
            self.refused[name] = str(error)
            _logger.warning("left out %s of run %s: %s", name, self._run_id, error)
            return _Content()
        except StoreError as error:
            _logger.info("could not read %s now: %s", name, error)
            return None


@dataclass(frozen=True, slots=True)
class _Content:
    """The content of a segment, or of a snapshot, which covers segments."""

    events: list[Event] = field(default_factory=list)
    covers: list[str] = field(default_factory=list)

    @classmethod
    def from_lines(cls, content: bytes) -> _Content:
        """Read the lines of an object.

        Raises
        ------
        ValueError
            If one is not JSON, or not an event.
        """
        lines = [json.loads(line) for line in content.splitlines()]
        is_snapshot = bool(lines) and "covers" in lines[0]
        covers = lines.pop(0)["covers"] if is_snapshot else []
        events = map(event_from_json, lines)
        return cls([event for event in events if event is not None], covers)


def _stored(events: Iterable[Event]) -> list[dict[str, Any]]:
    return [event.to_json() for event in events]


def _to_lines(stored: Iterable[dict[str, Any]]) -> bytes:
    lines = (json.dumps(one, separators=(",", ":")) for one in stored)
    return "\n".join(lines).encode()
