"""Messages between the client, the workers and their slots."""

from __future__ import annotations

import operator
import pickle
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

M = TypeVar("M")

# Further messages between a slot and its worker.
BATCH_DONE = b""
SLOT_DONE = b"\0"  # the slot ends; its remaining tasks go to other slots
TASK_DEFERRED = (
    b"\1"  # the first of the remaining tasks comes last, the next one begins
)
TASK_BEGINS = b"\2"  # the first of the remaining tasks begins only now
STOP_SIGN = "stop"

# Environment variable of a worker: the threads of each of its slots; default: one.
THREADS_VARIABLE = "DASK_HPSEARCH_THREADS_PER_SLOT"
IMAGE_VARIABLE = "DASK_HPSEARCH_IMAGE"  # names the image to a worker in a pod
# Set where nodes have no external address: the command that creates a Cloud NAT for them.
CLOUD_NAT_VARIABLE = "DASK_HPSEARCH_CLOUD_NAT"

Status = Literal[
    "ok",  # ended by itself; payload is its pickled result
    "raised",  # raised; payload is the pickled exception
    "unreadable",  # could not be loaded in the slot
    "no data",  # the worker could not get its data; payload is the pickled error
    "killed",  # its process died by a signal
    "exited",  # its process ended by itself
    "memory",  # ended for using more than its share
    "disk",  # ended for filling its worker's disk, or its worker was, for that
    "timeout",  # ended for running too long
    "dropped",  # never begun: its candidate is dropped (only of the engine itself)
    "returned",  # not run, or lost through no fault of its own: run it again
]


def _pickled_by_position(message: type[M]) -> type[M]:
    """Have a dataclass pickled as a call with its fields.

    The own way of a frozen dataclass with slots looks its fields up each time, in Python.
    """
    values = operator.attrgetter(*(field.name for field in fields(message)))  # type: ignore[arg-type]

    def reduce(self: M) -> tuple[type[M], Any]:
        return message, values(self)

    message.__reduce__ = reduce  # type: ignore[assignment, method-assign]
    return message


@_pickled_by_position
@dataclass(frozen=True, slots=True)
class DataRef:
    """A reference to data, by the hash of its content or of its origin.

    Attributes
    ----------
    digest : str
        Hexadecimal hash; the name of its file.
    nbytes : int
        Size of the file in bytes.
    place : str
        The client's folder with the file, which is valid on a worker that sees the folder
        too; or the URL of a store that workers read by themselves.
    made_from : DataRef or None
        A bundle that says how to make the file where it does not exist.
    """

    digest: str
    nbytes: int
    place: str
    made_from: DataRef | None = None

    @property
    def path(self) -> Path:
        """The file, if the place is a folder."""
        return Path(self.place) / self.digest

    @property
    def in_store(self) -> bool:
        """Whether the place is a store's URL."""
        return "://" in self.place


@_pickled_by_position
@dataclass(frozen=True, slots=True)
class FitTask:
    """One candidate on one split, by ordinals and references.

    Attributes
    ----------
    number : int
        Its number within the engine.
    spec : DataRef
        The `FitSpec` of its ``evaluate_candidates`` call.
    split_data : DataRef
        The pair (train, test).
    candidate, split, n_candidates, n_splits : int or None
        Ordinals and totals, as scikit-learn reports them; None where it does not.
    parameters : bytes
        The pickled candidate, a dict or None; follows the spec's ``parts``.
    shared_steps : int or None
        How many of a pipeline's first steps other fits have too; None: any may.
    steps_group : int or None
        Fits of one number have these steps, and their split, in common.
    """

    number: int
    spec: DataRef
    split_data: DataRef
    candidate: int | None
    split: int | None
    n_candidates: int | None
    n_splits: int | None
    parameters: bytes
    shared_steps: int | None = None
    steps_group: int | None = None


@_pickled_by_position
@dataclass(frozen=True, slots=True)
class CallTask:
    """Any other joblib batch: pickled calls, with large arrays by reference.

    Attributes
    ----------
    number : int
        Its number within the engine.
    functions : bytes
        Pickled list of the called functions.
    calls : tuple of bytes
        Each call's pickled (index of its function, args, kwargs); follows ``functions``.
    """

    number: int
    functions: bytes
    calls: tuple[bytes, ...]


Task = FitTask | CallTask


@_pickled_by_position
@dataclass(frozen=True, slots=True)
class Batch:
    """The payload of one Dask task: some tasks of one joblib call.

    Attributes
    ----------
    group : str
        Names their joblib call, for cancellation.
    topic : str
        Dask event topic on which a worker asks for data and reports outcomes.
    tasks : tuple of FitTask or CallTask
    data : tuple of DataRef
        All data that the tasks need.
    fit_timeout_s : float or None
        Longest time that one task may run.
    hold_s : float
        After this time a batch gives back the tasks that it has not begun.
    quiet_s : float
        Time during which the worker need not look at the slot.
    number : int
        Its number within the engine, for reports of outcomes.
    later : int or None
        Fits that begin after it on the same worker, by estimate; None: it is not known. A
        fit may use the threads of slots that no later fit needs.
    """

    group: str
    topic: str
    tasks: tuple[Task, ...]
    data: tuple[DataRef, ...]
    fit_timeout_s: float | None
    hold_s: float
    quiet_s: float = 0.0
    number: int = 0
    later: int | None = None

    def to_bytes(self) -> bytes:
        """Encode compactly; `from_bytes` is the inverse."""
        return pickle.dumps(self, protocol=5)

    @staticmethod
    def from_bytes(payload: bytes) -> Batch:
        """Decode what `to_bytes` wrote."""
        batch: Batch = pickle.loads(payload)  # noqa: S301 (our own message)
        return batch


@_pickled_by_position
@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended.

    Attributes
    ----------
    number : int
        The task's, within its engine.
    status : str
        See `Status`.
    payload : bytes
        Pickled result or exception, by status.
    message : str
        The cause in words, if there is no payload.
    warnings : tuple of str
        Distinct warnings that the fit raised.
    seconds : float
        Wall-clock time in the slot.
    image : str
        The worker's container image, if a module was missing there.
    relayed : tuple of (str, bytes)
        Messages of callbacks, see `sklearn_adapter.callbacks`.
    """

    number: int
    status: Status
    payload: bytes = b""
    message: str = ""
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    image: str = ""
    relayed: tuple[tuple[str, bytes], ...] = ()

    def to_bytes(self) -> bytes:
        """Encode for the way back to the client; workers pass it on unchanged."""
        return pickle.dumps(self, protocol=5)


def encode_outcomes(outcomes: list[bytes]) -> bytes:
    """Put encoded outcomes together."""
    return pickle.dumps(outcomes, protocol=5)


def decode_outcomes(payload: bytes) -> list[Outcome]:
    """Decode what `encode_outcomes` put together."""
    encoded: list[bytes] = pickle.loads(payload)  # noqa: S301 (our own message)
    return [pickle.loads(outcome) for outcome in encoded]  # noqa: S301


@_pickled_by_position
@dataclass(frozen=True, slots=True)
class FitSpec:
    """The parts that all fit tasks of one ``evaluate_candidates`` call share.

    Attributes
    ----------
    function : callable
        scikit-learn's fit-and-score function with its configuration and filters.
    parts : bytes
        The pickled estimator and the other keywords: scorer, fit_params, error_score, …
        Every fit loads its own, and its parameters after them with the same unpickler.
    X, y : DataRef
        The data.
    share_steps : bool
        Whether slots may keep pipeline steps that several fits share.
    """

    function: Any
    parts: bytes
    X: DataRef
    y: DataRef
    share_steps: bool = False
