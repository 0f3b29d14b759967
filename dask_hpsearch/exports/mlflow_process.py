"""A process that speaks to MLflow for a driver.

MLflow takes seconds to import, keeps global state that is the user's, retries requests for
minutes and warns. So the driver itself does not import it. The process keeps nothing that
is not at the server too: it may be killed at any time, and another one goes on.

Run as ``python -m dask_hpsearch.exports.mlflow_process FD``, by `MlflowProcess`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import socket
import subprocess
import sys
import warnings
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import cloudpickle

from dask_hpsearch.exceptions import TrackerError
from dask_hpsearch.extras import missing_extra

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dask_hpsearch.exports.candidate_result import CandidateResult
    from dask_hpsearch.exports.mlflow_settings import (
        MlflowTracker,
        SearchDescription,
        SearchEnd,
    )

_START_TIMEOUT_S, _REQUEST_TIMEOUT_S, _END_WAIT_S = 120.0, 180.0, 5
# What MLflow's own requests do, unless the user has said otherwise.
_REQUESTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
}


@dataclass(frozen=True, slots=True)
class LoggedModel:
    """A model to log.

    Attributes
    ----------
    pickled : bytes
        The model and an input example, by cloudpickle.
    generation : int
        How often the run had been extended.
    """

    pickled: bytes
    generation: int


class MlflowProcess:
    """A process that writes the runs of one search.

    Its methods wait for the process, and raise a `TrackerError` if the request has failed,
    if it took too long, or if the process has ended; then the process is of no more use.

    Parameters
    ----------
    settings : MlflowTracker
        Resolved.
    search : SearchDescription
    """

    def __init__(self, settings: MlflowTracker, search: SearchDescription) -> None:
        ours, theirs = socket.socketpair()
        folders = [path or os.getcwd() for path in sys.path]  # noqa: PTH109 (for a path list)
        environment = _REQUESTS | os.environ | {"PYTHONPATH": os.pathsep.join(folders)}
        command = [sys.executable, "-W", "ignore", "-m", __name__, str(theirs.fileno())]
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 (this module)
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                # The search handles Ctrl-C, and ends this process.
                start_new_session=True,
            )
        self._connection = Connection(ours.detach())
        try:
            self._ask(("open", settings, search), _START_TIMEOUT_S)
        except TrackerError:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def write(self, results: Sequence[CandidateResult]) -> None:
        """Write candidates."""
        self._ask(("write", list(results)), _REQUEST_TIMEOUT_S)

    def end(self, end: SearchEnd) -> None:
        """Write how the search has ended."""
        self._ask(("end", end), _REQUEST_TIMEOUT_S)

    def log_model(self, model: LoggedModel) -> None:
        """Log the refitted model."""
        self._ask(("model", model), _REQUEST_TIMEOUT_S)

    def kill(self) -> None:
        """Kill the process; a request that another thread waits for fails then."""
        self._process.kill()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_WAIT_S)
        self._connection.close()

    def _ask(self, request: tuple[Any, ...], timeout_s: float) -> None:
        try:
            self._connection.send_bytes(pickle.dumps(request))
            if not self._connection.poll(timeout_s):
                msg = f"MLflow has not answered within {timeout_s:g} s"
                raise TrackerError(msg)
            answer = pickle.loads(self._connection.recv_bytes())  # noqa: S301 (our own process)
        except (OSError, EOFError) as error:
            msg = (
                f"the process that speaks to MLflow has ended ({type(error).__name__})"
            )
            raise TrackerError(msg) from error
        if answer is not None:
            raise TrackerError(answer)


def main() -> None:
    """Serve requests until the other end is closed."""
    warnings.simplefilter("ignore")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    connection = Connection(int(sys.argv[1]))
    server = _Server()
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            request = pickle.loads(connection.recv_bytes())  # noqa: S301 (our parent)
            connection.send_bytes(pickle.dumps(server.answer(*request)))


class _Server:
    """Answers requests: None, or the text of an error."""

    def __init__(self) -> None:
        self._runs: Any = None

    def answer(self, kind: str, *arguments: Any) -> str | None:
        try:
            getattr(self, f"_{kind}")(*arguments)
        except ImportError as error:
            missing = missing_extra(error, what="tracker='mlflow'")
            where = "; the process or the image of the driver lacks it"
            return f"{error}" if missing is None else f"{missing}{where}"
        except Exception as error:  # noqa: BLE001 (raised again where it was asked)
            is_own = isinstance(error, TrackerError)
            return str(error) if is_own else f"{type(error).__name__}: {error}"
        return None

    def _open(self, settings: Any, search: Any) -> None:
        from dask_hpsearch.exports.mlflow_runs import MlflowRuns

        self._runs = MlflowRuns(settings, search)

    def _write(self, results: Any) -> None:
        self._runs.write(results)

    def _end(self, end: Any) -> None:
        self._runs.end(end)

    def _model(self, model: LoggedModel) -> None:
        from dask_hpsearch.exports.mlflow_model import log_model

        estimator, example = cloudpickle.loads(model.pickled)
        log_model(self._runs, estimator, example, generation=model.generation)


if __name__ == "__main__":
    main()
