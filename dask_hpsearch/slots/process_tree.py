"""Process trees: their members, their memory, their end.

On Linux a process can adopt the orphans of its descendants (a "subreaper"), so the tree
below a slot is complete whatever a fit does. On other systems the session is used instead:
a process that starts its own session escapes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>
_CHILD_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER
_ADOPTS = sys.platform == "linux"
_LISTS_CHILDREN = Path("/proc/thread-self/children").exists()  # some kernels lack it
# What the resource trackers of multiprocessing and loky have in their command.
_TRACKER = b"resource_tracker import main"
_TRACKER_GRACE_S = 1.0
_PASS_S = 0.02
_KIB = 1024


def adopt_descendants() -> None:
    """Become the parent of orphaned descendants (Linux)."""
    if _ADOPTS:
        ctypes.CDLL(None).prctl(_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """End when the parent ends (Linux); end at once if it has ended already."""
    if _ADOPTS:
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def children_of(pid: int) -> list[int]:
    """Return a process's children; none if it has ended."""
    if _LISTS_CHILDREN:
        return list(_children_by_thread(pid))
    with contextlib.suppress(psutil.Error):
        return [child.pid for child in psutil.Process(pid).children()]
    return []


def _children_by_thread(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):  # it has ended
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 (often called)
            with contextlib.suppress(OSError):
                path = f"/proc/{pid}/task/{thread}/children"
                with open(path, "rb") as file:  # noqa: PTH123
                    yield from map(int, file.read().split())


def descendants_of(pid: int) -> list[int]:
    """Return a process's children, their children and so on."""
    found = children_of(pid)
    for child in found:  # grows meanwhile
        found += children_of(child)
    return found


def has_left_children() -> bool:
    """Whether this process has children, apart from resource trackers.

    Costs a microsecond or two if it has none. Children that have ended count until they
    are waited for. Trackers end by themselves when their process does.
    """
    if not hasattr(os, "waitid"):  # macOS before Python 3.13
        return False
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return any(not is_resource_tracker(pid) for pid in children_of(os.getpid()))


def is_resource_tracker(pid: int) -> bool:
    """Whether a process is a resource tracker, which removes leaked files and memory.

    It does so when the last process that uses it has ended; then it ends.
    """
    try:
        if _ADOPTS:
            return _TRACKER in Path(f"/proc/{pid}/cmdline").read_bytes()
        command = " ".join(psutil.Process(pid).cmdline())
        return _TRACKER in command.encode()
    except (OSError, psutil.Error):
        return False


class Strays:
    """Ends processes; resource trackers get time to remove files first."""

    def __init__(self) -> None:
        self._spared: dict[int, float] = {}

    def end(self, pids: Iterable[int]) -> bool:
        """End processes; return whether there were any: others may have come since."""
        now = time.monotonic()
        present = list(pids)
        self._spared = {
            pid: self._spared[pid] for pid in present if pid in self._spared
        }
        for pid in present:
            if pid not in self._spared and is_resource_tracker(pid):
                self._spared[pid] = now + _TRACKER_GRACE_S
            if now >= self._spared.get(pid, now):
                kill(pid)
        return bool(present)


def kill(pid: int) -> None:
    """End a process now; it may have ended."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def strays_of(
    parent: int, slots: Iterable[int], ended_slots: Iterable[int]
) -> list[int]:
    """Return the processes that ended slots have left.

    Parameters
    ----------
    parent : int
        The process from which the slots were forked.
    slots : iterable of int
        The living slots.
    ended_slots : iterable of int
        The ended slots; the id of a slot's session is the slot's.
    """
    if _ADOPTS:
        return [*set(children_of(parent)).difference(slots)]
    return members_of_sessions(ended_slots)


def members_of_sessions(sessions: Iterable[int]) -> list[int]:
    """Return the processes of some sessions."""
    wanted = set(sessions)
    found = []
    for pid in psutil.pids() if wanted else ():
        with contextlib.suppress(OSError):
            if os.getsid(pid) in wanted:
                found.append(pid)
    return found


def end_marked(name: str, value: str) -> None:
    """End all processes that have a variable with a value in their environment.

    A last resort if the process that would have adopted them is gone. It checks every
    process of the machine until it finds none.
    """
    strays = Strays()
    while strays.end(_marked(name, value)):
        time.sleep(_PASS_S)


def _marked(name: str, value: str) -> list[int]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(name) == value:
                found.append(process.pid)
    return found


def private_bytes(pid: int, *, enough: int | None) -> int:
    """Return the memory of a process and its descendants without mapped data.

    It is 0 if unknown. Memory that forked processes share is counted for each of them,
    unless the sum is more than ``enough``: an exact count takes much longer.

    Parameters
    ----------
    pid : int
    enough : int, optional
        Bytes above which shared memory is counted once.
    """
    if not _ADOPTS:
        return _resident_bytes(pid)
    descendants = descendants_of(pid)
    used = _private_bytes(pid) + sum(map(_private_bytes, descendants))
    if not descendants or enough is None or used <= enough:
        return used
    return sum(map(_proportional_bytes, (pid, *descendants)))


def _private_bytes(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:  # noqa: PTH123
            pages = file.read().split()
    except OSError:
        return 0
    return (int(pages[1]) - int(pages[2])) * os.sysconf("SC_PAGE_SIZE")


def _proportional_bytes(pid: int) -> int:
    """Return anonymous memory, each page divided among the processes that share it."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii")
    except OSError:  # it has ended, or an old kernel
        return _private_bytes(pid)
    for line in text.splitlines():
        if line.startswith("Pss_Anon:"):
            return int(line.split()[1]) * _KIB
    return _private_bytes(pid)


def _resident_bytes(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0
