"""The process of a driver: how the journal identifies it, and whether it still runs."""

from __future__ import annotations

import contextlib
import socket

import psutil

from dask_hpsearch.journal.events import DriverProcess


def describe_process(
    driver: str, pid: int, *, own: bool, heartbeat_timeout_s: float | None = None
) -> DriverProcess:
    """Describe a driver's process on this machine for the journal.

    Parameters
    ----------
    driver : str
        Name of the driver, unique.
    pid : int
        0 for a driver in a pod.
    own : bool
        Whether the process ends with the driver.
    heartbeat_timeout_s : float, optional
        Seconds without an event after which a driver in a pod counts as lost.
    """
    return DriverProcess(
        driver=driver,
        host=socket.gethostname(),
        pid=pid,
        started=_start_time(pid),
        own=own,
        heartbeat_timeout_s=heartbeat_timeout_s,
    )


def is_on_this_machine(process: DriverProcess) -> bool:
    """Whether the process can be looked for here."""
    here = process.host == socket.gethostname()
    return here and process.heartbeat_timeout_s is None


def is_running(process: DriverProcess) -> bool:
    """Whether a process of this machine still runs, and is not another with its pid."""
    with contextlib.suppress(psutil.Error):
        found = psutil.Process(process.pid)
        zombie = found.status() == psutil.STATUS_ZOMBIE
        return not zombie and abs(found.create_time() - process.started) < 1.0
    return False


def _start_time(pid: int) -> float:
    try:
        return round(float(psutil.Process(pid).create_time()), 1)
    except psutil.Error:
        return 0.0
