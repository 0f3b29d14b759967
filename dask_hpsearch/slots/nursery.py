"""The process from which a worker's slots are forked.

It imports what every fit needs once, then forks a slot for each connection it is handed:
a new slot is there in milliseconds and shares the imported modules' memory. It runs no
user code and no thread, so that forking is safe. It reports how each slot ended, and ends
with all its slots as soon as its worker is gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
from multiprocessing.connection import Connection

from dask_hpsearch.slots.disk_watch import take_slots_folder
from dask_hpsearch.slots.random_generators import Seedable, find_generators, reseed

PRELOADED = (
    "dask_hpsearch.evaluation",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "sklearn.naive_bayes",
    "sklearn.pipeline",
    "sklearn.preprocessing",
    "sklearn.svm",
)
_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>


def main(control_descriptor: int) -> None:
    """Serve fork requests on the socket until its other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the client's business
    control = socket.socket(fileno=control_descriptor)
    for module in PRELOADED:
        importlib.import_module(module)
    generators = find_generators()
    gc.freeze()  # else a collection in a slot looks at, and copies, all that is shared
    _say(control, {"ready": os.getpid()})
    wake, wake_writer = socket.socketpair()
    wake.setblocking(False)  # noqa: FBT003
    wake_writer.setblocking(False)  # noqa: FBT003
    signal.set_wakeup_fd(wake_writer.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children: set[int] = set()
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        selector.register(wake, selectors.EVENT_READ)
        alive = True
        while alive:
            ready = {key.fileobj for key, _ in selector.select()}
            if wake in ready:
                wake.recv(4096)
                _report_ended(control, children)
            if control in ready:
                alive = _fork_slot(
                    control, children, (wake, wake_writer, selector), generators
                )
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    os._exit(0)


def _fork_slot(
    control: socket.socket,
    children: set[int],
    opened: tuple[socket.socket, socket.socket, selectors.BaseSelector],
    generators: list[Seedable],
) -> bool:
    """Fork a slot for the descriptor received; False when the worker is gone."""
    try:
        request, descriptors, _, _ = socket.recv_fds(control, 64, 1)
    except OSError:
        return False
    if not request or not descriptors:
        return False
    nursery = os.getpid()
    pid = os.fork()
    if pid == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for one in (control, *opened):
            one.close()
        _run_slot(descriptors[0], nursery, generators)
    os.close(descriptors[0])
    children.add(pid)
    _say(control, {"started": pid})
    return True


def _run_slot(descriptor: int, nursery: int, generators: list[Seedable]) -> None:
    """Be a slot; never return."""
    status = 1
    try:
        _die_with_parent(nursery)
        reseed(generators)
        from dask_hpsearch import evaluation

        take_slots_folder()
        evaluation.serve(Connection(descriptor))
        status = 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _die_with_parent(parent: int) -> None:
    """Ask Linux to end this process with the nursery; elsewhere do without."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def _report_ended(control: socket.socket, children: set[int]) -> None:
    """Tell the worker the exit code of every slot that has ended."""
    for pid in list(children):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            children.discard(pid)
            _say(control, {"ended": pid, "code": os.waitstatus_to_exitcode(status)})


def _say(control: socket.socket, message: dict[str, int]) -> None:
    with contextlib.suppress(OSError):
        control.sendall(json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
