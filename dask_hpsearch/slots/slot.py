"""A worker's handles on its forkserver and its slots."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
import uuid
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from dask_hpsearch.messages import THREADS_VARIABLE
from dask_hpsearch.slots.process_tree import end_marked, kill, private_bytes

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
# glibc returns freed memory to the system eagerly, and Dask's trim threshold makes it do so
# even more: thousands of page faults a fit. A slot keeps freed memory for the next fit.
_ALLOCATOR = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TOP_PAD_": str(64 * 2**20),
    "MALLOC_MMAP_THRESHOLD_": str(256 * 2**20),
}
# Waiting OpenMP threads release their cores: if there are more threads than cores, spinning
# ones would keep the others from running.
_WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}
_EXIT_CODE_WAIT_S = 5.0
# In the environment of a forkserver and all its descendants.
_MARK = "DASK_HPSEARCH_FORKSERVER"


class Forkserver:
    """The process that forks slots, started on first use.

    Parameters
    ----------
    sys_path : list of str
        The worker's ``sys.path``, where the slots look for modules.
    """

    def __init__(self, sys_path: list[str]) -> None:
        self._control, theirs = socket.socketpair()
        self._started: list[int] = []
        self._slots: dict[int, Slot] = {}
        self._ended: dict[int, int] = {}
        self._mark = uuid.uuid4().hex
        self._changed = threading.Condition()
        self._forking = threading.Lock()
        self._ready = False
        self.lost = False
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 (our own module)
                [
                    sys.executable,
                    "-m",
                    "dask_hpsearch.slots.forkserver",
                    str(theirs.fileno()),
                    str(os.getpid()),
                ],
                env=_environment(sys_path) | {_MARK: self._mark},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        threading.Thread(
            target=self._listen, name="dask-hpsearch-forkserver", daemon=True
        ).start()

    def fork(self, scheduler: str = "") -> Slot:
        """Start a slot.

        Parameters
        ----------
        scheduler : str
            Id of the worker's scheduler; the slot does not become its client.

        Raises
        ------
        ForkserverLostError
            If the forkserver has ended.
        """
        ours, theirs = socket.socketpair()
        with self._forking, theirs, self._changed:
            try:
                request = b"fork " + scheduler.encode()
                socket.send_fds(self._control, [request], [theirs.fileno()])
            except OSError as error:
                ours.close()
                raise ForkserverLostError from error
            self._changed.wait_for(lambda: self._started or self.lost)
            if not self._started:
                ours.close()
                raise ForkserverLostError
            slot = Slot(self._started.pop(), Connection(ours.detach()), self)
            self._slots[slot.pid] = slot
            if slot.pid in self._ended or self.lost:  # already
                slot.hang_up()
            return slot

    def wait_until_ready(self, timeout_s: float) -> None:
        """Wait until its imports are done, and forking takes milliseconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self.lost, timeout_s)

    def exit_code(self, pid: int) -> int | None:
        """Wait for a slot's exit code; None if it has not ended, or the forkserver is lost."""
        with self._changed:
            self._changed.wait_for(
                lambda: pid in self._ended or self.lost, _EXIT_CODE_WAIT_S
            )
            return self._ended.get(pid)

    def forget(self, pid: int) -> None:
        """Drop a slot's exit code, which is not needed."""
        with self._changed:
            self._slots.pop(pid, None)
            self._ended.pop(pid, None)

    def close(self) -> None:
        """End the forkserver and all its slots."""
        if not self._ready:  # it has no slots yet, and is still importing
            self._process.kill()
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=_EXIT_CODE_WAIT_S)
            return
        self._process.kill()
        self._process.wait()

    def _listen(self) -> None:
        """Note what the forkserver reports, until it ends."""
        with self._control.makefile("rb") as lines, contextlib.suppress(OSError):
            for line in lines:
                self._note(json.loads(line))
        with self._changed:
            self.lost = True
            self._changed.notify_all()
            for slot in self._slots.values():
                slot.hang_up()
        self._control.close()
        if self._process.wait():  # else it has ended its slots itself
            end_marked(_MARK, self._mark)

    def _note(self, report: dict[str, int]) -> None:
        with self._changed:
            if "ready" in report:
                self._ready = True
            elif "started" in report:
                self._ended.pop(report["started"], None)  # of an earlier process
                self._started.append(report["started"])
            else:
                self._note_end(report["ended"], report["code"])
            self._changed.notify_all()

    def _note_end(self, pid: int, code: int) -> None:
        slot = self._slots.get(pid)
        if slot is not None:
            slot.hang_up()
        if slot is not None or pid in self._started:
            self._ended[pid] = code


class ForkserverLostError(Exception):
    """The forkserver has ended, and its slots with it; no fit is to blame."""


class Slot:
    """One process that runs tasks.

    Attributes
    ----------
    pid : int
        Its process.
    peak_bytes : int
        Most private memory seen during the current task.
    task : (str, int)
        Topic and number of its current task.
    generation : int
        How often user modules had changed when it began.
    share_bytes : int or None
        Private memory that its current tasks may use; None: no limit.
    ended_for : str or None
        Why the worker ended it: "memory", "disk", "timeout", "cancelled", or None.
    cause : str
        The reason in words, if the worker has more details.
    leaves : bool
        Whether the slot has announced that it ends.
    """

    def __init__(
        self, pid: int, connection: Connection, forkserver: Forkserver
    ) -> None:
        self.pid = pid
        self.peak_bytes = 0
        self.task = ("", -1)
        self.generation = 0
        self.share_bytes: int | None = None
        self.ended_for: str | None = None
        self.cause = ""
        self.leaves = False
        self._connection = connection
        self._arrived = select.poll()
        self._arrived.register(connection, select.POLLIN)
        self._forkserver = forkserver
        self._has_ended = False
        self._closing = threading.Lock()

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
            arrived = self._arrived.poll(1000 * timeout_s)
        except OSError as error:
            raise EOFError from error
        if arrived:
            return self._next_message()
        if self._has_ended:
            raise EOFError
        raise TimeoutError

    def _next_message(self) -> bytes:
        try:
            return self._connection.recv_bytes()
        except OSError as error:
            raise EOFError from error

    def hang_up(self) -> None:
        """Let `receive` and `send` end, after all sent messages are read: the process ended.

        They do not notice it while a process that a fit has started holds the other end
        of the connection.
        """
        with self._closing:
            self._has_ended = True
            # Only Linux keeps messages that have arrived; elsewhere `receive` polls.
            if sys.platform == "linux" and not self._connection.closed:
                with (
                    contextlib.suppress(OSError),
                    socket.socket(fileno=os.dup(self._connection.fileno())) as ours,
                ):
                    ours.shutdown(socket.SHUT_RDWR)

    def is_dead(self) -> bool:
        """Whether the process ended while idle."""
        try:  # an idle slot has nothing to say
            return self._has_ended or self._connection.poll(0)
        except OSError:
            return True

    def private_bytes(self, *, enough: int | None) -> int:
        """Return the memory of it and its descendants, without mapped data.

        Parameters
        ----------
        enough : int, optional
            Bytes above which it is measured exactly; see `process_tree.private_bytes`.
        """
        return private_bytes(self.pid, enough=enough)

    def end(self, reason: str) -> None:
        """Kill the process, and its task with it."""
        self.ended_for = self.ended_for or reason
        if not self._has_ended:
            kill(self.pid)

    def exit_code(self) -> int | None:
        """Return the exit code; None if the process was lost with its forkserver.

        It is None, too, if the process closed its connection but does not end.
        """
        return self._forkserver.exit_code(self.pid)

    @property
    def is_lost(self) -> bool:
        """Whether its forkserver has ended."""
        return self._forkserver.lost

    def close(self) -> None:
        """Let an idle process end."""
        self._forkserver.forget(self.pid)
        with self._closing:
            self._connection.close()


def _environment(sys_path: list[str]) -> dict[str, str]:
    """Return the environment of slots: few threads, an allocator that keeps memory.

    Thread settings in the worker's environment are the user's, and are kept.
    """
    threads = os.environ.get(THREADS_VARIABLE, "1")
    environment = dict.fromkeys(_THREAD_VARIABLES, threads) | _WAITING
    environment |= os.environ
    environment.pop("MALLOC_TRIM_THRESHOLD_", None)
    environment |= _ALLOCATOR
    environment["PYTHONPATH"] = python_path(sys_path)
    return environment


def python_path(sys_path: list[str]) -> str:
    """Return a ``sys.path`` as PYTHONPATH, for a process with the same modules."""
    return os.pathsep.join(path or str(Path.cwd()) for path in sys_path)
