"""The process from which a worker's slots are forked.

It imports the modules that every fit needs, then forks a slot for each connection that it
receives: a new slot starts in milliseconds and shares the memory of these modules. It runs
no user code and no thread, so forking is safe. It reports how each slot ended, ends the
processes that a slot has left behind, and ends with all its descendants when its worker is
gone.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import time
from multiprocessing.connection import Connection
from typing import NoReturn

from dask_hpsearch.slots.disk_watch import take_slots_folder
from dask_hpsearch.slots.own_cluster import refuse_clients_of
from dask_hpsearch.slots.process_tree import (
    Strays,
    adopt_descendants,
    die_with_parent,
    has_left_children,
    strays_of,
)
from dask_hpsearch.slots.random_generators import Seedable, find_generators, reseed

PRELOADED = (
    "dask_hpsearch.slots.evaluate",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "sklearn.naive_bayes",
    "sklearn.pipeline",
    "sklearn.preprocessing",
    "sklearn.svm",
)
ARRAY_CHECKS = "dask_hpsearch.sklearn_adapter.array_checks"
_LOOK_AGAIN_S = 0.05
_END_S = 3.0
_ORDERLY_EXIT_S = 1.0


def main(control_descriptor: int, worker: int) -> None:
    """Serve fork requests on the socket until its other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the client handles Ctrl-C
    adopt_descendants()
    gc.disable()  # it would look at all modules again and again: a tenth of the time
    for module in PRELOADED:
        importlib.import_module(module)
    importlib.import_module(ARRAY_CHECKS).answer_for_arrays()
    gc.enable()
    generators = find_generators()
    gc.freeze()  # else garbage collection in a slot would copy shared memory
    control = socket.socket(fileno=control_descriptor)
    _Forkserver(control, worker, generators).serve()


class _Forkserver:
    """Forks slots, and ends the processes that they leave behind.

    Parameters
    ----------
    control : socket
        Receives requests, sends reports.
    worker : int
        The process at the other end.
    generators : list
        Random number generators that every slot seeds again.
    """

    def __init__(
        self, control: socket.socket, worker: int, generators: list[Seedable]
    ) -> None:
        self._control = control
        self._generators = generators
        self._slots: set[int] = set()
        self._ended: set[int] = set()  # slots that may have left processes
        self._strays = Strays()
        self._selector = selectors.DefaultSelector()
        self._wake, self._wake_writer = socket.socketpair()
        self._worker_end = _process_descriptor(worker)

    def serve(self) -> None:
        """Fork slots until the worker is gone; never return."""
        self._wake.setblocking(False)  # noqa: FBT003
        self._wake_writer.setblocking(False)  # noqa: FBT003
        signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for one in (self._control, self._wake, self._worker_end):
            if one is not None:
                self._selector.register(one, selectors.EVENT_READ)
        self._report({"ready": os.getpid()})
        alive = True
        while alive:
            ready = self._wait(_LOOK_AGAIN_S if self._ended else None)
            self._reap()
            self._end_strays()
            # A child of the worker may hold the socket open after the worker's end.
            alive = self._worker_end is None or self._worker_end not in ready
            if alive and self._control in ready:
                alive = self._fork()
        self._end_all()

    def _wait(self, seconds: float | None) -> set[object]:
        """Wait for input or the end of a process; return the inputs that are ready."""
        ready: set[object] = {key.fileobj for key, _ in self._selector.select(seconds)}
        if self._wake in ready:
            self._wake.recv(4096)
        return ready

    def _reap(self) -> None:
        """Note ended processes; report the exit codes of slots to the worker."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                if pid in self._slots:
                    self._slots.discard(pid)
                    self._ended.add(pid)
                    code = os.waitstatus_to_exitcode(status)
                    self._report({"ended": pid, "code": code})

    def _end_strays(self) -> None:
        """End the processes that ended slots have left; their children come next."""
        if self._ended and not self._strays.end(
            strays_of(os.getpid(), self._slots, self._ended)
        ):
            self._ended.clear()

    def _end_all(self) -> None:
        """End all slots and their descendants, then this process."""
        for one in (self._control, self._worker_end):
            if one is not None:
                self._selector.unregister(one)
        self._ended |= self._slots
        self._slots.clear()
        until = time.monotonic() + _END_S
        while self._ended and time.monotonic() < until:
            self._end_strays()
            self._wait(_LOOK_AGAIN_S)
            self._reap()
        os._exit(0)

    def _fork(self) -> bool:
        """Fork a slot for the descriptor received; False when the worker is gone."""
        try:
            request, descriptors, _, _ = socket.recv_fds(self._control, 1024, 1)
        except OSError:
            return False
        if not request or not descriptors:
            return False
        forkserver = os.getpid()
        pid = os.fork()
        if pid == 0:
            scheduler = request.removeprefix(b"fork ").decode()
            self._become_slot(descriptors[0], forkserver, scheduler)
        os.close(descriptors[0])
        self._slots.add(pid)
        self._report({"started": pid})
        return True

    def _become_slot(
        self, descriptor: int, forkserver: int, scheduler: str
    ) -> NoReturn:
        """Run the slot in this forked process; never return."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._selector.close()
        for one in (self._control, self._wake, self._wake_writer):
            one.close()
        if self._worker_end is not None:
            os.close(self._worker_end)
        status, left_children = 1, False
        try:
            os.setsid()
            adopt_descendants()
            die_with_parent(forkserver)
            reseed(self._generators)
            refuse_clients_of(scheduler)
            os.set_inheritable(descriptor, False)  # noqa: FBT003
            from dask_hpsearch.slots import evaluate

            take_slots_folder()
            left_children = evaluate.serve(Connection(descriptor), has_left_children)
            status = 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            if not left_children:
                os._exit(status)
        _exit_in_order()

    def _report(self, message: dict[str, int]) -> None:
        with contextlib.suppress(OSError):
            self._control.sendall(json.dumps(message).encode() + b"\n")


def _process_descriptor(pid: int) -> int | None:
    """Open a descriptor that is readable once a process has ended; None if unsupported."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def _exit_in_order() -> NoReturn:
    """Exit as an interpreter does: process pools are closed, their files removed.

    A timer ends the process if that takes long; the forkserver ends the rest.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, _ORDERLY_EXIT_S)
    sys.exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
