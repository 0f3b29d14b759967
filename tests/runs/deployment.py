"""A Dask scheduler and a worker as processes of their own, that can be killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from distributed import Client

from tests.processes import ROOT, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SLOTS = 2
_TIMEOUT_S = 10


def _start(folder: Path, name: str, *arguments: str) -> subprocess.Popen[bytes]:
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "dask", name, *arguments, "--no-dashboard"],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


class Deployment:
    """A scheduler and a worker with two slots.

    Attributes
    ----------
    scheduler : subprocess.Popen
    client : Client
    """

    def __init__(self, folder: Path) -> None:
        file = folder / "scheduler.json"
        self.scheduler = _start(
            folder, "scheduler", "--port=0", f"--scheduler-file={file}"
        )
        wait_until(lambda: file.exists() and file.read_text().endswith("}"))
        self.address = json.loads(file.read_text())["address"]
        self._worker = _start(folder, "worker", self.address, f"--nthreads={SLOTS}")
        # Closing it while it looks for a scheduler that is gone takes as long as this.
        self.client = Client(self.address, set_as_default=False, timeout=_TIMEOUT_S)
        self.client.wait_for_workers(1)

    def worker_pid(self) -> int:
        """Return the worker's process, which its nanny starts again."""
        (pid,) = self.client.run(os.getpid).values()
        return int(pid)

    def close(self) -> None:
        """End what is left."""
        self.client.close()
        for process in (self._worker, self.scheduler):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def deployed(folder: Path) -> Iterator[Deployment]:
    """Start a scheduler and a worker for the time of a block."""
    deployment = Deployment(folder)
    try:
        yield deployment
    finally:
        deployment.close()
