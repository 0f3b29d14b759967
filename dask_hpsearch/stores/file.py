"""Stores in a folder of this machine, or of a shared disk."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from dask_hpsearch.exceptions import ObjectNotFoundError, StoreError
from dask_hpsearch.localfs.atomic import (
    fill_whole,
    remove_if_stale,
    replaced_whole,
    sync_folder,
)
from dask_hpsearch.stores.base import (
    Listing,
    StoredObject,
    check_name,
    check_prefix,
    is_part,
)
from dask_hpsearch.stores.errors import map_storage_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
# A folder may vanish between two system calls, when its last object is deleted.
_ATTEMPTS = 10
_CHUNK_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class FileStore:
    """A folder with a file for each object.

    It is created with the first object. Folders that become empty are removed, except the
    one that was opened.

    Attributes
    ----------
    root : Path
        Absolute.
    base : Path
        The folder that was opened: ``root``, or its parent for a child.
    """

    root: Path
    base: Path

    @property
    def url(self) -> str:
        """The folder as a ``file://`` URL."""
        return self.root.as_uri()

    def read(self, name: str) -> bytes:
        """Read an object."""
        with (
            self._open(name) as file,
            map_storage_errors("read", str(self._path(name))),
        ):
            return file.read()

    def create(self, name: str, content: bytes) -> bool:
        """Create an object, synced to the disk, unless there is one of this name."""
        return self._fill(name, lambda file: file.write(content))

    def fetch(self, name: str, path: Path) -> None:
        """Copy an object into a local file."""
        with self._open(name) as source, replaced_whole(path) as target:
            shutil.copyfileobj(source, target, _CHUNK_BYTES)

    def send(self, name: str, path: Path) -> bool:
        """Copy a local file into a new object."""
        with path.open("rb") as source:

            def copy(target: IO[bytes]) -> None:
                source.seek(0)
                shutil.copyfileobj(source, target, _CHUNK_BYTES)

            return self._fill(name, copy)

    def replace(self, name: str, content: bytes) -> None:
        """Create a file, in the place of one of this name if there is one."""
        path = self._path(name)
        with map_storage_errors("write", str(path)):
            _make_folder(path.parent)
            with replaced_whole(path) as file:
                file.write(content)

    def list(self, prefix: str = "") -> Listing:
        """List the objects whose names begin with a text, sorted by name."""
        parent, slash, _ = check_prefix(prefix).rpartition("/")
        folder = self.root / parent
        with map_storage_errors("list", str(folder)):
            found = _walk(folder, parent + slash, prefix)
            return sorted(found, key=lambda item: item.name)

    def touch(self, name: str) -> None:
        """Set a file's time to now."""
        path = self._path(name)
        with map_storage_errors("touch", str(path)):
            try:
                os.utime(path)
            except _ABSENT as error:
                raise self._absent(name) from error

    def delete(self, name: str) -> None:
        """Delete an object, and the folders that it leaves empty."""
        path = self._path(name)
        with map_storage_errors("delete", str(path)):
            try:
                path.unlink()
            except _ABSENT:
                return
        for folder in path.parents:
            if folder == self.base:
                break
            try:
                folder.rmdir()
            except OSError:
                break  # not empty, or no permission

    def child(self, name: str) -> FileStore:
        """Return the store of the objects below a name."""
        return FileStore(self._path(name), self.base)

    def local_path(self) -> Path:
        """Return the folder."""
        return self.root

    def _open(self, name: str) -> IO[bytes]:
        path = self._path(name)
        with map_storage_errors("read", str(path)):
            try:
                return path.open("rb")
            except _ABSENT as error:
                raise self._absent(name) from error

    def _absent(self, name: str) -> ObjectNotFoundError:
        return ObjectNotFoundError(
            f"no object {name!r} in {self.url}: it was deleted or never created; check "
            "the name and the store's URL"
        )

    def _fill(self, name: str, fill: Callable[[IO[bytes]], object]) -> bool:
        path = self._path(name)
        with map_storage_errors("write", str(path)):
            created = _create(path, fill)
            if not created and path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "it is a folder of other objects")
        return created

    def _path(self, name: str) -> Path:
        return self.root / check_name(name)


def open_folder(path: Path) -> FileStore:
    """Open a folder, which need not exist yet.

    Raises
    ------
    StoreError
        If it is a file.
    """
    root = path.resolve() if ".." in path.parts else path.absolute()
    if root.exists() and not root.is_dir():
        msg = f"{root} is a file, not a folder: name the folder that holds the runs"
        raise StoreError(msg)
    return FileStore(root, root)


def _create(path: Path, fill: Callable[[IO[bytes]], object]) -> bool:
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(FileNotFoundError):
            return fill_whole(path, fill)
        with contextlib.suppress(FileNotFoundError):
            _make_folder(path.parent)
    return fill_whole(path, fill)


def _make_folder(folder: Path) -> None:
    missing = [above for above in (folder, *folder.parents) if not above.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        sync_folder(made.parent)


def _walk(folder: Path, above: str, prefix: str) -> Iterator[StoredObject]:
    """Yield the objects of a folder whose name in the store is ``above``."""
    try:
        entries = os.scandir(folder)
    except _ABSENT:
        return
    with entries:
        for entry in entries:
            name = above + entry.name
            if not is_part(entry.name):
                remove_if_stale(Path(entry.path))
            elif entry.is_dir(follow_symlinks=False):
                if f"{name}/".startswith(prefix) or prefix.startswith(f"{name}/"):
                    yield from _walk(Path(entry.path), f"{name}/", prefix)
            elif name.startswith(prefix):
                yield from _stored(entry, name)


def _stored(entry: os.DirEntry[str], name: str) -> Iterator[StoredObject]:
    with contextlib.suppress(FileNotFoundError):  # deleted since
        if entry.is_file():
            stat = entry.stat()
            yield StoredObject(name, stat.st_size, stat.st_mtime)
