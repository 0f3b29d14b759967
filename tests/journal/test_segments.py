"""What a journal's writer keeps and what its reader reads, in runs with very many fits."""

from __future__ import annotations

import gc
import tracemalloc
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from dask_hpsearch.exceptions import StoreError
from dask_hpsearch.journal.events import CallEvent, FitEvent
from dask_hpsearch.journal.segments import SNAPSHOTS, JournalReader, JournalWriter
from dask_hpsearch.security import signing
from dask_hpsearch.stores import Listing, Store, open_store
from tests.processes import wait_until

if TYPE_CHECKING:
    from typing import Any

N_FITS, PER_SEGMENT = 20_000, 200
KEY = signing.SigningKey.generate()


@dataclass(slots=True)
class NotingStore:
    """Notes what is read, and refuses to write what it is told."""

    store: Store
    read_names: list[str] = field(default_factory=list)
    refuses: str = "nothing"

    def read(self, name: str) -> bytes:
        self.read_names.append(name)
        return self.store.read(name)

    def list(self, prefix: str = "") -> Listing:
        return self.store.list(prefix)

    def create(self, name: str, content: bytes) -> None:
        if name.startswith(self.refuses):
            msg = "the store is away"
            raise StoreError(msg)
        self.store.create(name, content)


def noting_store() -> Any:
    """Return a new store."""
    return NotingStore(open_store(f"memory://{uuid.uuid4().hex}"))


def fit(number: int) -> FitEvent:
    """Return a fit."""
    return FitEvent(
        generation=0,
        time=float(number),
        call=0,
        candidate=number,
        split=0,
        digest=f"{number:016x}",
        result={"fit_error": None, "test_scores": number / 7, "fit_time": 0.1},
    )


def written(
    store: Any, first: int, last: int, writer: JournalWriter | None = None
) -> Any:
    """Write fits, some to a segment, and snapshots as they are due."""
    writer = writer or JournalWriter(store, "run", KEY, on_error=lambda _: None)
    for number in range(first, last):
        writer.append(fit(number))
        if number % PER_SEGMENT == 0:
            writer.flush()
            writer.compact_if_due()
    writer.flush()
    return writer


def test_a_writer_keeps_no_fits_in_memory() -> None:
    """What it keeps until the next snapshot is small, and nothing is kept for longer."""
    store = open_store(f"memory://{uuid.uuid4().hex}")
    writer = written(store, 0, 100)  # what is imported and made once
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    in_store = sum(len(store.read(one.name)) for one in store.list())

    written(store, 100, N_FITS, writer)

    in_store = sum(len(store.read(one.name)) for one in store.list()) - in_store
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    writer.close()
    kept = [one for one in gc.get_objects() if isinstance(one, FitEvent)]
    assert len(kept) < 1000
    assert after - before - in_store < 60 * N_FITS


def test_snapshots_have_each_fit_once() -> None:
    """A run of a million fits writes them twice, not hundreds of times."""
    store = noting_store()
    writer = written(store, 0, N_FITS)
    writer.close()
    reader = JournalReader(store, "run", KEY.public)

    content = reader.read()

    snapshots = [name for name in content.objects if name.startswith(SNAPSHOTS)]
    assert len(snapshots) > 1
    assert len(snapshots) == len(store.store.list(SNAPSHOTS))
    events = content.events()
    assert len(events) == N_FITS
    assert sorted(events, key=lambda event: event.time) == [
        fit(n) for n in range(N_FITS)
    ]


def test_a_reader_reads_what_has_changed() -> None:
    """Of a long run that is watched, only new segments and snapshots."""
    store = noting_store()
    writer = written(store, 0, N_FITS)
    reader = JournalReader(store, "run", KEY.public)
    reader.read()
    store.read_names.clear()

    written(store, N_FITS, N_FITS + 3 * PER_SEGMENT, writer)
    content = reader.read()

    assert len(store.read_names) <= 4
    assert len(content.events()) == N_FITS + 3 * PER_SEGMENT
    writer.close()


def test_notes_are_few_and_have_the_newest_time() -> None:
    """The state of a run follows from them, without a look at every fit."""
    store = noting_store()
    writer = JournalWriter(store, "run", KEY, on_error=lambda _: None)
    call = CallEvent(generation=0, time=0.0, call=0, n_splits=1, params=[], extra={})
    writer.append(call)
    written(store, 0, N_FITS, writer)
    writer.close()

    content = JournalReader(store, "run", KEY.public).read()

    notes = content.notes()
    assert call in notes
    assert len(notes) <= 1 + len(content.objects)
    assert max(note.time for note in notes) == N_FITS - 1


def test_fits_of_a_call_are_read_one_by_one() -> None:
    """Of one generation only."""
    store = noting_store()
    written(store, 0, 1000).close()
    content = JournalReader(store, "run", KEY.public).read()

    assert {one.candidate for one in content.fits(0, 0)} == set(range(1000))
    assert not list(content.fits(0, 1))
    assert not list(content.fits(1, 0))


def test_a_snapshot_that_cannot_be_written_costs_nothing() -> None:
    """The next one has its events."""
    store = noting_store()
    store.refuses = SNAPSHOTS
    writer = JournalWriter(store, "run", KEY, on_error=lambda _: None)
    for number in range(30):
        writer.append(fit(number))
        writer.flush()
    with pytest.raises(StoreError):
        writer.compact_if_due()

    store.refuses = "nothing"
    writer.compact_if_due()

    reader = JournalReader(store, "run", KEY.public)
    assert len(reader.read().objects) == 1
    assert sorted(one.candidate for one in reader.read().fits(0, 0)) == list(range(30))
    writer.close()


def test_fits_that_end_quickly_are_not_written_one_by_one() -> None:
    """Long fits are written at once, but of very many slots one ends all the time."""
    store = noting_store()
    writer = JournalWriter(store, "run", KEY, on_error=lambda _: None)
    for number in range(400):
        writer.append(fit(number), soon=True)
    writer.flush()
    for number in range(400, 2000):
        writer.append(fit(number), soon=True)

    assert len(store.list("journal/")) < 20
    writer.close()


def test_a_few_events_are_written_at_once() -> None:
    """However quickly they follow each other: a run's states, and its first call."""
    store = noting_store()
    writer = JournalWriter(store, "run", KEY, on_error=lambda _: None)
    for number in range(3):
        writer.append(fit(number), soon=True)
        wait_until(lambda n=number: len(store.list("journal/")) == n + 1)

        assert not writer._pause_s()
    writer.close()
