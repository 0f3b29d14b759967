"""Files that appear whole or not at all.

The content is written to a hidden file in the same folder. To create a file, it is synced
and linked to its name, which fails if the name is taken: other processes see no file or the
whole file, and of several processes that create it, exactly one succeeds. To replace a
file, the hidden file is renamed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import time
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

STALE_S = 3600.0
_PARTIAL = ".partial-"
_CLAIM = ".claim-"
_CLAIM_WAIT_S = 30.0
_CLAIM_POLL_S = 0.01
# What file systems without hard links answer (FAT, some FUSE mounts).
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


def create_whole(path: Path, content: bytes, *, mode: int = 0o666) -> bool:
    """Create a file with some content, as `fill_whole` does."""
    return fill_whole(path, lambda file: file.write(content), mode=mode)


def fill_whole(
    path: Path, fill: Callable[[IO[bytes]], object], *, mode: int = 0o666
) -> bool:
    """Create a file whole or not at all, unless it exists.

    When it returns, the content and its name are synced to the disk.

    Parameters
    ----------
    path : Path
        In a folder that exists.
    fill : callable
        Writes the content; if it raises, no file is left.
    mode : int
        Permissions, reduced by the process's umask.

    Returns
    -------
    bool
        Whether this call created the file; False if it existed.

    Raises
    ------
    OSError
        If it cannot be written; no part of it is left.
    """
    if os.path.lexists(path):
        return False
    partial = _partial_of(path)
    try:
        with os.fdopen(_open_new(partial, mode), "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        created = _publish(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    if created:
        sync_folder(path.parent)
    return created


@contextlib.contextmanager
def replaced_whole(path: Path, *, mode: int = 0o666) -> Iterator[IO[bytes]]:
    """Open a file that takes the place of ``path`` only if the block ends well.

    Parameters
    ----------
    path : Path
        In a folder that exists.
    mode : int
        Permissions, reduced by the process's umask.

    Raises
    ------
    OSError
        If it cannot be written; no part of it is left.
    """
    partial = _partial_of(path)
    try:
        with os.fdopen(_open_new(partial, mode), "wb") as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Sync the names in a folder to the disk, if its file system can."""
    # Some mounts cannot sync a folder; the files' own content is synced by then.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_if_stale(path: Path) -> None:
    """Remove the hidden file of a process that was killed while it wrote."""
    if path.name.startswith((_PARTIAL, _CLAIM)):
        # Another may have removed it, or this user may only read here.
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE_S:
                path.unlink()


def _partial_of(path: Path) -> Path:
    return path.with_name(f"{_PARTIAL}{secrets.token_hex(8)}")


def _open_new(path: Path, mode: int) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)


def _publish(partial: Path, path: Path) -> bool:
    try:
        path.hardlink_to(partial)
    except FileExistsError:
        # A network file system may lose a reply and repeat the request: then the
        # existing name is this call's own.
        return partial.stat().st_nlink > 1
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return publish_under_claim(partial, path)
    return True


def publish_under_claim(
    partial: Path, path: Path, *, wait_s: float = _CLAIM_WAIT_S
) -> bool:
    """Rename a file to a free name, for file systems without links.

    The process that creates the claim file beside the name may rename. A claim that stays
    unchanged for ``wait_s`` is of a dead process: it is held for two system calls only.
    """
    claim = claim_of(path)
    claim_wait = _ClaimWait(claim, wait_s)
    while not os.path.lexists(path):
        try:
            os.close(os.open(claim, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            claim_wait.wait()
            continue
        try:
            if not os.path.lexists(path):
                partial.rename(path)
                return True
        finally:
            claim.unlink(missing_ok=True)
    return False


def claim_of(path: Path) -> Path:
    """Return the hidden file that exists while a process renames to a name."""
    key = hashlib.sha256(os.fsencode(path.name), usedforsecurity=False).hexdigest()
    return path.with_name(f"{_CLAIM}{key[:32]}")


class _ClaimWait:
    """Waits for another process's claim; removes it when that process must be dead.

    The claim's age is not used, since the clocks of two machines may differ.
    """

    def __init__(self, claim: Path, wait_s: float) -> None:
        self._claim = claim
        self._wait_s = wait_s
        self._seen: tuple[int, int] | None = None
        self._since = time.monotonic()

    def wait(self) -> None:
        try:
            stat = self._claim.stat()
        except FileNotFoundError:
            return
        if (stat.st_ino, stat.st_mtime_ns) != self._seen:
            self._seen = (stat.st_ino, stat.st_mtime_ns)
            self._since = time.monotonic()
        elif time.monotonic() - self._since > self._wait_s:
            self._claim.unlink(missing_ok=True)
        time.sleep(_CLAIM_POLL_S)
