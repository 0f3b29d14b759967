"""The data of a worker's fits: files that it sees, reads, or gets from the client.

A worker maps files in a folder that it shares with the client. Data in a store, or anywhere
else that it can read, it reads into a cache that all workers of the node share. Other data
are sent by the client.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dask_hpsearch.exceptions import DataUnavailableError, HPSearchError
from dask_hpsearch.extras import extra_of, install_command
from dask_hpsearch.localfs import bundles
from dask_hpsearch.localfs.node_cache import NodeCache
from dask_hpsearch.slots.node_files import NodeFolder, search_prefix
from dask_hpsearch.slots.node_steps import NodeSteps
from dask_hpsearch.slots.split_rows import NodeRows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dask_hpsearch.localfs.node_cache import Held
    from dask_hpsearch.messages import DataRef

_ASK_AGAIN_S = 5.0
_GIVE_UP_S = 120.0
_CACHE = "dask-hpsearch-cache"


class Reader(Protocol):
    """Reads data into files, and returns the files' checksums."""

    def fetch(self, place: str, digest: str, path: Path) -> str:
        """Write a bundle from a store to a file."""

    def make(self, source: Any, path: Path, cache: NodeCache) -> str:
        """Write data by URL to a file that slots can map."""


class NodeData:
    """Finds data on this machine; missing data are read or sent once for all slots.

    Parameters
    ----------
    parent : Path
        The worker's local folder. A folder in it holds the bundles that are sent. Beside
        it is the cache that the node's workers share, unless the environment names
        another.
    reader : Reader
    """

    def __init__(self, parent: Path, reader: Reader) -> None:
        self._parent = parent
        self._reader = reader
        self._cache = NodeCache.of_environment(parent.parent / _CACHE, temporary=True)
        self._folder: Path | None = None
        self._arrived: dict[str, str] = {}
        self._asked: dict[str, str] = {}
        self._users: dict[str, set[str]] = {}
        self._heard_at = 0.0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def using(
        self,
        refs: tuple[DataRef, ...],
        ask: Callable[[DataRef], None],
        *,
        user: str,
        given_up: Callable[[], bool],
    ) -> Iterator[dict[str, str]]:
        """Get files to this machine, and keep them while the block runs.

        Parameters
        ----------
        refs : tuple of DataRef
        ask, user, given_up
            As for `path`.

        Yields
        ------
        dict
            Files by digest.

        Raises
        ------
        HPSearchError
            If one cannot be got.
        """
        ask_client = functools.partial(self.path, ask=ask, user=user, given_up=given_up)
        with ExitStack() as stack:
            files = {}
            for ref in refs:
                if _is_there(ref):
                    files[ref.digest] = str(ref.path)
                elif ref.in_store or ref.made_from is not None:
                    held = self._read(ref, ask_client, given_up)
                    files[ref.digest] = str(stack.enter_context(held).path)
                else:
                    files[ref.digest] = ask_client(ref)
            yield files

    def _read(
        self,
        ref: DataRef,
        ask_client: Callable[[DataRef], str],
        given_up: Callable[[], bool],
    ) -> Held:
        """Read data into the cache, unless it is there."""

        def make(path: Path) -> str:
            with _map_disk_errors():
                if ref.made_from is None:
                    return self._reader.fetch(ref.place, ref.digest, path)
                return self._make(ref.made_from, path, ask_client, given_up)

        return self._cache.hold(ref.digest, ref.nbytes, make, given_up=given_up)

    def _make(
        self,
        made_from: DataRef,
        path: Path,
        ask_client: Callable[[DataRef], str],
        given_up: Callable[[], bool],
    ) -> str:
        if made_from.in_store:
            with self._read(made_from, ask_client, given_up) as held:
                source = bundles.load(str(held.path))
        else:
            source = bundles.load(ask_client(made_from))
        return self._reader.make(source, path, self._cache)

    def path(
        self,
        ref: DataRef,
        ask: Callable[[DataRef], None],
        *,
        user: str,
        given_up: Callable[[], bool],
    ) -> str:
        """Return the file of a bundle, waiting for it to be sent if need be.

        Parameters
        ----------
        ref : DataRef
        ask : callable
            Asks the client to send the bundle.
        user : str
            Names the search that needs it.
        given_up : callable
            Whether it is no longer needed, as the client of an ended search sends
            nothing. Called every few seconds, and after `look_again`.

        Raises
        ------
        DataUnavailableError
            If nothing comes for two minutes, or it is given up.
        """
        if _is_there(ref):
            return str(ref.path)
        begun = time.monotonic()
        with self._changed:
            self._users.setdefault(ref.digest, set()).add(user)
            while ref.digest not in self._arrived:
                if given_up():
                    self._unask(ref.digest, user)
                    msg = f"the data {ref.digest} is no longer needed: its search has ended"
                    raise DataUnavailableError(msg)
                if time.monotonic() > max(begun, self._heard_at) + _GIVE_UP_S:
                    msg = (
                        f"the client did not send {ref.nbytes} bytes of data "
                        f"({ref.digest}) within {_GIVE_UP_S:.0f} s: check that it still runs"
                    )
                    raise DataUnavailableError(msg)
                if ref.digest not in self._asked:
                    self._asked[ref.digest] = user
                    ask(ref)
                if not self._changed.wait(_ASK_AGAIN_S):
                    self._asked.pop(ref.digest, None)
            return self._arrived[ref.digest]

    def shared_folder(self, search: str, code: str) -> NodeFolder:
        """Return the folder in which the slots share the objects of a search."""
        cache = self._cache
        return NodeFolder(cache.folder, cache.limit_bytes, search, code)

    def look_again(self) -> None:
        """Wake up waiting threads, which then check whether to give up."""
        with self._changed:
            self._changed.notify_all()

    def receive(
        self, digest: str, offset: int, chunk: bytes, nbytes: int, user: str
    ) -> None:
        """Write a part of a bundle; the last one makes it available.

        Two searches may send the same one: each writes a file of its own.
        """
        self._heard_at = time.monotonic()
        path = self._own_folder() / digest
        partial = path.with_name(f"{digest}.{user}.partial")
        with partial.open("r+b" if offset else "wb") as file:
            file.seek(offset)
            file.write(chunk)
        if offset + len(chunk) == nbytes:
            partial.replace(path)
            with self._changed:
                self._arrived[digest] = str(path)
                self._asked.pop(digest, None)
                self._changed.notify_all()

    def forget(self, user: str) -> None:
        """Remove bundles that only this search has used.

        A slot that has mapped one keeps its content until it drops it.
        """
        with self._changed:
            for digest in list(self._asked):
                self._unask(digest, user)
            for digest in [one for one, users in self._users.items() if user in users]:
                self._users[digest].remove(user)
                if not self._users[digest]:
                    del self._users[digest]
                    path = self._arrived.pop(digest, None)
                    if path is not None:
                        Path(path).unlink(missing_ok=True)
        for kind in (NodeRows, NodeSteps):
            self._cache.remove_all(search_prefix(kind.prefix, user))

    def close(self) -> None:
        """Remove sent bundles; the node's last worker removes a temporary cache."""
        self._cache.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _unask(self, digest: str, user: str) -> None:
        """Let another search ask for a bundle that this search will not get."""
        if self._asked.get(digest) == user:
            del self._asked[digest]
            self._changed.notify_all()

    def _own_folder(self) -> Path:
        if self._folder is None:
            self._parent.mkdir(parents=True, exist_ok=True)
            self._folder = Path(tempfile.mkdtemp(dir=self._parent, prefix="bundles-"))
        return self._folder


def _is_there(ref: DataRef) -> bool:
    with contextlib.suppress(OSError):
        return not ref.in_store and ref.path.stat().st_size == ref.nbytes
    return False


@contextlib.contextmanager
def _map_disk_errors() -> Iterator[None]:
    """Turn an error of reading into a DataUnavailableError, which the client gets."""
    try:
        yield
    except HPSearchError:
        raise
    except ModuleNotFoundError as error:
        msg = (
            f"a worker lacks the module {error.name!r}, which it needs to read data: run "
            f"{install_command(extra_of(error) or 'gcp')} there"
        )
        raise DataUnavailableError(msg) from error
    except OSError:  # of the cache's own disk
        raise
    except Exception as error:
        msg = f"a worker could not read data: {type(error).__name__}: {error}"
        raise DataUnavailableError(msg) from error
