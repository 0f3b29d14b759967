"""Stores in this process's memory: the ``memory://`` file system of fsspec.

All code of the process that opens the same URL, also through fsspec, sees the same objects.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import fsspec

from dask_hpsearch.exceptions import ObjectNotFoundError, StoreError
from dask_hpsearch.localfs.atomic import replaced_whole
from dask_hpsearch.stores.base import Listing, StoredObject, check_name, check_prefix

if TYPE_CHECKING:
    from pathlib import Path

# fsspec has one memory per process; so there is one lock that makes creation exclusive.
_creating = threading.Lock()


@dataclass(frozen=True, slots=True)
class MemoryStore:
    """A folder in memory, which ends with the process.

    Attributes
    ----------
    root : str
        Its name, without leading and trailing slashes.
    """

    root: str

    @property
    def url(self) -> str:
        """The folder as a ``memory://`` URL."""
        return f"memory://{self.root}"

    def read(self, name: str) -> bytes:
        """Read an object."""
        try:
            return bytes(_files().cat_file(self._path(name)))
        except FileNotFoundError as error:
            raise self._absent(name) from error

    def create(self, name: str, content: bytes) -> bool:
        """Create an object unless there is one of this name."""
        path = self._path(name)
        files = _files()
        with _creating:
            if files.isfile(path):
                return False
            try:
                files.pipe_file(path, content)
            except OSError as error:
                msg = f"cannot write {self.url}/{name}: another object is its folder; choose another name"
                raise StoreError(msg) from error
        return True

    def fetch(self, name: str, path: Path) -> None:
        """Write an object into a local file."""
        content = self.read(name)
        with replaced_whole(path) as file:
            file.write(content)

    def send(self, name: str, path: Path) -> bool:
        """Create an object from a local file, unless there is one of this name."""
        return self.create(name, path.read_bytes())

    def replace(self, name: str, content: bytes) -> None:
        """Create an object, in the place of one of this name if there is one."""
        with _creating:
            _files().pipe_file(self._path(name), content)

    def list(self, prefix: str = "") -> Listing:
        """List the objects whose names begin with a text, sorted by name."""
        folder = f"/{self.root}/"
        start = folder + check_prefix(prefix)
        files = _files()
        found = files.find(start.rpartition("/")[0], detail=True)
        return sorted(
            (
                StoredObject(
                    path.removeprefix(folder),
                    info["size"],
                    files.modified(path).timestamp(),
                )
                for path, info in found.items()
                if path.startswith(start)
            ),
            key=lambda item: item.name,
        )

    def touch(self, name: str) -> None:
        """Set an object's time to now."""
        try:
            _files().store[self._path(name)].modified = dt.datetime.now(dt.UTC)
        except KeyError as error:
            raise self._absent(name) from error

    def delete(self, name: str) -> None:
        """Delete an object, if there is one."""
        with contextlib.suppress(FileNotFoundError):
            _files().rm_file(self._path(name))

    def child(self, name: str) -> MemoryStore:
        """Return the store of the objects below a name."""
        return MemoryStore(f"{self.root}/{check_name(name)}")

    def local_path(self) -> None:
        """Return None: it is not in a folder."""

    def _absent(self, name: str) -> ObjectNotFoundError:
        return ObjectNotFoundError(
            f"no object {name!r} in {self.url}: it was deleted, was never created, or was "
            "created by another process, whose memory is not shared"
        )

    def _path(self, name: str) -> str:
        return f"/{self.root}/{check_name(name)}"


def _files() -> Any:
    return fsspec.filesystem("memory")
