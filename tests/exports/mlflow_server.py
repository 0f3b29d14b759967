"""An MLflow server as a process, and what it has, by its REST interface."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import requests

from tests.processes import wait_until

if TYPE_CHECKING:
    from pathlib import Path

_END_S, _TIMEOUT_S = 20, 30


@dataclass(frozen=True)
class Tracked:
    """A run as the server has it.

    Attributes
    ----------
    run_id, status : str
    params, tags : dict of str to str
    metrics : dict of str to float
    outputs : list of str
        Its logged models.
    """

    run_id: str
    status: str
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]
    outputs: list[str]


class Server:
    """A server with SQLite in a folder, which can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-W", "ignore", "-m", "mlflow", "server"),
                    f"--backend-store-uri=sqlite:///{self._folder / 'mlflow.db'}",
                    f"--artifacts-destination={self._folder / 'artifacts'}",
                    "--host=127.0.0.1",
                    f"--port={self.port}",
                    "--workers=1",
                ],
                cwd=self._folder,
                env=os.environ
                | {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self._answers)

    def stop(self) -> None:
        """End it, and the processes that it has started."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(_END_S)

    def runs(self, experiment: str, **tags: str) -> list[Tracked]:
        """Return the runs of an experiment with some tags, oldest first."""
        found = self._get(f"experiments/get-by-name?experiment_name={experiment}")
        wanted = {"experiment_ids": [found["experiment"]["experiment_id"]]}
        order = {"order_by": ["attributes.start_time ASC"], "max_results": 1000}
        answer = self._post("runs/search", wanted | order)
        runs = [_tracked(one) for one in answer.get("runs", [])]
        return [one for one in runs if tags.items() <= one.tags.items()]

    def candidates(self, experiment: str) -> list[Tracked]:
        """Return the runs of candidates."""
        return self.runs(experiment, **{"dask-hpsearch.kind": "candidate"})

    def search(self, experiment: str) -> Tracked:
        """Return the one run of a search."""
        (found,) = self.runs(experiment, **{"dask-hpsearch.kind": "search"})
        return found

    def has(self, experiment: str) -> bool:
        """Whether there is an experiment."""
        path = f"experiments/get-by-name?experiment_name={experiment}"
        return requests.get(self._at(path), timeout=_TIMEOUT_S).ok

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "server.log").read_text()
        try:
            return requests.get(f"{self.url}/health", timeout=_TIMEOUT_S).ok
        except requests.RequestException:
            return False

    def _get(self, path: str) -> Any:
        answer = requests.get(self._at(path), timeout=_TIMEOUT_S)
        answer.raise_for_status()
        return answer.json()

    def _post(self, path: str, body: Any) -> Any:
        answer = requests.post(self._at(path), json=body, timeout=_TIMEOUT_S)
        answer.raise_for_status()
        return answer.json()

    def _at(self, path: str) -> str:
        return f"{self.url}/api/2.0/mlflow/{path}"


def _tracked(run: Any) -> Tracked:
    data = run["data"]

    def pairs(name: str) -> dict[str, Any]:
        return {one["key"]: one["value"] for one in data.get(name, [])}

    outputs = run.get("outputs", {}).get("model_outputs", [])
    return Tracked(
        run["info"]["run_id"],
        run["info"]["status"],
        pairs("params"),
        pairs("tags"),
        pairs("metrics"),
        [one["model_id"] for one in outputs],
    )
