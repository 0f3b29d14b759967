"""Journal segments: immutable, sealed objects of a store, each a list of JSON events.

A writer gathers events and writes them as a segment at least every second. Now and then
it puts what is there into a snapshot, so that a reader opens few objects. Names are
unique to the writer: two drivers of one run never write to the same object.
"""

from __future__ import annotations

import json
import logging
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from dask_hpsearch.exceptions import StoreError, UntrustedObjectError
from dask_hpsearch.security import signing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dask_hpsearch.stores import Store

_logger = logging.getLogger(__name__)
Event = dict[str, Any]
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
    key : trust.SigningKey
        The run's key.
    on_error : callable
        Called once with the `StoreError` that keeps events from being written; they
        stay in memory and are tried again with the next.
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
        event : dict
        on_flushed : callable, optional
            Called once it is in the store: only then may it be shown as done.
        soon : bool
            Write it now (in the writer's thread), with what has gathered.
        """
        with self._lock:
            self._events.append(event)
            if on_flushed is not None:
                self._shown.append(on_flushed)
        if soon:
            self._wake.set()

    def flush(self) -> None:
        """Write what has gathered, before returning.

        Raises
        ------
        StoreError
            If it cannot be written; the events stay, to be tried again.
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
            # what another thread has written is shown.
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
        told = False
        while not self._closed.is_set():
            self._wake.wait(_FLUSH_EVERY_S)
            self._wake.clear()
            try:
                self.flush()
                self.compact_if_due()
            except StoreError as error:
                if not told:
                    told = True
                    self._on_error(error)

    def _write(self, events: list[Event]) -> None:
        name = f"{SEGMENTS}{self.name}-{self._count:06d}"
        self._count += 1
        self._create(name, _to_lines(events))
        self._uncovered.append((name, events))

    def _create(self, name: str, content: bytes) -> None:
        self._store.create(name, signing.seal(self._key, self._run_id, name, content))

    def compact_if_due(self) -> None:
        """Write a snapshot once many segments have gathered since the last."""
        with self._flushing:
            if not _is_due(self._uncovered, len(self._snapshot_events)):
                return
            for name, events in self._uncovered:
                self._covered.append(name)
                self._snapshot_events += events
            self._uncovered.clear()
            head = {"covers": self._covered}
            name = f"{SNAPSHOTS}{self.name}-{self._count:06d}"
            content = _to_lines([head, *self._snapshot_events])
        self._create(name, content)


def _is_due(uncovered: list[tuple[str, list[Event]]], snapshot_events: int) -> bool:
    """Whether a snapshot is due.

    It grows by a share each time, so that all snapshots together stay small; but a
    reader never has to open very many segments besides.
    """
    if len(uncovered) < _COMPACT_AFTER_SEGMENTS:
        return False
    new = sum(len(events) for _, events in uncovered)
    enough = new >= _COMPACT_AFTER_SHARE * snapshot_events
    return enough or len(uncovered) >= _MOST_UNCOVERED


def write_once(
    store: Store, run_id: str, key: signing.SigningKey, events: list[Event]
) -> None:
    """Append events from a process that drives nothing.

    Raises
    ------
    StoreError
        If they cannot be written.
    """
    name = f"{SEGMENTS}{uuid.uuid4().hex[:12]}-000000"
    store.create(name, signing.seal(key, run_id, name, _to_lines(events)))


class JournalReader:
    """Reads a run's journal.

    Parameters
    ----------
    store : Store
        The run's folder.
    run_id : str
    public : str
        The run's public key: what it has not sealed is refused.

    Attributes
    ----------
    refused : dict of str to str
        Objects that were refused, and why.
    """

    def __init__(self, store: Store, run_id: str, public: str) -> None:
        self._store = store
        self._run_id = run_id
        self._public = public
        self._known: dict[str, list[Event]] = {}
        self.refused: dict[str, str] = {}

    def events(self) -> list[Event]:
        """Return all events; those of one writer in order.

        Objects that were read before are not read again. An object that is altered,
        truncated or foreign is left out, named in `refused` and in the log.
        """
        with ThreadPoolExecutor(2) as threads:  # each may be a way to a bucket and back
            segments, snapshots = (
                [one.name for one in listing]
                for listing in threads.map(self._store.list, (SEGMENTS, SNAPSHOTS))
            )
        latest = {name.rsplit("-", 1)[0]: name for name in snapshots}
        whole = [events for events in self._read_all(latest.values()) if events]
        covered = {name for events in whole for name in events[0]["covers"]}
        rest = [name for name in segments if name not in covered]
        found = [events[1:] for events in whole] + self._read_all(rest)
        self._forget_all_but({*latest.values(), *rest})
        return [event for events in found for event in events]

    def _forget_all_but(self, names: set[str]) -> None:
        for name in self._known.keys() - names:
            del self._known[name]

    def _read_all(self, names: Iterable[str]) -> list[list[Event]]:
        names = list(names)
        new = [name for name in names if name not in self._known]
        if new:
            with ThreadPoolExecutor(min(_READERS, len(new))) as threads:
                read = zip(new, threads.map(self._read, new), strict=True)
                self._known.update((n, found) for n, found in read if found is not None)
        return [self._known.get(name, []) for name in names]

    def _read(self, name: str) -> list[Event] | None:
        try:
            sealed = self._store.read(name)
            content = signing.unseal(self._public, self._run_id, name, sealed)
            return [json.loads(line) for line in content.splitlines()]
        except (UntrustedObjectError, ValueError) as error:
            self.refused[name] = str(error)
            _logger.warning("left out %s of run %s: %s", name, self._run_id, error)
            return []
        except StoreError as error:
            _logger.info("could not read %s now: %s", name, error)
            return None


def _to_lines(events: list[Event]) -> bytes:
    return "\n".join(
        json.dumps(event, separators=(",", ":")) for event in events
    ).encode()
