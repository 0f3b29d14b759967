"""A run that has finished, and copies of it of which less is there."""

from __future__ import annotations

import json
import shutil
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dask_hpsearch.data import DataStore
from dask_hpsearch.execution.settings import Settings
from dask_hpsearch.journal.events import AskEvent, CallEvent, FitEvent, StateEvent
from dask_hpsearch.journal.folder import MANIFEST, SEARCH, RunFolder
from dask_hpsearch.journal.run_state import RunState
from dask_hpsearch.journal.segments import JournalReader, write_once
from dask_hpsearch.runs.create import Work, create_run
from dask_hpsearch.runs.driver.drive import drive_run
from dask_hpsearch.runs.driver_process import describe_process
from dask_hpsearch.security import signing
from dask_hpsearch.stores import Store, open_store

if TYPE_CHECKING:
    from collections.abc import Iterable

    from distributed import Client

    from dask_hpsearch.execution.fitted import Fitted
    from dask_hpsearch.journal.events import Event


def new_store() -> Store:
    """Return a store in memory that nobody else uses."""
    return open_store(f"memory://{uuid.uuid4().hex}")


def begun(
    search: Any, X: Any, y: Any, store: Store, data_store: DataStore
) -> RunFolder:
    """Begin a run and drive nothing."""
    work = Work(search, X, y, {})
    return create_run(
        work, store=store, data_store=data_store, task_name=None, settings={}
    )


def drive(
    folder: RunFolder,
    X: Any,
    y: Any,
    client: Client,
    search: Any = None,
    **options: Any,
) -> Fitted:
    """Drive a run in this process, from where its journal ends."""
    search = search or folder.load_pickle(SEARCH)
    with DataStore() as data_store:
        work = Work(search, X, y, {})
        return drive_run(folder, work, data_store, Settings(client=client), **options)


def events_of(folder: RunFolder) -> list[Event]:
    """Return a run's events; fail if a part of them was refused."""
    reader = JournalReader(folder.store, folder.run_id, folder.manifest.public)
    events = reader.events()
    assert not reader.refused
    return events


def calls_asks_and_fits(folder: RunFolder) -> list[Event]:
    """Return those events of a run from which another driver goes on."""
    kinds = (CallEvent, AskEvent, FitEvent)
    return [one for one in events_of(folder) if isinstance(one, kinds)]


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """A run that has finished.

    Attributes
    ----------
    folder : RunFolder
    fitted : object
        Its search.
    events : list of Event
        Calls and fits, in order.
    """

    folder: RunFolder
    fitted: Any
    events: list[Event]

    @classmethod
    def of(
        cls, search: Any, X: Any, y: Any, client: Client, store: Store | None = None
    ) -> RecordedRun:
        """Run a search to its end."""
        store = store or new_store()
        with DataStore(store.local_path()) as data_store:
            folder = begun(search, X, y, store, data_store)
        fitted = drive(folder, X, y, client)
        return cls(folder, fitted.search, calls_asks_and_fits(folder))

    @property
    def n_fits(self) -> int:
        """Fits that it took."""
        return sum(isinstance(one, FitEvent) for one in self.events)

    def before_fit(self, number: int) -> list[Event]:
        """Return the events up to a number of fits; the call being run is begun."""
        fits = [at for at, one in enumerate(self.events) if isinstance(one, FitEvent)]
        end = (fits[number - 1] if number else fits[0] - 1) + 1
        return self.events[:end]

    def copy(self, events: Iterable[Event], parent: Store | None = None) -> RunFolder:
        """Make another run folder with this search and only some events."""
        events = list(events)
        parent = parent or new_store()
        self._copy_data(parent)
        store = parent.child(f"runs/{self.folder.run_id}")
        calls = [
            f"calls/{one.call:05d}-0.pkl"
            for one in events
            if isinstance(one, CallEvent)
        ]
        for name in (SEARCH, *calls, MANIFEST):
            store.create(name, self.folder.store.read(name))
        write_once(store, self.folder.run_id, self.folder.signing_key(), events)
        return RunFolder.open(store)

    def _copy_data(self, parent: Store) -> None:
        """Copy its data too, if other processes are to find it."""
        place, own = parent.local_path(), self.folder.store.local_path()
        if place is not None and own is not None:
            shutil.copytree(own.parents[1] / "data", place / "data")


def rewrite(store: Store, name: str, content: bytes) -> None:
    """Put another object in the place of one, as somebody could."""
    store.delete(name)
    store.create(name, content)


def rewrite_manifest(run: Store, **changes: Any) -> None:
    """Change a manifest as its user could."""
    body = json.loads(json.loads(run.read(MANIFEST))["body"]) | changes
    text, user = json.dumps(body), signing.user_key()
    signature = user.sign(body["run_id"], MANIFEST, text.encode())
    signed = {"body": text, "public": user.public, "signature": signature}
    rewrite(run, MANIFEST, json.dumps(signed).encode())


def copied(store: Store, to: Store) -> Store:
    """Copy all of a store with one run; return the copy of the run."""
    for one in store.list():
        to.create(one.name, store.read(one.name))
    (run_id,) = {one.name.split("/")[1] for one in to.list("runs/")}
    return to.child(f"runs/{run_id}")


def note_state(folder: RunFolder, state: str, pid: int) -> None:
    """Note a state as a driver in a process would."""
    event = StateEvent(
        generation=0,
        time=time.time(),
        state=RunState(state),
        process=describe_process("driver", pid, own=True),
    )
    write_once(folder.store, folder.run_id, folder.signing_key(), [event])
