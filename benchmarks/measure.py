"""Runs contenders in processes of their own and measures those from outside."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.case import Case, Entry, Fit

_PSS_EVERY_S = 0.05
_SETTLE_S = 2.0
_END_WAIT_S = 30


class Host:
    """A contender's process, warm and idle between rounds."""

    def __init__(self, case: Case, entry: Entry, *, quick: bool) -> None:
        ours, theirs = socket.socketpair()
        command = [
            *(sys.executable, "-m", "benchmarks.host", "--fd", str(theirs.fileno())),
            *("--case", case.name, "--contender", entry.contender),
            f"--inner-n-jobs={entry.inner_n_jobs}",
            *(["--quick"] if quick else []),
        ]
        with theirs:
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        self._connection = Connection(ours.detach())
        self._root = psutil.Process(self._process.pid)

    def begin(self, number: int) -> None:
        """Tell it to fit."""
        self._connection.send(number)

    def finish(self) -> Fit:
        """Wait for the fit's end."""
        return self._connection.recv()

    def wait_ready(self) -> None:
        """Wait until it has warmed up."""
        self._connection.recv()

    def freeze(self) -> None:
        """Stop all its processes: Dask's use a tenth of a core and more while idle."""
        for process in self._tree():
            process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let its processes go on."""
        for process in self._tree():
            process.send_signal(signal.SIGCONT)

    def cpu_s(self) -> float:
        """CPU time of all its processes so far, ended ones included."""
        total = 0.0
        for process in self._tree():
            with contextlib.suppress(psutil.Error):
                total += sum(process.cpu_times()[:4])
        return total

    def pss_bytes(self) -> int:
        """Memory of all its processes, a page shared by n of them counted 1/n each."""
        return sum(_pss_bytes(process.pid) for process in self._tree())

    def close(self) -> None:
        """End it."""
        self.thaw()
        with contextlib.suppress(OSError):
            self._connection.send(None)
        try:
            self._process.wait(_END_WAIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _tree(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.Error):
            return [self._root, *self._root.children(recursive=True)]
        return []


@dataclass(frozen=True, slots=True)
class Measurement:
    """One fit of one contender, seen from inside and outside.

    Attributes
    ----------
    number : int
        The round.
    fits : tuple of Fit
        One, or one for each plain process side by side.
    cpu_s : float
        CPU time of client, scheduler, workers and slots together.
    tcp_bytes : int
        Bytes over the loopback interface meanwhile.
    pss_bytes : int or None
        Most memory seen; taken in a round of its own, which does not count for time.
    """

    number: int
    fits: tuple[Fit, ...]
    cpu_s: float
    tcp_bytes: int
    pss_bytes: int | None = None

    @property
    def wall_s(self) -> float:
        """Time of ``fit``; the mean of plain processes side by side."""
        return sum(fit.wall_s for fit in self.fits) / len(self.fits)


@contextlib.contextmanager
def hosts(case: Case, entry: Entry, *, quick: bool) -> Iterator[list[Host]]:
    """Start a contender's process or processes, warm and frozen; end them later."""
    with contextlib.ExitStack() as stack:
        started = []
        for _ in range(entry.copies):
            started.append(Host(case, entry, quick=quick))
            stack.callback(started[-1].close)
        for host in started:
            host.wait_ready()
            host.freeze()
        yield started


def measure(group: list[Host], number: int, *, memory: bool = False) -> Measurement:
    """Let one contender fit once while all others are frozen."""
    with _thawed(group):
        cpu_s = sum(host.cpu_s() for host in group)
        tcp_bytes = _loopback_bytes()
        with _peak_pss(group) if memory else contextlib.nullcontext([None]) as peak:
            for host in group:
                host.begin(number)
            fits = tuple(host.finish() for host in group)
        return Measurement(
            number=number,
            fits=fits,
            cpu_s=sum(host.cpu_s() for host in group) - cpu_s,
            tcp_bytes=_loopback_bytes() - tcp_bytes,
            pss_bytes=peak[0],
        )


@contextlib.contextmanager
def _thawed(group: list[Host]) -> Iterator[None]:
    """Thaw a contender, and let what it has missed be caught up with."""
    for host in group:
        host.thaw()
    time.sleep(_SETTLE_S)
    try:
        yield
    finally:
        for host in group:
            host.freeze()


@contextlib.contextmanager
def _peak_pss(group: list[Host]) -> Iterator[list[int]]:
    """Sample the memory until the end; the peak is the list's only item."""
    peak, over = [0], threading.Event()

    def sample() -> None:
        while not over.wait(_PSS_EVERY_S):
            peak[0] = max(peak[0], sum(host.pss_bytes() for host in group))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def _pss_bytes(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def _loopback_bytes() -> int:
    counters = psutil.net_io_counters(pernic=True).get("lo")
    return counters.bytes_recv if counters else 0
