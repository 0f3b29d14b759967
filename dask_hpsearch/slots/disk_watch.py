"""Watches what fits write to a worker's disk, so that the one that fills it is known.

Kubernetes ends a pod that writes more than its volume may hold, with all its fits, and the
volume goes with it: nothing would be left that tells which fit it was, and Dask would run it
again, on one worker after the other. So a worker looks itself, and sooner than Kubernetes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dask_hpsearch.slots.process_tree import descendants_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from dask_hpsearch.slots.slot import Slot

#: Names the folder in which each slot of a pod has one of its own for temporary files.
FOLDERS_VARIABLE = "DASK_HPSEARCH_SLOT_FOLDERS"
_FOLDERS = "slots"
_FULL_AT = 0.95  # of the limit; Kubernetes looks a few times a minute only
_WORTH_TELLING = 0.25  # of the limit
_LEAST_BLAMED = 0.1  # of the limit: who wrote less has not filled the disk
_NODE_IS_LOW = 0.15  # Kubernetes begins to end pods at a tenth
_LEAST_ON_LOW_NODE = 64 * 2**20
_BLOCK = 512  # bytes, of st_blocks
GIB = 2**30

Task = tuple[str, int]


@dataclass(slots=True)
class _Writes:
    """What a slot's process has written: when its task began, and as of the last look."""

    task: Task
    base: int = 0
    last: int = 0


class WriteCounts:
    """How much each slot has written for the task that it runs."""

    def __init__(self) -> None:
        self._slots: dict[int, _Writes] = {}

    def update(self, pid: int, task: Task, total: int) -> int:
        """Take in what a process has written in all; return how much for its task."""
        writes = self._slots.setdefault(pid, _Writes(task))
        if writes.task != task:
            writes.task, writes.base = task, writes.last
        writes.last = max(total, writes.last)
        return writes.last - writes.base

    def forget_all_but(self, pids: Collection[int]) -> None:
        """Forget processes that are gone."""
        for pid in self._slots.keys() - set(pids):
            del self._slots[pid]


@dataclass(frozen=True, slots=True)
class DiskLoad:
    """A slot, and what it has written for the task that it runs.

    Attributes
    ----------
    slot : Slot
    task : (str, int)
        As of the look.
    nbytes : int
    """

    slot: Slot
    task: Task
    nbytes: int


class DiskWatch:
    """Ends the fit that fills the folder which a pod may write to.

    Parameters
    ----------
    folder : Path
        All that the pod writes is in there.
    limit : int
        Bytes that it may hold.
    leave : callable
        Called when it stays full though no fit is to blame: the worker has to go.
    """

    def __init__(
        self, folder: Path, limit: int, *, leave: Callable[[], None] = lambda: None
    ) -> None:
        self._folder = folder
        self._limit = limit
        self._leave = leave
        self._counts = WriteCounts()
        self._kept = WriteCounts()
        self._told: set[Task] = set()
        self._full_looks = 0

    def look(
        self,
        busy: Sequence[Slot],
        idle: Sequence[Slot],
        tell: Callable[[DiskLoad], None],
    ) -> None:
        """Look once.

        Parameters
        ----------
        busy, idle : sequence of Slot
        tell : callable
            Given a fit that has written so much that it may be to blame, once.
        """
        slots = [*busy, *idle]
        for counts in (self._counts, self._kept):
            counts.forget_all_but([slot.pid for slot in slots])
        self._tidy({slot.pid for slot in slots})
        loads = {slot: self._weigh(slot) for slot in slots}
        most = max(
            (loads[slot] for slot in busy),
            key=lambda load: load.nbytes,
            default=None,
        )
        used = used_bytes(self._folder)
        if most is not None and self._may_be_to_blame(most):
            self._told.add(most.task)
            tell(most)
        if used < _FULL_AT * self._limit:
            self._full_looks = 0
            return
        self._full_looks += 1
        self._make_room(most, idle, used)

    def _make_room(
        self, most: DiskLoad | None, idle: Sequence[Slot], used: int
    ) -> None:
        """End who filled the folder; what its slot wrote goes with it at the next look."""
        if most is not None and self._is_to_blame(most, used):
            if most.task == most.slot.task:
                most.slot.cause = in_words(most.nbytes, used, self._limit)
                most.slot.end("disk")
            return
        for slot in idle:  # what they left from earlier fits
            slot.end("cancelled")
        if self._full_looks > 2:  # noqa: PLR2004 (once for what ended slots leave)
            self._leave()

    def _is_to_blame(self, most: DiskLoad, used: int) -> bool:
        """Whether there is room without what a fit wrote: earlier fits may have left much."""
        room = used - most.nbytes < _FULL_AT * self._limit
        return room and most.nbytes >= _LEAST_BLAMED * self._limit

    def _weigh(self, slot: Slot) -> DiskLoad:
        task = slot.task
        written = self._counts.update(slot.pid, task, _written_bytes(slot.pid))
        # Not all that a file holds was written: a system call may reserve it.
        own = used_bytes(self._folder / _FOLDERS / str(slot.pid))
        kept = self._kept.update(slot.pid, task, own)
        return DiskLoad(slot, task, max(written, kept))

    def _may_be_to_blame(self, load: DiskLoad) -> bool:
        if load.task in self._told:
            return False
        if load.nbytes >= _WORTH_TELLING * self._limit:
            return True
        disk = os.statvfs(self._folder)
        low = disk.f_bavail < _NODE_IS_LOW * disk.f_blocks
        return low and load.nbytes >= _LEAST_ON_LOW_NODE

    def _tidy(self, living: Collection[int]) -> None:
        """Remove what slots that have ended have left."""
        with contextlib.suppress(OSError):
            for path in (self._folder / _FOLDERS).iterdir():
                alive = path.name.isdecimal() and (
                    int(path.name) in living or Path(f"/proc/{path.name}").exists()
                )
                if not alive:
                    shutil.rmtree(path, ignore_errors=True)


def give_slots_folders(scratch: Path) -> None:
    """Let slots that are started from now on have a folder each for temporary files."""
    folder = scratch / _FOLDERS
    folder.mkdir(parents=True, exist_ok=True)
    os.environ[FOLDERS_VARIABLE] = str(folder)


def take_slots_folder() -> None:
    """Use a folder of this process's own for temporary files, where slots have such."""
    folders = os.environ.get(FOLDERS_VARIABLE)
    if folders is None:
        return
    import tempfile

    own = Path(folders) / str(os.getpid())
    with contextlib.suppress(OSError):  # a full disk: the shared folder is as full
        own.mkdir(exist_ok=True)
        os.environ["TMPDIR"] = tempfile.tempdir = str(own)


def empty(scratch: Path, *, but: Collection[str]) -> None:
    """Remove what an earlier container of the pod has left, some names excepted."""
    with contextlib.suppress(OSError):
        for path in scratch.iterdir():
            if path.name in but:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def used_bytes(folder: Path) -> int:
    """Return what a folder holds on the disk, as Kubernetes counts it."""
    seen: set[int] = set()
    total = 0
    for status in _files(folder):
        if status.st_nlink > 1:
            if status.st_ino in seen:
                continue
            seen.add(status.st_ino)
        total += status.st_blocks * _BLOCK
    return total


def in_words(nbytes: int, used: int, limit: int) -> str:
    """Say of a fit that it filled its worker's disk."""
    return (
        f"it filled the disk of its worker: it wrote {nbytes / GIB:.2f} GiB, which then held "
        f"{used / GIB:.2f} GiB of the {limit / GIB:.2f} GiB that its volume may (workers.cache "
        "of the spec); beyond that Kubernetes evicts the pod"
    )


def _files(folder: Path) -> Iterator[os.stat_result]:
    folders = [str(folder)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    with contextlib.suppress(OSError):  # it may be gone by now
                        status = entry.stat(follow_symlinks=False)
                        if stat.S_ISDIR(status.st_mode):
                            folders.append(entry.path)
                        elif stat.S_ISREG(status.st_mode):
                            yield status
        except OSError:
            continue


def _written_bytes(pid: int) -> int:
    """Return what a process, and those it started, have written to disks; 0 if unknown."""
    return sum(map(_written_by, (pid, *descendants_of(pid))))


def _written_by(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/io").read_text("ascii").splitlines()
    except OSError:
        return 0
    counts = dict(line.split(": ", 1) for line in lines if ": " in line)
    return int(counts.get("write_bytes", 0))
