"""Temporary folders of data, which are removed after their process has ended."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

_MEMORY_FOLDER = Path("/dev/shm")  # noqa: S108 (a private folder is created in it)


def temporary_folder(nbytes: int) -> Path:
    """Create a folder, in memory if there is plenty for so many bytes, else on disk.

    Folders of processes that were killed are removed.
    """
    parent = _parent(nbytes)
    for folder in {parent, _MEMORY_FOLDER, Path(tempfile.gettempdir())}:
        _remove_leftovers(folder)
    return Path(tempfile.mkdtemp(prefix=f"dask-hpsearch-{os.getpid()}-", dir=parent))


def _parent(nbytes: int) -> Path:
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(_MEMORY_FOLDER).free
        if os.access(_MEMORY_FOLDER, os.W_OK) and free > max(4 * nbytes, 2**30):
            return _MEMORY_FOLDER
    return Path(tempfile.gettempdir())


def _remove_leftovers(parent: Path) -> None:
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
