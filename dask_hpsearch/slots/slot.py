"""A worker's handles on its nursery and its slots."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
# glibc gives freed memory back to the system eagerly, and Dask sets a trim threshold that
# makes it do so even more: thousands of page faults a fit. A slot keeps what it will need
# again for the next fit.
_ALLOCATOR = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TOP_PAD_": str(64 * 2**20),
    "MALLOC_MMAP_THRESHOLD_": str(256 * 2**20),
}
_EXIT_CODE_WAIT_S = 5.0


class Nursery:
    """The process that forks slots, started on first use.

    Parameters
    ----------
    sys_path : list of str
        Where the slots look for modules: the worker's own ``sys.path``.
    """

    def __init__(self, sys_path: list[str]) -> None:
        self._control, theirs = socket.socketpair()
        self._started: list[int] = []
        self._ended: dict[int, int] = {}
        self._changed = threading.Condition()
        self._forking = threading.Lock()
        self._ready = False
        self.lost = False
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 (our own module)
                [
                    sys.executable,
                    "-m",
                    "dask_hpsearch.slots.nursery",
                    str(theirs.fileno()),
                ],
                env=_environment(sys_path),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        threading.Thread(
            target=self._listen, name="dask-hpsearch-nursery", daemon=True
        ).start()

    def fork(self) -> Slot:
        """Start a slot.

        Raises
        ------
        NurseryLostError
            If the nursery has ended.
        """
        ours, theirs = socket.socketpair()
        with self._forking, theirs, self._changed:
            try:
                socket.send_fds(self._control, [b"fork"], [theirs.fileno()])
            except OSError as error:
                ours.close()
                raise NurseryLostError from error
            self._changed.wait_for(lambda: self._started or self.lost)
            if not self._started:
                ours.close()
                raise NurseryLostError
            return Slot(self._started.pop(), Connection(ours.detach()), self)

    def wait_until_ready(self, timeout_s: float) -> None:
        """Wait until its imports are done, and forking takes milliseconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self.lost, timeout_s)

    def exit_code(self, pid: int) -> int | None:
        """Wait for a slot's exit code; None if the nursery itself is lost."""
        with self._changed:
            self._changed.wait_for(
                lambda: pid in self._ended or self.lost, _EXIT_CODE_WAIT_S
            )
            return self._ended.pop(pid, None)

    def close(self) -> None:
        """End the nursery and all its slots."""
        if not self._ready:  # it has no slots, and would not listen before its imports
            self._process.kill()
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=_EXIT_CODE_WAIT_S)
            return
        self._process.kill()
        self._process.wait()

    def _listen(self) -> None:
        """Note what the nursery reports, until it ends."""
        with self._control.makefile("rb") as lines, contextlib.suppress(OSError):
            for line in lines:
                self._note(json.loads(line))
        with self._changed:
            self.lost = True
            self._changed.notify_all()
        self._control.close()
        self._process.wait()

    def _note(self, report: dict[str, int]) -> None:
        with self._changed:
            if "ready" in report:
                self._ready = True
            elif "started" in report:
                self._started.append(report["started"])
            else:
                self._ended[report["ended"]] = report["code"]
            self._changed.notify_all()


class NurseryLostError(Exception):
    """The nursery has ended: its slots are gone through no fault of their fits."""


class Slot:
    """One process that runs tasks.

    Attributes
    ----------
    pid : int
        Its process.
    peak_bytes : int
        Most private memory seen during the current task.
    task : (str, int)
        Topic and number of what it runs.
    generation : int
        How often the user's modules had changed when it began.
    ended_for : str or None
        Why the worker ended it: "memory", "disk", "timeout", "cancelled", or None.
    cause : str
        That in words, where the worker has more to say of it.
    """

    def __init__(self, pid: int, connection: Connection, nursery: Nursery) -> None:
        self.pid = pid
        self.peak_bytes = 0
        self.task = ("", -1)
        self.generation = 0
        self.ended_for: str | None = None
        self.cause = ""
        self._connection = connection
        self._arrived = select.poll()
        self._arrived.register(connection, select.POLLIN)
        self._nursery = nursery

    def send(self, message: Any) -> None:
        """Hand over tasks."""
        with contextlib.suppress(OSError):  # a dead slot is noticed by `receive`
            self._connection.send(message)

    def receive(self, timeout_s: float) -> bytes:
        """Return the next answer.

        Raises
        ------
        TimeoutError
            If there is none within ``timeout_s``.
        EOFError
            If the process has ended.
        """
        try:
            if not self._arrived.poll(1000 * timeout_s):
                raise TimeoutError
            return self._connection.recv_bytes()
        except (OSError, EOFError) as error:
            if isinstance(error, TimeoutError):
                raise
            raise EOFError from error

    def is_dead(self) -> bool:
        """Whether the process ended while idle."""
        try:
            return self._connection.poll(0)  # an idle slot has nothing to say
        except OSError:
            return True

    def private_bytes(self) -> int:
        """Memory of its own that it uses now, mapped data apart (0 if unknown)."""
        try:
            pages = Path(f"/proc/{self.pid}/statm").read_text("ascii").split()
        except OSError:
            return _resident_bytes(self.pid)
        return (int(pages[1]) - int(pages[2])) * os.sysconf("SC_PAGE_SIZE")

    def end(self, reason: str) -> None:
        """End the process now; what it runs ends with it."""
        self.ended_for = self.ended_for or reason
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def exit_code(self) -> int | None:
        """Exit code of the ended process; None if it was lost with its nursery."""
        return self._nursery.exit_code(self.pid)

    def close(self) -> None:
        """Let an idle process end."""
        self._connection.close()


def _resident_bytes(pid: int) -> int:
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def _environment(sys_path: list[str]) -> dict[str, str]:
    """Environment of slots: one thread each, an allocator that keeps memory."""
    environment = dict(os.environ)
    environment.pop("MALLOC_TRIM_THRESHOLD_", None)
    environment |= _ALLOCATOR
    environment |= dict.fromkeys(_THREAD_VARIABLES, "1")
    environment["PYTHONPATH"] = python_path(sys_path)
    return environment


def python_path(sys_path: list[str]) -> str:
    """Write a ``sys.path`` as PYTHONPATH, for a process that is to find the same."""
    return os.pathsep.join(path or str(Path.cwd()) for path in sys_path)
