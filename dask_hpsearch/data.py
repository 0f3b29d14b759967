"""Puts data where workers find it: in a shared folder, else sent by Dask when asked for.

Every object is written once, under the hash of its content, to a folder of the client's.
A worker that sees the folder maps the file itself; one that does not asks for it on the
search's event topic, and it is sent to that worker, once for all its slots, late workers
included. No copy stays on the scheduler, and none rides inside a task.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import os
import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from dask_hpsearch.bundles import Bundle, verify
from dask_hpsearch.errors import StoreError, UnpicklableError
from dask_hpsearch.slots.plugin import forget_bundles, receive_chunk
from dask_hpsearch.trials import DataRef

if TYPE_CHECKING:
    from distributed import Client

_logger = logging.getLogger(__name__)
_CHUNK_BYTES = 16 * 2**20
_MEMORY_FOLDER = Path("/dev/shm")  # noqa: S108 (a folder of its own is made below it)


class DataHome:
    """The data of one or more searches, as bundles in a folder.

    Parameters
    ----------
    store : Path or None
        A folder that the workers may see too; the data stays there for later searches.
        None: a folder of this machine, removed on `close`.
    """

    def __init__(self, store: Path | None = None) -> None:
        self._store = store
        self._folder: Path | None = None
        self._refs: dict[str, DataRef] = {}
        self._pinned: dict[int, tuple[Any, DataRef]] = {}
        self._held: dict[str, int] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def put(self, value: Any, *, what: str) -> DataRef:
        """Write an object unless its content is there already.

        Parameters
        ----------
        value : object
        what : str
            Its name in errors.

        Raises
        ------
        UnpicklableError
            If it cannot be pickled.
        StoreError
            If the folder cannot be written; nothing half-written stays.
        """
        pinned = self._pinned.get(id(value))
        if pinned is not None:
            return pinned[1]
        bundle = _encode(value, what)
        with self._lock:
            ref = self._refs.get(bundle.digest) or self._write(bundle)
            self._refs[ref.digest] = ref
        return ref

    def pin(self, value: Any, ref: DataRef) -> None:
        """Remember that a bundle is there for this very object, as long as this home."""
        if value is not None:
            self._pinned[id(value)] = value, ref
        self._refs[ref.digest] = ref

    def hold(self, ref: DataRef) -> None:
        """Count a user of a bundle."""
        with self._lock:
            self._held[ref.digest] = self._held.get(ref.digest, 0) + 1

    def release(self, refs: list[DataRef]) -> None:
        """Count users down; a temporary bundle goes with its last."""
        pinned = {ref.digest for _, ref in self._pinned.values()}
        with self._lock:
            for ref in refs:
                self._held[ref.digest] -= 1
                last = not self._held[ref.digest] and ref.digest not in pinned
                if last and self._store is None:
                    self._refs.pop(ref.digest, None)
                    Path(ref.hint).unlink(missing_ok=True)

    def folder(self) -> Path:
        """Return the folder, made if need be."""
        with self._lock:
            if self._folder is None:
                self._folder = self._make_folder(0)
            return self._folder

    def find(self, digest: str) -> DataRef | None:
        """Look up a bundle that was put here."""
        return self._refs.get(digest)

    def digests(self) -> list[str]:
        """All bundles that were put here."""
        return list(self._refs)

    def close(self) -> None:
        """Remove the folder, unless it is the user's store."""
        with self._lock:
            self._refs.clear()
            self._pinned.clear()
            if self._folder is not None and self._store is None:
                shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _write(self, bundle: Bundle) -> DataRef:
        try:
            if self._folder is None:
                self._folder = self._make_folder(bundle.nbytes)
            path = self._folder / bundle.digest
            _write_or_use(bundle, path)
        except OSError as error:
            where = self._store or self._folder or tempfile.gettempdir()
            msg = (
                f"cannot write {bundle.nbytes / 2**20:.1f} MiB of data to {where} "
                f"({error.strerror or error}): free some space, check its permissions, "
                "or name another folder with store="
            )
            raise StoreError(error.errno, msg) from error
        return DataRef(bundle.digest, bundle.nbytes, str(path))

    def _make_folder(self, nbytes: int) -> Path:
        if self._store is not None:
            folder = self._store / "data"
            folder.mkdir(parents=True, exist_ok=True)
            return folder
        parent = _temporary_parent(nbytes)
        for place in {parent, _MEMORY_FOLDER, Path(tempfile.gettempdir())}:
            _remove_leftovers(place)
        return Path(
            tempfile.mkdtemp(prefix=f"dask-hpsearch-{os.getpid()}-", dir=parent)
        )


class KnownObjects:
    """Remembers the bundles of objects by identity, so that each is hashed once.

    Parameters
    ----------
    home : DataHome
    """

    def __init__(self, home: DataHome) -> None:
        self._home = home
        self._by_id: dict[int, tuple[Any, DataRef]] = {}

    def put(self, value: Any, *, what: str) -> DataRef:
        """Put an object into the home, unless this very object was put before."""
        known = self._by_id.get(id(value))
        if known is None:
            # The object is kept too, so that its id stays its own.
            ref = self._home.put(value, what=what)
            self._home.hold(ref)
            known = self._by_id[id(value)] = value, ref
        return known[1]

    def clear(self) -> None:
        """Let go of the objects, and of bundles that nobody else here uses."""
        refs = [ref for _, ref in self._by_id.values()]
        self._by_id.clear()
        self._home.release(refs)


class DataSender:
    """Sends bundles to the workers that ask for them.

    Parameters
    ----------
    client : Client
    home : DataHome
    topic : str
        Names the search to the workers, which may have the same data from another.
    """

    def __init__(self, client: Client, home: DataHome, topic: str) -> None:
        self._client = client
        self._topic = topic
        self._home = home
        self._threads = concurrent.futures.ThreadPoolExecutor(
            max_workers=4, thread_name_prefix="dask-hpsearch-data"
        )
        self._sent = False
        self._under_way: set[tuple[str, str]] = set()
        self._lock = threading.Lock()
        self.bytes_sent = 0

    def request(self, digest: str, worker: str) -> None:
        """Send a bundle to a worker in the background, unless it is on its way."""
        with self._lock, contextlib.suppress(RuntimeError):  # closed meanwhile
            if (digest, worker) not in self._under_way:
                self._under_way.add((digest, worker))
                self._threads.submit(self._send, digest, worker)

    def close(self) -> None:
        """Stop sending, and have the workers remove what was sent."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        if self._sent and self._client.status == "running":
            with contextlib.suppress(Exception):  # workers that left keep nothing
                self._client.run(forget_bundles, self._topic, on_error="ignore")

    def _send(self, digest: str, worker: str) -> None:
        ref = self._home.find(digest)
        try:
            if ref is not None:
                self._sent = True
                self._send_chunks(ref, worker)
        except Exception:
            _logger.info("could not send data to %s", worker, exc_info=True)
        finally:
            with self._lock:
                self._under_way.discard((digest, worker))

    def _send_chunks(self, ref: DataRef, worker: str) -> None:
        with Path(ref.hint).open("rb") as file:
            offset = 0
            while chunk := file.read(_CHUNK_BYTES):
                self._client.run(
                    receive_chunk,
                    ref.digest,
                    offset,
                    chunk,
                    ref.nbytes,
                    self._topic,
                    workers=[worker],
                )
                offset += len(chunk)
                self.bytes_sent += len(chunk)


def _write_or_use(bundle: Bundle, path: Path) -> None:
    """Write a bundle, or use one that is there, if it is whole and what it says."""
    with contextlib.suppress(OSError, ValueError):
        verify(path, bundle.digest)
        os.utime(path)  # in use, for those who tidy up
        return
    path.unlink(missing_ok=True)
    bundle.write(path)


def _encode(value: Any, what: str) -> Bundle:
    try:
        return Bundle(value)
    except Exception as error:
        raise UnpicklableError.of(what, error) from error


def _temporary_parent(nbytes: int) -> Path:
    """Memory if there is plenty of it, else the disk."""
    with contextlib.suppress(OSError):
        room = shutil.disk_usage(_MEMORY_FOLDER).free
        if os.access(_MEMORY_FOLDER, os.W_OK) and room > max(4 * nbytes, 2**30):
            return _MEMORY_FOLDER
    return Path(tempfile.gettempdir())


def _remove_leftovers(parent: Path) -> None:
    """Remove the folders of clients that were killed."""
    for folder in parent.glob("dask-hpsearch-*-*"):
        pid = folder.name.split("-")[2]
        if pid.isdigit() and not _is_alive(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
