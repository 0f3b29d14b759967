"""The states of models that training tasks leave and later ones continue from.

A model between two training tasks is a `ModelState`: immutable, and named by the hash of its
content. A training task returns it with its outcome; the driver stores it, before the journal
names it, and removes it as soon as no later task needs it. Since its name stands in the signed
journal, it needs no signature of its own: its content is compared with its name when it is loaded.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self

from dask_hpsearch.exceptions import StoreError
from dask_hpsearch.joblib_backend.pickling import BundleFile
from dask_hpsearch.localfs.atomic import replaced_whole
from dask_hpsearch.messages import DataRef
from dask_hpsearch.slots.model_state import ModelState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from dask_hpsearch.data import DataStore
    from dask_hpsearch.stores import Store

MODELS = "models"
_CARRIED_NBYTES = 2**15  # up to this size a state is a part of its task
_WRITERS = 16
_logger = logging.getLogger(__name__)


class ModelStates:
    """The states of a search's models: in its run's folder, and where workers find them.

    It counts how often a state is needed, since models with equal parameters may have equal
    states. All methods may be called from any thread.

    Parameters
    ----------
    data_store : DataStore
        The search's, by which workers get what they cannot read by themselves.
    run : Store, optional
        The run's folder: states are in ``models`` there, and a later driver finds them. None:
        they end with this object.
    """

    def __init__(self, data_store: DataStore, run: Store | None = None) -> None:
        self._data_store = data_store
        self._store = None if run is None else run.child(MODELS)
        folder = None if self._store is None else self._store.local_path()
        # Workers read a bucket by themselves; other stores may be in this process's memory.
        self._url = self._store.url if self._store and data_store.is_far else None
        self._own_files = folder is None and self._url is None
        self._folder: Path | None = folder
        self._nbytes: dict[str, int] = {}
        self._needed: dict[str, int] = {}
        self._carried: dict[str, bytes] = {}
        self._writing = [threading.Lock() for _ in range(_WRITERS)]
        self._threads = ThreadPoolExecutor(
            _WRITERS, thread_name_prefix="dask-hpsearch-models"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def put(self, state: ModelState) -> None:
        """Store a state that a task has returned; it is needed once more.

        When it returns, the state survives the end of this process, if there is a run: the
        journal may name it.

        Raises
        ------
        StoreError
            If it cannot be written.
        """
        assert isinstance(state.content, bytes)  # noqa: S101 (a file is another's state)
        with self._lock_of(state.digest):
            if not self._needed.get(state.digest):
                self._write(state.digest, state.content)
            self._needed[state.digest] = self._needed.get(state.digest, 0) + 1

    def put_soon(
        self, state: ModelState, done: Callable[[Exception | None], object]
    ) -> None:
        """Store a state in another thread.

        Parameters
        ----------
        state : ModelState
        done : callable
            Called there once it is stored, with None or with the error.
        """

        def put() -> None:
            error: Exception | None = None
            try:
                self.put(state)
            except Exception as raised:  # noqa: BLE001 (``done`` gets it)
                error = raised
            done(error)

        with contextlib.suppress(RuntimeError):  # closed meanwhile
            self._threads.submit(put)

    def recover(self, digests: Iterable[str]) -> set[str]:
        """Take over the states that a run's journal names.

        Parameters
        ----------
        digests : iterable of str
            The name of each state that is needed, as often as it is needed.

        Returns
        -------
        set of str
            Those that are not in the run's folder, and not taken over.

        Raises
        ------
        StoreError
            If the folder cannot be read.
        """
        digests = list(digests)
        if self._store is None or not digests:
            return set(digests)
        found = {one.name: one.nbytes for one in self._store.list("")}
        for digest in digests:
            if digest in found:
                self._nbytes[digest] = found[digest]
                self._needed[digest] = self._needed.get(digest, 0) + 1
        return set(digests) - found.keys()

    def in_task(self, digest: str) -> ModelState:
        """Return a state as an argument of a task, in whose slot it can be loaded.

        A small one travels with the task; the others are read, once a node.

        Raises
        ------
        StoreError
            If it was deleted, or cannot be read.
        """
        nbytes = self._nbytes[digest]
        if nbytes > _CARRIED_NBYTES:
            file: Any = BundleFile(self._ref(digest, nbytes))
            return ModelState(digest, file)
        content = self._carried.get(digest)
        if content is None:
            content = self._carried[digest] = self._read(digest)
        return ModelState(digest, content)

    def load(self, digest: str) -> Any:
        """Return a model from its state.

        Raises
        ------
        StoreError
            If the state was deleted, or cannot be read.
        UntrustedObjectError
            If it was altered: nothing of it is unpickled then.
        """
        content = self._carried.get(digest) or self._read(digest)
        return ModelState(digest, content).load()

    def keep(self, digest: str) -> None:
        """Note that a state that is there is needed once more."""
        with self._lock_of(digest):
            self._needed[digest] = self._needed.get(digest, 0) + 1

    def has(self, digest: str) -> bool:
        """Whether a state is there."""
        return digest in self._needed

    def remove(self, digest: str) -> None:
        """Note that a state is needed once less; remove it if it is needed no more."""
        with self._lock_of(digest):
            if digest not in self._needed:
                return
            self._needed[digest] -= 1
            if self._needed[digest]:
                return
            del self._needed[digest]
            self._nbytes.pop(digest, None)
            self._carried.pop(digest, None)
            self._data_store.forget(digest)
            self._delete(digest)

    def remove_soon(self, digest: str) -> None:
        """Call `remove` in another thread."""
        with contextlib.suppress(RuntimeError):  # closed meanwhile
            self._threads.submit(self.remove, digest)

    def close(self) -> None:
        """Finish what was begun in other threads; remove states that have no run."""
        self._threads.shutdown(wait=True)
        if self._store is None:
            for digest in list(self._needed):
                self._delete(digest)
        self._needed.clear()
        self._nbytes.clear()
        self._carried.clear()

    def _lock_of(self, digest: str) -> threading.Lock:
        return self._writing[int(digest, 16) % _WRITERS]

    def _write(self, digest: str, content: bytes) -> None:
        small = len(content) <= _CARRIED_NBYTES
        if self._store is not None:
            self._store.create(digest, content)
        if self._own_files and not (small and self._store is not None):
            with replaced_whole(self._file(digest)) as file:
                file.write(content)
        self._nbytes[digest] = len(content)
        if small:
            self._carried[digest] = content

    def _ref(self, digest: str, nbytes: int) -> DataRef:
        if self._url is not None:
            return DataRef(digest, nbytes, sys.intern(self._url))
        file = self._file(digest)
        if self._own_files and not file.exists():  # taken over from a store in memory
            with replaced_whole(file) as new:
                new.write(self._read(digest))
        ref = DataRef(digest, nbytes, sys.intern(str(file.parent)))
        self._data_store.pin(None, ref)  # for workers that do not see the folder
        return ref

    def _file(self, digest: str) -> Path:
        return (self._folder or self._data_store.folder()) / digest

    def _read(self, digest: str) -> bytes:
        if self._store is not None:
            return self._store.read(digest)
        return self._file(digest).read_bytes()

    def _delete(self, digest: str) -> None:
        try:
            if self._store is not None:
                self._store.delete(digest)
        except StoreError as error:  # it is removed with the run
            _logger.info("could not remove the state %s of a model: %s", digest, error)
        if self._own_files:
            self._file(digest).unlink(missing_ok=True)


def remove_all(run: Store) -> None:
    """Remove all states of a run that has ended with its result."""
    store = run.child(MODELS)
    try:
        for one in store.list(""):
            store.delete(one.name)
    except StoreError as error:
        _logger.info("could not remove states of models at %s: %s", store.url, error)
