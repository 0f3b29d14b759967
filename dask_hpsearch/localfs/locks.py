"""The kernel's locks on files (``flock``), which end with the process that holds them."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def is_file(descriptor: int, path: Path) -> bool:
    """Whether a path still leads to this open file."""
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False


def try_lock(descriptor: int, how: int) -> bool:
    """Lock an open file (``fcntl.LOCK_SH`` or ``LOCK_EX``) without waiting."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def closed_on_error(descriptor: int) -> Iterator[int]:
    """Close an open file, which ends its lock, if the block fails."""
    try:
        yield descriptor
    except BaseException:
        os.close(descriptor)
        raise
