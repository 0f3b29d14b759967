"""A node's cache of data from elsewhere: bounded, checked, one copy for all processes.

The processes of a node share one folder, with these files of each entry:

KEY           the complete file, which never changes
KEY.lock      locked while the file is used (shared), made or removed (exclusive); contains
              the file's checksum
KEY.partial   the file while it is being made
KEY.reserved  reserves the file's size meanwhile

Locks are the kernel's (``flock``): they end with the process that holds them, however it
ends. So an entry without a lock may be removed, and one that a fit uses never is.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import shutil
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from dask_hpsearch.exceptions import CacheFullError, DataUnavailableError, StoreError
from dask_hpsearch.localfs.atomic import remove_if_stale
from dask_hpsearch.localfs.checksums import checksum, kind_of
from dask_hpsearch.localfs.locks import closed_on_error, is_file, try_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FOLDER_VARIABLE = "DASK_HPSEARCH_CACHE"
SIZE_VARIABLE = "DASK_HPSEARCH_CACHE_SIZE"
_SHARE_OF_DISK = 0.8
_UNUSED_S = 7 * 86400.0
_POLL_S = 0.02
_LOCK, _PARTIAL, _RESERVED = ".lock", ".partial", ".reserved"
_USERS, _ROOM = ".users", ".room"
_logger = logging.getLogger(__name__)


class Held:
    """An entry that is not removed until it is closed.

    Attributes
    ----------
    path : Path
        Its file.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor: int | None = descriptor

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the entry."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


class Claim:
    """An entry that this process alone may make, until it is let go.

    Parameters
    ----------
    path : Path
        Its file.
    descriptor : int
        Of its lock, held alone.
    make : callable
        Makes it, given what `fill` is given.
    """

    def __init__(self, path: Path, descriptor: int, make: Callable[..., None]) -> None:
        self.path = path
        self._descriptor: int | None = descriptor
        self._make = make

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def fill(
        self,
        nbytes: int,
        make: Callable[[Path], str],
        *,
        among: str,
        limit_bytes: int,
    ) -> None:
        """Make the entry; what entries of its kind take together is bounded.

        Parameters
        ----------
        nbytes, make
            As of `NodeCache.hold`.
        among : str
            How the keys of its kind begin.
        limit_bytes : int
            Most that they may take; the least recently used ones go.

        Raises
        ------
        CacheFullError, StoreError
        """
        kind = among, limit_bytes
        self._make(self.path, self._descriptor, nbytes, make, kind)

    def close(self) -> None:
        """Let it go; if it was not filled, others may make it."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            if not self.path.exists():
                _lock_of(self.path).unlink(missing_ok=True)
            os.close(descriptor)


class NodeCache:
    """Files by key in a folder; the first process that needs a file makes it.

    Parameters
    ----------
    folder : Path
        Created with the first entry.
    limit_bytes : int, optional
        Most that all entries may take; default: four fifths of the disk's free space and
        the entries together.
    temporary : bool
        Remove the folder when the last process that uses it closes it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        limit_bytes: int | None = None,
        temporary: bool = False,
    ) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self._temporary = temporary
        self._users: int | None = None
        self._opening = threading.Lock()
        self._checking = threading.Lock()
        self._checked: dict[str, tuple[int, int, int]] = {}

    @classmethod
    def of_environment(cls, default: Path, *, temporary: bool) -> NodeCache:
        """Open the cache that the environment names, or the default one.

        ``$DASK_HPSEARCH_CACHE`` is a folder, which is not removed;
        ``$DASK_HPSEARCH_CACHE_SIZE`` is its limit, in bytes or as in ``20GiB``.
        """
        named = os.environ.get(FOLDER_VARIABLE)
        size = os.environ.get(SIZE_VARIABLE)
        return cls(
            Path(named).expanduser().absolute() if named else default,
            limit_bytes=_parsed(size) if size else None,
            temporary=temporary and not named,
        )

    def hold(
        self,
        key: str,
        nbytes: int,
        make: Callable[[Path], str],
        *,
        given_up: Callable[[], bool] = lambda: False,
    ) -> Held:
        """Return an entry; if it does not exist, one of the callers makes it.

        Parameters
        ----------
        key : str
            Names its content.
        nbytes : int
            Its size, or a first estimate.
        make : callable
            Writes the file and returns its checksum, ``kind:value``.
        given_up : callable
            Whether to stop waiting for another process that makes it.

        Raises
        ------
        CacheFullError
            If there is no room, because other entries are in use or the limit is too low.
        StoreError
            If the folder cannot be written.
        DataUnavailableError
            If it was given up.
        Exception
            Raised by ``make``; no part of the entry is left.
        """
        path = self.folder / key
        while True:
            held = self._hold(path, None) or self._hold(
                path, lambda lock: self._make(path, lock, nbytes, make)
            )
            if held is not None:
                return held
            if given_up():
                msg = f"the data {key} is no longer needed: its search has ended"
                raise DataUnavailableError(msg)
            time.sleep(_POLL_S)

    def claim(self, key: str) -> Held | Claim | None:
        """Return an entry, or the right to make it, without waiting.

        Returns
        -------
        Held, Claim or None
            None while another process makes it.

        Raises
        ------
        StoreError
            If the folder cannot be written.
        """
        path = self.folder / key
        held = self._hold(path, None) if path.exists() else None
        if held is not None:
            return held
        lock = self._lock(path, fcntl.LOCK_EX)
        if lock is None:
            return None
        with closed_on_error(lock):
            if not self._is_whole(path, lock):
                return Claim(path, lock, self._make)
            fcntl.flock(lock, fcntl.LOCK_SH)
            return Held(path, lock)

    def remove_all(self, prefix: str) -> None:
        """Remove the entries whose keys begin so, apart from those in use."""
        for key in self._sizes():
            if key.startswith(prefix):
                self._remove(key)

    def nbytes(self) -> int:
        """Return the bytes that all entries take or have reserved."""
        return sum(size for _, size in self._sizes().values())

    def tidy(self) -> None:
        """Remove files of killed processes, and entries that were unused for a week."""
        for key, (used, _) in self._sizes().items():
            if time.time() - used > _UNUSED_S or not (self.folder / key).exists():
                self._remove(key)
        for path in self.folder.glob(".partial-*"):
            remove_if_stale(path)

    def close(self) -> None:
        """Stop using the folder; the last process removes a temporary one."""
        if self._temporary and self._users is None and self.folder.exists():
            with contextlib.suppress(OSError, StoreError):
                self._open()  # other processes, which have ended, have made it
        if self._users is None:
            return
        try:
            if self._temporary:
                fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(self.folder, ignore_errors=True)
        except BlockingIOError:
            pass  # others use it
        finally:
            os.close(self._users)
            self._users = None

    # --- one entry --------------------------------------------------------------------

    def _hold(self, path: Path, make: Callable[[int], None] | None) -> Held | None:
        """Hold an entry that is complete; with ``make``, make it first if need be."""
        lock = self._lock(path, fcntl.LOCK_SH if make is None else fcntl.LOCK_EX)
        if lock is None:
            return None
        with closed_on_error(lock):
            if make is not None:
                if not self._is_whole(path, lock):
                    make(lock)
                fcntl.flock(lock, fcntl.LOCK_SH)  # others may get a moment in between
            if self._is_whole(path, lock) and is_file(lock, _lock_of(path)):
                return Held(path, lock)
        os.close(lock)
        return None

    def _lock(self, path: Path, how: int) -> int | None:
        """Lock an entry without waiting: another process may use it for long."""
        self._open()
        lock = os.open(_lock_of(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with closed_on_error(lock):
            if try_lock(lock, how) and is_file(lock, _lock_of(path)):
                return lock
        os.close(lock)
        return None

    def _is_whole(self, path: Path, lock: int) -> bool:
        """Whether the file exists, with its original content."""
        try:
            stat = path.stat()
        except FileNotFoundError:
            return False
        identity = stat.st_ino, stat.st_mtime_ns, stat.st_size
        with self._checking:
            if self._checked.get(path.name) != identity:
                expected = _noted(lock)
                if not expected or not _has(path, expected):
                    _logger.warning("%s was altered: it is made again", path)
                    return False
                self._checked[path.name] = identity
        with contextlib.suppress(OSError):
            os.utime(path, ns=(time.time_ns(), stat.st_mtime_ns))  # last used now
        return True

    def _make(
        self,
        path: Path,
        lock: int,
        nbytes: int,
        make: Callable[[Path], str],
        kind: tuple[str, int] | None = None,
    ) -> None:
        partial = path.with_name(f"{path.name}{_PARTIAL}")
        reserved = path.with_name(f"{path.name}{_RESERVED}")
        try:
            with _map_disk_errors(self.folder):
                path.unlink(missing_ok=True)
                self._reserve(reserved, nbytes, kind)
                found = make(partial)
                stat = partial.stat()
                if stat.st_size > nbytes:  # the estimate was too low
                    self._reserve(reserved, stat.st_size, kind)
                os.ftruncate(lock, 0)
                os.pwrite(lock, json.dumps(found).encode(), 0)
                partial.rename(path)
            self._checked[path.name] = stat.st_ino, stat.st_mtime_ns, stat.st_size
        finally:
            for rest in (partial, reserved):
                rest.unlink(missing_ok=True)

    # --- room -------------------------------------------------------------------------

    def _reserve(
        self, reserved: Path, nbytes: int, kind: tuple[str, int] | None = None
    ) -> None:
        """Make room for a file, and keep it free while the file is made."""
        with self._alone():
            sizes = self._sizes()
            sizes.pop(reserved.name.removesuffix(_RESERVED), None)
            if kind is not None:
                self._bound(sizes, nbytes, *kind)
            used = sum(size for _, size in sizes.values())
            limit = self._limit(used)
            oldest_first = sorted(sizes, key=lambda key: sizes[key])
            for key in oldest_first:
                if used + nbytes <= limit:
                    break
                if self._remove(key):
                    used -= sizes[key][1]
            if used + nbytes > limit:
                msg = (
                    f"no room for {_shown(nbytes)} in the cache {self.folder}: "
                    f"{_shown(used)} of {_shown(limit)} are in use. Free space on its disk, "
                    f"or set {SIZE_VARIABLE} (such as 20GiB) or {FOLDER_VARIABLE} (a "
                    "folder on a larger disk) for the workers"
                )
                raise CacheFullError(errno.ENOSPC, msg)
            with reserved.open("wb") as file:
                file.truncate(nbytes)

    def _bound(
        self,
        sizes: dict[str, tuple[float, int]],
        nbytes: int,
        prefix: str,
        limit_bytes: int,
    ) -> None:
        """Remove old entries of a kind until another one fits its limit."""
        of_kind = [key for key in sizes if key.startswith(prefix)]
        used = sum(sizes[key][1] for key in of_kind)
        for key in sorted(of_kind, key=lambda key: sizes[key]):
            if used + nbytes <= limit_bytes:
                break
            if self._remove(key):
                used -= sizes.pop(key)[1]

    def _limit(self, used: int) -> int:
        if self.limit_bytes is not None:
            return self.limit_bytes
        return int(_SHARE_OF_DISK * (shutil.disk_usage(self.folder).free + used))

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Let only one process at a time count and reserve."""
        descriptor = os.open(self.folder / _ROOM, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _sizes(self) -> dict[str, tuple[float, int]]:
        """Return when each entry was last used, and its bytes or reserved bytes."""
        found: dict[str, tuple[float, int]] = {}
        with contextlib.suppress(FileNotFoundError), os.scandir(self.folder) as entries:
            for entry in entries:
                key, _, kind = entry.name.partition(".")
                if not key:
                    continue
                used, size = found.get(key, (0.0, 0))
                with contextlib.suppress(FileNotFoundError):
                    stat = entry.stat()
                    if not kind:
                        used = stat.st_atime
                    if kind != _LOCK[1:]:
                        size = max(size, stat.st_size)
                found[key] = used, size
        return found

    def _remove(self, key: str) -> bool:
        """Remove an entry, unless a process uses or makes it."""
        path = _lock_of(self.folder / key)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not try_lock(lock, fcntl.LOCK_EX):
                return False
            for ending in ("", _PARTIAL, _RESERVED, _LOCK):
                path.with_name(key + ending).unlink(missing_ok=True)
            return True
        finally:
            os.close(lock)

    def _open(self) -> None:
        """Create the folder, and register this process as a user."""
        path = self.folder / _USERS
        with self._opening, _map_disk_errors(self.folder):
            if self._users is not None:
                return
            while True:
                self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                with contextlib.suppress(FileNotFoundError):
                    users = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                    fcntl.flock(users, fcntl.LOCK_SH)
                    if is_file(users, path):
                        break
                    os.close(users)  # the folder was removed while we waited
            self._users = users
        self.tidy()


def _lock_of(path: Path) -> Path:
    return path.with_name(path.name + _LOCK)


def _noted(lock: int) -> str:
    try:
        return str(json.loads(os.pread(lock, 1000, 0)))
    except ValueError:
        return ""


def _has(path: Path, expected: str) -> bool:
    try:
        return checksum(path, kind_of(expected)) == expected
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def _map_disk_errors(folder: Path) -> Iterator[None]:
    """Turn an error of the disk into a `StoreError` with the way out."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        msg = (
            f"cannot write to the cache {folder} ({error.strerror or error}): set "
            f"{FOLDER_VARIABLE} to a writable folder"
        )
        raise StoreError(error.errno, msg) from error


def _parsed(size: str) -> int:
    from dask.utils import parse_bytes

    try:
        return int(parse_bytes(size))
    except ValueError as error:
        msg = f"{SIZE_VARIABLE} must be a number of bytes or a size such as 20GiB, got {size!r}"
        raise StoreError(msg) from error


def _shown(nbytes: int) -> str:
    return f"{nbytes / 2**20:.1f} MiB"
