"""Workers that see nothing of the client's own folders, as on nodes of their own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.processes import ROOT, wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distributed import Client, LocalCluster


def can_isolate() -> bool:
    """Whether a process can be given file systems of its own here."""
    if shutil.which("unshare") is None or os.geteuid() != 0:
        return False
    tried = subprocess.run([*isolated([]), "true"], check=False, capture_output=True)
    return tried.returncode == 0


def isolated(hidden: Sequence[str], *more: str) -> list[str]:
    """Return what a command line begins with that finds these folders empty."""
    mounts = [f"mount -t tmpfs tmpfs {folder}" for folder in hidden]
    steps = " && ".join([*mounts, *more, 'exec "$@"'])
    return ["unshare", "--mount", "sh", "-c", steps, "sh"]


class Nodes:
    """Workers of two slots, each as on a node of its own.

    Attributes
    ----------
    client : Client
    """

    def __init__(self, cluster: LocalCluster, client: Client, folder: Path) -> None:
        self.client = client
        self._cluster = cluster
        self._folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        """Start a worker of two slots."""
        settings = {
            "scheduler": self._cluster.scheduler_address,
            "log_level": 30,
            "options": {
                "name": name,
                "nthreads": 2,
                "memory_limit": None,
                "local_directory": str(self._folder / name),
            },
        }
        program = "dask_hpsearch.clusters.local_worker"
        hidden = [os.environ["DASK_HPSEARCH_HOME"], "/dev/shm"]  # noqa: S108
        Path(hidden[0]).mkdir(exist_ok=True)
        command = [
            *isolated(hidden),
            sys.executable,
            "-m",
            program,
            json.dumps(settings),
        ]
        path = {"PYTHONPATH": str(ROOT)}
        self._processes[name] = subprocess.Popen(command, env=os.environ | path)

    def have(self, *names: str) -> None:
        """Have these workers, and no others."""
        for name in set(self._processes) - set(names):
            self.kill(name)
        for name in names:
            if name not in self._processes:
                self.start(name)
        workers = self._cluster.scheduler.workers
        wait_until(lambda: {one.name for one in workers.values()} == set(names))

    def all_have_tasks(self) -> bool:
        """Whether each worker runs a task."""
        workers = self._cluster.scheduler.workers.values()
        return all(one.processing for one in workers)

    def kill(self, name: str) -> None:
        """End a worker as a lost node does."""
        process = self._processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def close(self) -> None:
        """End all workers."""
        for process in self._processes.values():
            process.terminate()
            process.wait()
