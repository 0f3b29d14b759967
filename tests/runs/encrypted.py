"""A scheduler with TLS that can be lost and come again, a pod's worker, and a Job's driver."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from distributed import Client

from dask_hpsearch.clusters import tls
from dask_hpsearch.clusters.kubernetes.driver_job import DriverRequest, driver_job
from dask_hpsearch.config.load import load_spec
from tests.processes import ROOT, WAIT_S

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

SLOTS = 2
_SPEC = {
    "image": "localhost/none:0",
    "workers": {"cpu": 1, "memory": "2Gi", "slots": SLOTS},
}
# A pod's program in a place without Kubernetes. The folder is the one it may write to.
_DRIVER = """
import contextlib, json, sys
from pathlib import Path
from dask_hpsearch.runs.driver.pod_main import run_program

class Place:
    def logs(self, run_id, take, since):
        take("scheduler s-1", "2026-01-01T00:00:00Z", "the scheduler's own words")
        return contextlib.nullcontext()
    def has_cluster(self):
        return not (folder / "no-cluster").exists()
    def end(self):
        (folder / "ended").touch()

request = json.loads(sys.argv[1])
folder = Path(request["scratch"])
sys.exit(run_program(request, Place()))
"""


def connected(address: str, certificates: Path, *, timeout_s: float = 60) -> Client:
    """Connect to the scheduler, from whichever process."""
    security = tls.client_security(certificates)
    return Client(address, security=security, set_as_default=False, timeout=timeout_s)


class TakesJobs:
    """Takes what a Job is to drive, as a cluster on Kubernetes does."""

    runs_drivers = True

    def __init__(self) -> None:
        self.order: DriverRequest | None = None
        self.ends_with_runs = False

    def start_driver(self, order: DriverRequest) -> dict[str, Any]:
        """Keep the order."""
        self.order = order
        return {"namespace": "nowhere"}

    def end_with_runs(self) -> None:
        """Keep that this was asked."""
        self.ends_with_runs = True


class Encrypted:
    """A scheduler on a port that stays the same, and a worker that looks for it.

    Attributes
    ----------
    address : str
    certificates : Path
        A folder.
    scheduler : subprocess.Popen
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.certificates = folder / "certificates"
        tls.issue("own").save(self.certificates)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = int(probe.getsockname()[1])
        self.address = f"tls://127.0.0.1:{self._port}"
        self.scheduler = self.start_scheduler()
        self._worker = self._start_worker()

    def start_scheduler(self) -> subprocess.Popen[bytes]:
        """Start the scheduler, anew if it was lost."""
        self.scheduler = self._start(
            "scheduler",
            *("distributed.cli.dask_scheduler", "--host", "127.0.0.1"),
            *("--port", str(self._port), "--no-dashboard"),
            *("--dashboard-address", "127.0.0.1:0"),
        )
        return self.scheduler

    def _start_worker(self) -> subprocess.Popen[bytes]:
        return self._start(
            "worker",
            *("dask_hpsearch.clusters.kubernetes.worker_pod", "--slots", str(SLOTS)),
            *("--memory", "2000000000", "--notice", "5", "--http-port", "0"),
            *("--scratch", str(self._folder / "worker")),
            DASK_SCHEDULER_ADDRESS=self.address,
        )

    def driver(
        self, order: DriverRequest, folder: Path, *, address: str | None = None
    ) -> subprocess.Popen[bytes]:
        """Start the program of a Job, on a machine that has nothing but the Job's own.

        Parameters
        ----------
        order : DriverRequest
        folder : Path
            What the pod may write to.
        address : str, optional
            Where its scheduler should be, if not here.
        """
        folder.mkdir(parents=True, exist_ok=True)
        key = folder / "key.pem"
        key.write_text(order.signing_key)
        request = self._request(order) | {
            "address": address or self.address,
            "certificates": str(self.certificates),
            "signing_key": str(key),
            "scratch": str(folder),
        }
        with (folder / "driver.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-c", _DRIVER, json.dumps(request)],
                env=os.environ
                | {"PYTHONPATH": str(ROOT), "DASK_HPSEARCH_HOME": str(folder / "home")},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @staticmethod
    def _request(order: DriverRequest) -> dict[str, Any]:
        """Read what the Job's pod is told."""
        job = driver_job("own", "here", load_spec(_SPEC), order)
        [container] = job["spec"]["template"]["spec"]["containers"]
        request: dict[str, Any] = json.loads(container["args"][-1])
        return request

    def client(self) -> Client:
        """Connect."""
        return connected(self.address, self.certificates)

    def close(self) -> None:
        """End what is left."""
        for process in (self._worker, self.scheduler):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _start(
        self, role: tls.Role, *arguments: str, **variables: str
    ) -> subprocess.Popen[bytes]:
        environment: Mapping[str, str] = (
            os.environ
            | tls.pod_environment(role, str(self.certificates))
            | {"PYTHONPATH": str(ROOT)}
            | variables
        )
        with (self._folder / f"{role}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *arguments],
                env=environment,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


@contextlib.contextmanager
def encrypted(folder: Path) -> Iterator[Encrypted]:
    """Run a scheduler and a worker for the time of a block."""
    running = Encrypted(folder)
    try:
        yield running
    finally:
        running.close()


def ended(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process; return its exit code."""
    return process.wait(WAIT_S)
