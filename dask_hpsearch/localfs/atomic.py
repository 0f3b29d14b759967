"""Files that appear whole, once, and only under a name that was free.

The content is written to a hidden file in the same folder and synced; then it is linked to
its name, which fails if the name is taken. Whoever looks sees nothing or everything, and of
any number of processes that try, one is told that the file is its own.
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
    """Create a file of this content, as `fill_whole` does."""
    return fill_whole(path, lambda file: file.write(content), mode=mode)


def fill_whole(
    path: Path, fill: Callable[[IO[bytes]], object], *, mode: int = 0o666
) -> bool:
    """Create a file whole or not at all, unless there is one.

    When it returns, the content and its name are synced to the disk.

    Parameters
    ----------
    path : Path
        In a folder that exists.
    fill : callable
        Writes the content; what it raises leaves nothing behind.
    mode : int
        Permissions, of which the process's umask is taken away.

    Returns
    -------
    bool
        Whether the file is this call's own; False if there was one before.

    Raises
    ------
    OSError
        If it cannot be written; nothing of it stays behind.
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
        Permissions, of which the process's umask is taken away.

    Raises
    ------
    OSError
        If it cannot be written; nothing of it stays behind.
    """
    partial = _partial_of(path)
    try:
        with os.fdopen(_open_new(partial, mode), "wb") as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder outlast a power cut, where its file system can."""
    # Some mounts cannot sync a folder; the files' own content is synced by then.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_if_stale(path: Path) -> None:
    """Remove what a process left behind that was killed while it wrote."""
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
        # On a network file system a reply may be lost and the link asked for again:
        # then the name that exists is our own.
        return partial.stat().st_nlink > 1
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return publish_under_claim(partial, path)
    return True


def publish_under_claim(
    partial: Path, path: Path, *, wait_s: float = _CLAIM_WAIT_S
) -> bool:
    """Rename a file to a free name, where links are not to be had.

    Whoever creates the claim beside the name may rename. A claim that stays the same for
    ``wait_s`` is of a process that died: holding one takes two system calls.
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
    """Return the hidden file that is there while somebody renames to a name."""
    key = hashlib.sha256(os.fsencode(path.name), usedforsecurity=False).hexdigest()
    return path.with_name(f"{_CLAIM}{key[:32]}")


class _ClaimWait:
    """Waits on a claim of another; removes it when its holder must be dead.

    The claim's age is not asked for: the clocks of two machines may differ.
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
