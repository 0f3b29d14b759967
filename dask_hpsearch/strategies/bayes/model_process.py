"""A process that fits models, so that they do not delay the search's process.

While a thread fits a model, other threads wait up to 5 ms for the interpreter; at hundreds
of results a second that alone leaves slots idle. So the `Surrogate` moves to a process of
its own, with one BLAS thread, as soon as that has started.

Run as ``python -m dask_hpsearch.strategies.bayes.model_process FD``, by `ModelProcess`.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import subprocess
import sys
import warnings
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import cloudpickle

if TYPE_CHECKING:
    from dask_hpsearch.strategies.bayes.surrogate import Known, Suggestions, Surrogate

_END_WAIT_S = 5
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
)


class ModelProcess:
    """A process that fits models for any number of spaces.

    It starts within a second or two; the search does not wait for it.
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        folders = [path or os.getcwd() for path in sys.path]  # noqa: PTH109 (for a path list)
        environment = (
            os.environ | _ONE_THREAD | {"PYTHONPATH": os.pathsep.join(folders)}
        )
        command = [sys.executable, "-W", "ignore", "-m", __name__, str(theirs.fileno())]
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 (this module)
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=environment,
                # The search handles Ctrl-C, and ends this process.
                start_new_session=True,
            )
        self._connection = Connection(ours.detach())
        self._ready = False

    def is_ready(self) -> bool:
        """Whether it has started; False for ever if it cannot."""
        with contextlib.suppress(OSError, EOFError):
            if not self._ready and self._connection.poll():
                self._ready = self._connection.recv() == "ready"
        return self._ready

    def give(self, index: int, surrogate: Surrogate) -> None:
        """Send the surrogate of a space, with its learnt model."""
        self._connection.send_bytes(cloudpickle.dumps((index, surrogate)))

    def suggest(
        self, index: int, known: Known, n_points: int, n_reserve: int
    ) -> Suggestions:
        """Suggest as the surrogate that was given for a space.

        Raises
        ------
        Exception
            Raised by the surrogate; OSError or EOFError if the process has ended.
        """
        self._connection.send_bytes(pickle.dumps((index, (known, n_points, n_reserve))))
        found = pickle.loads(self._connection.recv_bytes())  # noqa: S301 (our own process)
        if isinstance(found, Exception):
            raise found
        suggestions: Suggestions = found
        return suggestions

    def close(self) -> None:
        """Kill the process, even while it fits a model."""
        self._process.kill()
        self._process.wait(_END_WAIT_S)
        self._connection.close()


def main() -> None:
    """Serve suggestions until the other end is closed."""
    from dask_hpsearch.strategies.bayes import surrogate as _imported  # noqa: F401 (slow: now)

    warnings.simplefilter("ignore")
    connection = Connection(int(sys.argv[1]))
    connection.send("ready")
    surrogates: dict[int, Any] = {}
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            index, message = pickle.loads(connection.recv_bytes())  # noqa: S301 (our parent)
            if isinstance(message, tuple):
                connection.send_bytes(_answer(surrogates[index], message))
            else:
                surrogates[index] = message


def _answer(surrogate: Surrogate, request: tuple[Known, int, int]) -> bytes:
    try:
        return cloudpickle.dumps(surrogate.suggest(*request))  # type: ignore[no-any-return]
    except Exception as error:  # noqa: BLE001 (raised again where it was asked)
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))


if __name__ == "__main__":
    main()
