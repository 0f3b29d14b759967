"""Turns an outcome into what scikit-learn takes: a result, a failed fit, or an error."""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import pickle
import sys
import threading
from typing import TYPE_CHECKING, Any

from dask_hpsearch import sklearn_adapter
from dask_hpsearch.exceptions import (
    FitDiskError,
    FitEndedError,
    FitKilledError,
    FitMemoryError,
    FitTimeoutError,
    HPSearchError,
    MissingModuleError,
    UnreadableTaskError,
)
from dask_hpsearch.raised_errors import decode_error
from dask_hpsearch.safe_text import repr_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from joblib.parallel import BatchedCalls

    from dask_hpsearch.messages import Outcome
    from dask_hpsearch.sklearn_adapter import FitCall

_ENDED: dict[str, type[FitEndedError]] = {
    "killed": FitKilledError,
    "exited": FitKilledError,
    "memory": FitMemoryError,
    "disk": FitDiskError,
    "timeout": FitTimeoutError,
}
_MOST_WARNINGS = 1000
_SCORES = ("test_scores", "train_scores")
_ERROR_WAIT_S = 1.0
_LONGEST_PARAMETERS = 500
_fit_logger = logging.getLogger("dask_hpsearch.fits")


def result_of(outcome: Outcome, *, what: str) -> Any:
    """Return a task's result.

    Parameters
    ----------
    outcome : Outcome
    what : str
        Names the task in errors.

    Raises
    ------
    Exception
        The task's own, with the worker's traceback as a note.
    FitEndedError
        If its process was ended or died.
    MissingModuleError, UnreadableTaskError
        If a worker could not load it.
    HPSearchError
        If a worker could not get the task's data.
    """
    if outcome.status == "ok":
        return pickle.loads(outcome.payload)  # noqa: S301 (from one of our slots)
    if outcome.status == "raised":
        raise decode_error(outcome.payload, outcome.message)
    if outcome.status == "no data":
        raise pickle.loads(outcome.payload)  # noqa: S301
    if outcome.status == "unreadable":
        raise _unreadable(outcome)
    msg = f"{what} was ended: {outcome.message}"
    raise _ENDED[outcome.status](msg)


def fit_result(call: FitCall, outcome: Outcome) -> dict[str, Any]:
    """Return the result of a fit as scikit-learn's own function would.

    A fit whose process was ended or died is a failed fit with ``error_score``, unless that
    is "raise".

    Raises
    ------
    Exception
        As `result_of`.
    """
    finished = outcome.status == "ok"
    try:
        result: dict[str, Any] = result_of(
            outcome, what="" if finished else name_of(call)
        )
    except FitEndedError as error:
        if sklearn_adapter.raises_errors(call):
            raise
        _fit_logger.warning("%s", error)
        cause = f"{type(error).__module__}.{type(error).__name__}: {error}"
        return sklearn_adapter.failed_result(call, cause=cause, seconds=outcome.seconds)
    return _with_shared_keys(result) if finished else result


def _with_shared_keys(result: dict[str, Any]) -> dict[str, Any]:
    """Return a result whose keys are the same objects as those of other results.

    Loading a pickle makes them anew: in a search of very many fits they took more memory
    than the scores.
    """
    shared = {sys.intern(key): value for key, value in result.items()}
    for name in _SCORES:
        scores = shared.get(name)
        if type(scores) is dict and all(type(key) is str for key in scores):
            shared[name] = {sys.intern(key): value for key, value in scores.items()}
    return shared


def name_of(call: FitCall) -> str:
    """Name a fit by its ordinals and parameters."""
    if call.candidate is None:
        return f"a fit of {type(call.estimator).__name__}"
    parameters = repr_of(call.parameters, _LONGEST_PARAMETERS)
    return f"the fit of candidate {call.candidate} {parameters} on split {call.split}"


def describe(batch: BatchedCalls) -> str:
    """Name the function that a joblib batch calls."""
    function = batch.items[0][0] if batch.items else None
    function = getattr(function, "function", function)
    return str(getattr(function, "__qualname__", function))


def _unreadable(outcome: Outcome) -> HPSearchError:
    module = outcome.payload.decode()
    if module:
        return MissingModuleError(
            f"the workers lack the module {module!r}, which the search refers to: "
            f"{_how_to_provide(module, outcome.image)}, or define its classes and functions "
            "in the notebook",
            name=module,
        )
    return UnreadableTaskError(
        f"a worker could not load the search or its data: {outcome.message}; check that "
        "the workers have the client's package versions"
    )


def _how_to_provide(module: str, image: str) -> str:
    """Say how workers get a module; pods lose modules that are uploaded to them."""
    if image:
        return (
            "add its package to requirements: (or, if it is your own module, its path to "
            f"modules:) in the cluster's spec and rebuild the image ({image} lacks it)"
        )
    file = module.split(".", maxsplit=1)[0] + ".py"
    return f"install it there, or send it with client.upload_file({file!r})"


class FitWarnings:
    """Logs the warnings that fits raise on the workers, each text once."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def log(self, outcome: Outcome) -> None:
        """Log the warnings of an outcome that are new."""
        for text in outcome.warnings:
            if text not in self._seen and len(self._seen) < _MOST_WARNINGS:
                self._seen.add(text)
                _fit_logger.warning("a fit warned: %s", text)


class ErrorsInTurn:
    """Delivers results at once, and errors in the order of tasks.

    A plain local fit raises the error of the first task that fails. Here tasks run in
    parallel: an error waits a moment for earlier tasks, in case one of them fails too.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._running: set[int] = set()
        self._first = 0  # no task before it runs
        self._held: list[tuple[int, Callable[[], None]]] = []  # a heap
        self._timer: threading.Timer | None = None
        self._ended = False
        self._lock = threading.Lock()

    def expect(self, deliver: Callable[[Any], None]) -> Callable[[Any], None]:
        """Register a task; return the function that delivers its result or its error."""
        with self._lock:
            number = next(self._numbers)
            self._running.add(number)

        def deliver_in_turn(results: Any) -> None:
            if isinstance(results, BaseException):
                self._hold(number, lambda: deliver(results))
                if isinstance(results, HPSearchError):
                    self._release(wait=False)  # ends the search, whatever the order
            else:
                with self._lock:
                    self._running.discard(number)
                deliver(results)
            self._release(wait=True)

        return deliver_in_turn

    def end(self, deliver: Callable[[Any], None], error: HPSearchError) -> None:
        """Deliver an error that ends all tasks to the first task that reports it.

        One is enough for joblib to end the call. If every task delivered it, it would be
        raised for each, with a longer traceback each time.
        """
        if self._ended:
            return
        self._ended = True
        self._release(wait=False)
        deliver(error)

    def _hold(self, number: int, deliver: Callable[[], None]) -> None:
        with self._lock:
            self._running.discard(number)
            heapq.heappush(self._held, (number, deliver))
            if self._timer is None:
                self._timer = threading.Timer(_ERROR_WAIT_S, self._release, [False])
                self._timer.daemon = True
                self._timer.start()

    def _release(self, wait: bool) -> None:  # noqa: FBT001 (a timer's argument)
        """Deliver held errors in order; with ``wait``, those that nothing precedes."""
        if not self._held:
            return
        with self._lock:
            while self._running and self._first not in self._running:
                self._first += 1
            before = self._first if wait and self._running else math.inf
            calls = []
            while self._held and self._held[0][0] < before:
                calls.append(heapq.heappop(self._held)[1])
            if self._timer is not None and not self._held:
                self._timer.cancel()
                self._timer = None
        for call in calls:
            call()
