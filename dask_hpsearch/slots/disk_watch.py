"""Watches how much fits write to a worker's disk, and ends the fit that fills it.

Kubernetes evicts a pod that writes more than its volume may hold, with all its fits and the
volume: no trace of the guilty fit would be left, and Dask would run it again on one worker
after the other. So the worker watches its disk itself, and acts before Kubernetes does.
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

#: Environment variable: the folder in which each slot has a folder for temporary files.
FOLDERS_VARIABLE = "DASK_HPSEARCH_SLOT_FOLDERS"
_FOLDERS = "slots"
_FULL_AT = 0.95  # of the limit; Kubernetes looks only a few times a minute
_WORTH_REPORTING = 0.25  # of the limit
_LEAST_BLAMED = 0.1  # of the limit: a fit that wrote less has not filled it
_NODE_IS_LOW = 0.15  # Kubernetes begins to end pods at a tenth
_LEAST_ON_LOW_NODE = 64 * 2**20
_BLOCK = 512  # bytes, of st_blocks
GIB = 2**30

Task = tuple[str, int]


@dataclass(slots=True)
class _Writes:
    """Bytes that a slot's process had written when its task began, and at the last look."""

    task: Task
    base: int = 0
    last: int = 0


class WriteCounts:
    """Counts how much each slot has written for its current task."""

    def __init__(self) -> None:
        self._slots: dict[int, _Writes] = {}

    def update(self, pid: int, task: Task, total: int) -> int:
        """Take the total that a process has written; return how much for its task."""
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
    """The bytes that a slot has written for its current task.

    Attributes
    ----------
    slot : Slot
    task : (str, int)
        The task at the time of the look.
    nbytes : int
    """

    slot: Slot
    task: Task
    nbytes: int


class DiskWatch:
    """Ends the fit that fills the folder that a pod may write to.

    Parameters
    ----------
    folder : Path
        The only folder that the pod can write to.
    limit : int
        Bytes that the folder may hold.
    leave : callable
        Called if the folder stays full though no fit is to blame: the worker must leave.
    """

    def __init__(
        self, folder: Path, limit: int, *, leave: Callable[[], None] = lambda: None
    ) -> None:
        self._folder = folder
        self._limit = limit
        self._leave = leave
        self._counts = WriteCounts()
        self._kept = WriteCounts()
        self._reported: set[Task] = set()
        self._full_looks = 0

    def look(
        self,
        busy: Sequence[Slot],
        idle: Sequence[Slot],
        report: Callable[[DiskLoad], None],
    ) -> None:
        """Look once.

        Parameters
        ----------
        busy, idle : sequence of Slot
        report : callable
            Called once for a fit that has written so much that it may be to blame.
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
            self._reported.add(most.task)
            report(most)
        if used < _FULL_AT * self._limit:
            self._full_looks = 0
            return
        self._full_looks += 1
        self._make_room(most, idle, used)

    def _make_room(
        self, most: DiskLoad | None, idle: Sequence[Slot], used: int
    ) -> None:
        """End the fit that filled the folder; its slot's files go at the next look."""
        if most is not None and self._is_to_blame(most, used):
            if most.task == most.slot.task:
                most.slot.cause = in_words(most.nbytes, used, self._limit)
                most.slot.end("disk")
            return
        for slot in idle:  # they may have files of earlier fits
            slot.end("cancelled")
        if self._full_looks > 2:  # noqa: PLR2004 (one look removes the files of ended slots)
            self._leave()

    def _is_to_blame(self, most: DiskLoad, used: int) -> bool:
        """Whether there would be room without the fit's files, and it wrote enough."""
        room = used - most.nbytes < _FULL_AT * self._limit
        return room and most.nbytes >= _LEAST_BLAMED * self._limit

    def _weigh(self, slot: Slot) -> DiskLoad:
        task = slot.task
        written = self._counts.update(slot.pid, task, _written_bytes(slot.pid))
        # A file may hold more than was written: a system call can reserve space.
        own = used_bytes(self._folder / _FOLDERS / str(slot.pid))
        kept = self._kept.update(slot.pid, task, own)
        return DiskLoad(slot, task, max(written, kept))

    def _may_be_to_blame(self, load: DiskLoad) -> bool:
        if load.task in self._reported:
            return False
        if load.nbytes >= _WORTH_REPORTING * self._limit:
            return True
        disk = os.statvfs(self._folder)
        low = disk.f_bavail < _NODE_IS_LOW * disk.f_blocks
        return low and load.nbytes >= _LEAST_ON_LOW_NODE

    def _tidy(self, living: Collection[int]) -> None:
        """Remove the files of ended slots."""
        with contextlib.suppress(OSError):
            for path in (self._folder / _FOLDERS).iterdir():
                alive = path.name.isdecimal() and (
                    int(path.name) in living or Path(f"/proc/{path.name}").exists()
                )
                if not alive:
                    shutil.rmtree(path, ignore_errors=True)


def give_slots_folders(scratch: Path) -> None:
    """Give each slot that starts from now on its own folder for temporary files."""
    folder = scratch / _FOLDERS
    folder.mkdir(parents=True, exist_ok=True)
    os.environ[FOLDERS_VARIABLE] = str(folder)


def take_slots_folder() -> None:
    """Use this process's own folder for temporary files, if slots have such folders."""
    folders = os.environ.get(FOLDERS_VARIABLE)
    if folders is None:
        return
    import tempfile

    own = Path(folders) / str(os.getpid())
    with contextlib.suppress(OSError):  # a full disk: the shared folder is as full
        own.mkdir(exist_ok=True)
        os.environ["TMPDIR"] = tempfile.tempdir = str(own)


def empty(scratch: Path, *, but: Collection[str]) -> None:
    """Remove the files of an earlier container of the pod, except some names."""
    with contextlib.suppress(OSError):
        for path in scratch.iterdir():
            if path.name in but:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def used_bytes(folder: Path) -> int:
    """Return how much disk a folder uses, as Kubernetes counts it."""
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
    """Return the message of a fit that filled its worker's disk."""
    return (
        f"it filled the disk of its worker: it wrote {nbytes / GIB:.2f} GiB, and the disk "
        f"then held {used / GIB:.2f} GiB of at most {limit / GIB:.2f} GiB (workers.cache of "
        "the cluster's spec); beyond that Kubernetes evicts the pod"
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
