"""An estimator that misbehaves on demand and notes every fit, and its log."""

from __future__ import annotations

import collections
import contextlib
import ctypes
import itertools
import json
import os
import signal
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_iris
from sklearn.utils import validation

if TYPE_CHECKING:
    from collections.abc import Iterable

_NO_BATCH_S = 0.3  # fits of this time are sent one by one
_POLL_S = 0.01
_PIECE = 2**22  # numbers of 8 bytes: 32 MiB
_MOST_PIECES = 40


def flowers(rows: int = 90) -> tuple[np.ndarray, np.ndarray]:
    """Iris in an order that mixes the classes."""
    X, y = load_iris(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))[:rows]
    return X[order], y[order]


class Deed(ClassifierMixin, BaseEstimator):
    """Scores by its number; in a slot it also notes its fits and does a deed.

    In the client's own process (a refit, a plain fit to compare with) it just fits.

    Parameters
    ----------
    number : int
        Decides the predictions.
    deed : str
        "fit", "raise", "kill", "segv", "exit", "memory" or "hang".
    seconds : float
        Time that a fit sleeps.
    log : str, optional
        File to which a slot appends what it begins and ends.
    gate : str, optional
        File for which a slot waits before it ends a fit.
    hold_after : int, optional
        Once the log has so many ended fits, those that begin in a slot never end.
    client : int, optional
        The client's process.
    """

    def __init__(
        self,
        number: int = 0,
        deed: str = "fit",
        *,
        seconds: float = 0.0,
        log: str | None = None,
        gate: str | None = None,
        hold_after: int | None = None,
        client: int | None = None,
    ) -> None:
        self.number = number
        self.deed = deed
        self.seconds = seconds
        self.log = log
        self.gate = gate
        self.hold_after = hold_after
        self.client = client

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        self.classes_ = np.unique(y)
        self.cut_ = self.number / 18 + X.mean() / 100
        if os.getpid() != self.client:
            self._in_slot(zlib.crc32(X.tobytes()))
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        size = X[:, 2]
        return (size > self.cut_).astype(int) + (size > self.cut_ + 2.5)

    def _in_slot(self, data: int) -> None:
        self._note("start", data)
        held = self.hold_after is not None and self._ended() >= self.hold_after
        do(self.deed)
        if held or self.gate is not None:
            self._note("wait", data)
        while held or (self.gate is not None and not Path(self.gate).exists()):
            time.sleep(_POLL_S)
        time.sleep(self.seconds)
        self._note("end", data)

    def _ended(self) -> int:
        return sum(entry["event"] == "end" for entry in read_log(self.log))

    def _note(self, event: str, data: int) -> None:
        if self.log is not None:
            entry = {
                "event": event,
                "number": np.asarray(self.number).item(),
                "deed": self.deed,
                "data": data,
                "pid": os.getpid(),
                "t": time.time(),
            }
            with Path(self.log).open("a") as file:
                file.write(json.dumps(entry) + "\n")


class TicketDeed(Deed):
    """A fit in a slot takes a ticket, and ends once the file ``limit`` lets its number.

    Parameters
    ----------
    number : int
    folder : str
        Has the tickets and the file.
    client : int, optional
    """

    def __init__(
        self, number: int = 0, *, folder: str = "", client: int | None = None
    ) -> None:
        super().__init__(number, client=client)
        self.folder = folder

    def _in_slot(self, data: int) -> None:
        del data
        time.sleep(_NO_BATCH_S)
        limit, ticket = Path(self.folder, "limit"), self._ticket()
        while int(limit.read_text(encoding="ascii")) <= ticket:
            time.sleep(_POLL_S)

    def _ticket(self) -> int:
        for number in itertools.count():
            with contextlib.suppress(FileExistsError):
                Path(self.folder, f"ticket-{number}").touch(exist_ok=False)
                return number
        raise AssertionError


def do(deed: str) -> None:
    """End, fill or stop this process, as asked."""
    if deed == "raise":
        msg = "a fit like any other that fails"
        raise ValueError(msg)
    if deed == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif deed == "segv":
        ctypes.string_at(0)
    elif deed == "exit":
        os._exit(3)
    elif deed == "memory":
        pieces = [np.ones(_PIECE) for _ in range(_MOST_PIECES)]
        do("hang" if pieces else "exit")
    elif deed == "hang":
        while True:
            time.sleep(_POLL_S)


def read_log(path: Any) -> list[dict[str, Any]]:
    """Return what fits have noted, in order."""
    if not Path(path).exists():
        return []
    text = Path(path).read_text(encoding="ascii")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def seen(path: Any, event: str) -> list[dict[str, Any]]:
    """Return the log's entries of one kind."""
    return [entry for entry in read_log(path) if entry["event"] == event]


def times_begun(path: Any) -> collections.Counter[tuple[int, str, int]]:
    """Count how often every fit (number, deed, data) has begun."""
    return collections.Counter(_fit(entry) for entry in seen(path, "start"))


def unfinished(path: Any) -> list[dict[str, Any]]:
    """Return the beginnings that have no end in the same process."""
    ended = {(*_fit(entry), entry["pid"]) for entry in seen(path, "end")}
    starts = seen(path, "start")
    return [entry for entry in starts if (*_fit(entry), entry["pid"]) not in ended]


def most_at_once(entries: Iterable[dict[str, Any]]) -> int:
    """Return the highest number of fits that ran at a time."""
    running = most = 0
    for entry in entries:
        running += {"start": 1, "end": -1}.get(entry["event"], 0)
        most = max(most, running)
    return most


def _fit(entry: dict[str, Any]) -> tuple[int, str, int]:
    return entry["number"], entry["deed"], entry["data"]


class AsksNarwhals(ClassifierMixin, BaseEstimator):
    """Scores 1 where narwhals need not examine an array, or scikit-learn does not ask it."""

    def __init__(self, number: int = 0) -> None:
        self.number = number

    def fit(self, X: Any, y: Any) -> Self:
        """Note whether the question is answered for arrays."""
        del X
        self.classes_ = np.unique(y)
        if not hasattr(validation, "nw"):
            self.answered_ = True
            return self
        asked = validation.nw.dependencies.is_into_dataframe
        self.answered_ = hasattr(asked, "__wrapped__")
        return self

    def score(self, X: Any, y: Any) -> float:
        """Return 1 if it is."""
        del X, y
        return float(self.answered_)
