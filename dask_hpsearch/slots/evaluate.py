"""The code of a slot: load a task's data, fit and score, send the outcome.

A slot is a process with one main thread. It gets lists of tasks over a connection, answers
each task with an `Outcome`, and keeps loaded data (mapped, not copied) for the next one.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import io
import os
import pickle
import select
import sys
import time
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import cloudpickle
import numpy as np

from dask_hpsearch import sklearn_adapter
from dask_hpsearch.localfs import bundles
from dask_hpsearch.messages import (
    BATCH_DONE,
    IMAGE_VARIABLE,
    SLOT_DONE,
    STOP_SIGN,
    TASK_BEGINS,
    TASK_DEFERRED,
    CallTask,
    FitSpec,
    FitTask,
    Outcome,
    Task,
)
from dask_hpsearch.raised_errors import encode_error, in_words
from dask_hpsearch.sklearn_adapter import callbacks
from dask_hpsearch.slots import no_internet, shared_data, threads
from dask_hpsearch.slots.node_files import BeingMadeError, NodeFiles
from dask_hpsearch.slots.node_steps import NodeSteps
from dask_hpsearch.slots.pipeline_cache import MOST_BYTES, Candidate, PipelineCache
from dask_hpsearch.slots.shared_transforms import SharedTransforms
from dask_hpsearch.slots.split_rows import NodeRows, Split, SplitRows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from multiprocessing.connection import Connection

    from dask_hpsearch.slots.node_files import NodeFolder

Files = TypeVar("Files", bound=NodeFiles)

_KEPT_BUNDLES = 256
_KEPT_BYTES = 2**30
_ALWAYS_KEPT = 16
_KEPT_IDLE_S = 5.0
_KEPT_WARNINGS = 20
_OWN_FOLDER = str(Path(__file__).parent)
_MOST_WAITS = 2  # of a task, for a step that another slot fits


@dataclass(frozen=True, slots=True)
class _Loaded:
    hand_out: Callable[[], Any]
    path: Path
    nbytes: int
    is_copied: bool  # by scikit-learn, when it selects rows


class Bundles:
    """The bundles that this slot has loaded; the least recently used are dropped first.

    Parameters
    ----------
    on_drop : callable
        Called with the digest of a bundle that is dropped.
    idle_s : float
        Bundles that were not used for so long are dropped when tasks come: otherwise the
        data of an ended search would stay in memory. Loading takes only milliseconds.
    """

    def __init__(
        self, on_drop: Callable[[str], object] = str, *, idle_s: float = _KEPT_IDLE_S
    ) -> None:
        self._loaded: collections.OrderedDict[str, _Loaded] = collections.OrderedDict()
        self._on_drop, self._idle_s = on_drop, idle_s
        self._in_use: set[str] = set()
        self._used_until: dict[str, float] = {}

    def get(self, digest: str, paths: Mapping[str, str]) -> Any:
        """Return the object of a bundle, from its file the first time."""
        return self._get(digest, paths, lambda value: lambda: value)

    def for_fit(
        self, digest: str, paths: Mapping[str, str], *, private: bool = False
    ) -> Any:
        """Return a bundle's data for one fit, whose changes no other fit sees.

        Parameters
        ----------
        digest : str
        paths : mapping of str to str
            Files by digest.
        private : bool
            Load the data again in any case: pages that this fit writes to become its own.
        """
        if private:
            self._in_use.add(digest)
            return bundles.load(paths[digest], writable=True)
        return self._get(digest, paths, shared_data.handing_out)

    def _get(
        self,
        digest: str,
        paths: Mapping[str, str],
        handing_out: Callable[[Any], Callable[[], Any] | None],
    ) -> Any:
        self._in_use.add(digest)
        kept = self._loaded.get(digest)
        if kept is None:
            self._drop_removed()
            path = Path(paths[digest])
            hand_out = handing_out(bundles.load(str(path)))
            is_copied = hand_out is not None
            if hand_out is None:
                hand_out = functools.partial(bundles.load, str(path), writable=True)
            kept = _Loaded(hand_out, path, path.stat().st_size, is_copied)
            self._loaded[digest] = kept
            self._drop_oldest()
        self._loaded.move_to_end(digest)
        return kept.hand_out()

    def nbytes_copied(self, digests: Iterable[str]) -> int | None:
        """Return the size of loaded bundles; None if rows selected from one are no copies."""
        kept = [self._loaded.get(digest) for digest in digests]
        if not all(one is not None and one.is_copied for one in kept):
            return None
        return sum(one.nbytes for one in kept if one is not None)

    @contextlib.contextmanager
    def for_tasks(self) -> Iterator[None]:
        """Drop idle bundles; those of the tasks are in use until the tasks have ended."""
        now = time.monotonic()
        for digest, until in list(self._used_until.items()):
            if until < now - self._idle_s:
                self._drop(digest)
        yield
        self._used_until |= dict.fromkeys(self._in_use, time.monotonic())
        self._in_use.clear()

    def _drop_removed(self) -> None:
        """Drop bundles whose files were removed: their searches have ended."""
        for digest, kept in list(self._loaded.items()):
            if not kept.path.exists():
                self._drop(digest)

    def _drop_oldest(self) -> None:
        """Drop the least recently used bundles once there are too many bytes or files."""
        nbytes = sum(one.nbytes for one in self._loaded.values())
        while len(self._loaded) > _ALWAYS_KEPT and (
            len(self._loaded) > _KEPT_BUNDLES or nbytes > _KEPT_BYTES
        ):
            oldest = next(iter(self._loaded))
            nbytes -= self._loaded[oldest].nbytes
            self._drop(oldest)

    def _drop(self, digest: str) -> None:
        self._used_until.pop(digest, None)
        if self._loaded.pop(digest, None) is not None:
            self._on_drop(digest)


class TaskUnpickler(pickle.Unpickler):
    """Loads the parts of a task, whose large arrays are bundles.

    Parameters
    ----------
    payload : bytes
        Pickles that were made one after the other.
    load : callable
        Loads the array of a digest, for this task alone to write to.
    paths : mapping of str to str
        Files by digest, for parts that are to be the file itself.
    """

    def __init__(
        self,
        payload: bytes,
        load: Callable[[str], Any],
        paths: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(io.BytesIO(payload))
        self._load_array = load
        self._paths = paths
        self._arrays: dict[int, Any] = {}

    def persistent_load(self, pid: tuple[str, int | None]) -> Any:
        """Load an array, once for all places that refer to it; or name a file."""
        digest, number = pid
        if number is None:
            return Path(self._paths[digest])
        if number not in self._arrays:
            self._arrays[number] = self._load_array(digest)
        return self._arrays[number]


def serve(
    connection: Connection, has_left_children: Callable[[], bool] = lambda: False
) -> bool:
    """Run tasks until the connection closes, or a task has left processes behind.

    Parameters
    ----------
    connection : Connection
    has_left_children : callable
        Asked after each task whether this process has children.

    Returns
    -------
    bool
        Whether a task has left processes, which are to end with the slot.
    """
    pipeline_cache = PipelineCache()
    split_rows = SplitRows()

    def forget(digest: str) -> None:
        pipeline_cache.forget(digest)
        split_rows.forget(digest)

    loaded = Bundles(forget)
    places: list[str] = []
    callbacks.relay_messages()
    os.environ[threads.COUNT_VARIABLE] = str(threads.of_slot())
    with (
        contextlib.suppress(EOFError, OSError),
        threads.nested_calls_stay_here(),
        sklearn_adapter.before_errors_are_text(
            no_internet.explain, without=_OWN_FOLDER
        ),
    ):
        while True:
            message = connection.recv()
            if message == STOP_SIGN:  # it came too late for its list
                continue
            tasks, paths, folders, room, shared_folder, n_slots = message
            pipeline_cache.node = _at(NodeSteps, pipeline_cache.node, shared_folder)
            split_rows.node = _at(NodeRows, split_rows.node, shared_folder)
            pipeline_cache.room = MOST_BYTES if room is None else min(MOST_BYTES, room)
            if folders != places:
                places = folders
                others = [one for one in sys.path if one not in folders]
                sys.path[:] = [*folders, *others]
            prepare = functools.partial(
                _prepare,
                paths=paths,
                loaded=loaded,
                pipeline_cache=pipeline_cache,
                split_rows=split_rows,
                n_slots=n_slots,
            )
            with loaded.for_tasks():
                for answer in _run_all(tasks, prepare, connection, pipeline_cache.node):
                    connection.send_bytes(answer)
                    if has_left_children():
                        connection.send_bytes(SLOT_DONE)
                        return True
            connection.send_bytes(BATCH_DONE)
    return False


def _at(kind: type[Files], files: Files | None, folder: NodeFolder) -> Files:
    return kind.open(folder) if files is None else files.at(folder)


def _run_all(
    tasks: tuple[Task, ...],
    prepare: Callable[..., Callable[[], Any]],
    connection: Connection,
    node: NodeSteps | None,
) -> Iterator[bytes]:
    """Run tasks; once anything arrives, give the others back unrun.

    They run in order, apart from those that need a step which another slot fits now: these
    come last. If there is nothing else to do, the slot waits for the step.
    """
    arrived = select.poll()  # a tenth of the time that connection.poll takes
    arrived.register(connection, select.POLLIN)
    waiting = collections.deque(tasks)
    needed: dict[int, str] = {}
    waits: collections.Counter[int] = collections.Counter()
    begun = False
    while waiting:
        number = waiting[0].number
        if number in needed and node is not None:
            node.wait(needed[number], given_up=lambda: bool(arrived.poll(0)))
            yield TASK_BEGINS
        if begun and arrived.poll(0):
            connection.recv()
            yield from (Outcome(one.number, "returned").to_bytes() for one in waiting)
            return
        begun = True
        try:
            outcome = _run(
                waiting[0],
                functools.partial(prepare, may_wait=waits[number] < _MOST_WAITS),
            )
        except BeingMadeError as error:
            needed[number] = error.name
            waits[number] += 1
            waiting.rotate(-1)
            yield TASK_DEFERRED
            continue
        waiting.popleft()
        yield outcome.to_bytes()


def _run(task: Task, prepare: Callable[[Task], Callable[[], Any]]) -> Outcome:
    """Run one task; whatever it raises becomes its outcome.

    Raises
    ------
    BeingMadeError
        If another slot fits one of its steps now.
    """
    start = time.perf_counter()
    try:
        with _forks_end():
            work = prepare(task)
    except BaseException as error:  # noqa: BLE001 (the user's code may raise anything)
        no_internet.explain(error)
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        return Outcome(
            task.number,
            "unreadable",
            payload=(missing or "").encode(),
            message=in_words(error),
            seconds=time.perf_counter() - start,
            image=os.environ.get(IMAGE_VARIABLE, ""),
        )
    with _collected_warnings() as seen:
        message = ""
        try:
            with _forks_end():
                payload = _encode_result(work())
            status: Any = "ok"
        except BeingMadeError:
            raise
        except BaseException as error:  # noqa: BLE001 (sys.exit must not end the slot)
            no_internet.explain(error)
            payload, status, message = encode_error(error), "raised", in_words(error)
    seconds = time.perf_counter() - start
    return Outcome(
        task.number,
        status,
        payload,
        message,
        warnings=tuple(seen),
        seconds=seconds,
        relayed=callbacks.taken_messages(),
    )


@contextlib.contextmanager
def _forks_end() -> Iterator[None]:
    """End a process that the fit has forked if it returns here: it is not the slot."""
    slot = os.getpid()
    try:
        yield
    except BaseException as error:
        if os.getpid() != slot:
            _end_fork(error)
        raise
    if os.getpid() != slot:
        _end_fork(None)


def _end_fork(error: BaseException | None) -> NoReturn:
    """End this process as a script that has ended, exited or failed."""
    status = 0 if error is None else 1
    if isinstance(error, SystemExit) and isinstance(error.code, int | None):
        status = error.code or 0
    elif error is not None:
        traceback.print_exception(error)
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status & 0xFF)


def _prepare(
    task: Task,
    *,
    paths: Mapping[str, str],
    loaded: Bundles,
    pipeline_cache: PipelineCache,
    split_rows: SplitRows,
    n_slots: int = 1,
    may_wait: bool = False,
) -> Callable[[], Any]:
    """Load a task's data, and return the function that runs it."""
    load = functools.partial(loaded.for_fit, paths=paths, private=True)
    if isinstance(task, CallTask):
        return _prepare_calls(task, load, paths)
    return _prepare_fit(
        task,
        load,
        paths,
        loaded,
        pipeline_cache,
        split_rows,
        n_slots=n_slots,
        may_wait=may_wait,
    )


def _prepare_calls(
    task: CallTask, load: Callable[[str], Any], paths: Mapping[str, str]
) -> Callable[[], list[Any]]:
    """Load calls so that no two share an argument."""
    calls = []
    for payload in task.calls:
        parts = TaskUnpickler(task.functions + payload, load, paths)
        functions = parts.load()
        which, args, kwargs = parts.load()
        calls.append(functools.partial(functions[which], *args, **kwargs))
    return lambda: [call() for call in calls]


def _prepare_fit(  # noqa: PLR0917 (called once, in order)
    task: FitTask,
    load: Callable[[str], Any],
    paths: Mapping[str, str],
    loaded: Bundles,
    pipeline_cache: PipelineCache,
    split_rows: SplitRows,
    *,
    n_slots: int,
    may_wait: bool,
) -> Callable[[], Any]:
    spec: FitSpec = loaded.get(task.spec.digest, paths)
    indices = loaded.get(task.split_data.digest, paths)
    # A slice selects without a copy, and indices of a user's type may do so too.
    private = not all(type(rows) in {np.ndarray, list} for rows in indices)
    data = tuple(
        loaded.for_fit(ref.digest, paths, private=private) for ref in (spec.X, spec.y)
    )
    # The fit's own part is loaded last, so that a user's class in it has the same globals
    # as in the estimator.
    parts = TaskUnpickler(spec.parts + task.parameters, load, paths)
    estimator, shared = parts.load()
    parameters = parts.load()
    transforms = None
    if spec.share_steps and not shared.get("return_estimator"):
        digests = spec.X.digest, spec.y.digest, task.split_data.digest
        if sklearn_adapter.scores_predictions_only(shared.get("scorer")):
            transforms = SharedTransforms(pipeline_cache, digests)
        pipeline_cache.attach(
            estimator,
            digests,
            candidate=Candidate(task.spec.digest, parameters),
            n_steps=task.shared_steps,
            may_wait=may_wait,
            transforms=transforms,
        )
    progress = (
        _pair(task.split, task.n_splits),
        _pair(task.candidate, task.n_candidates),
    )
    rows = None
    nbytes = None if private else loaded.nbytes_copied((spec.X.digest, spec.y.digest))
    if nbytes is not None:
        split = Split(
            (spec.X.digest, spec.y.digest, task.split_data.digest),
            nbytes,
            n_fits=task.n_candidates,
            n_splits=task.n_splits,
            data=data,
        )
        rows = functools.partial(_rows, split_rows, split, transforms)
    run = functools.partial(
        sklearn_adapter.run_fit,
        *(spec.function, estimator, data, indices, parameters, progress, shared, rows),
    )
    if transforms is not None:
        run = functools.partial(_run_sharing, run, transforms)
    if n_slots > 1 and threads.asks_for_more(estimator, parameters):
        return functools.partial(threads.run_with, n_slots * threads.of_slot(), run)
    return run


def _rows(
    split_rows: SplitRows,
    split: Split,
    transforms: SharedTransforms | None,
    select: Callable[[], Any],
) -> Any:
    """Return the rows of a split, and note those of the test set."""
    rows = split_rows.rows(split, select)
    if transforms is not None:
        transforms.test_rows = rows[1][0]
    return rows


def _run_sharing(run: Callable[[], Any], transforms: SharedTransforms) -> Any:
    try:
        return run()
    finally:
        transforms.end()


def _pair(index: int | None, total: int | None) -> tuple[int, int] | None:
    return None if index is None or total is None else (index, total)


@contextlib.contextmanager
def _collected_warnings() -> Iterator[dict[str, None]]:
    """Collect the texts of the warnings that the block shows, each once."""
    seen: dict[str, None] = {}

    def collect(
        message: Warning | str, category: type[Warning], *_where: Any, **_more: Any
    ) -> None:
        if len(seen) < _KEPT_WARNINGS:
            seen[f"{category.__name__}: {message}"] = None

    show, warnings.showwarning = warnings.showwarning, collect
    try:
        yield seen
    finally:
        warnings.showwarning = show


def _encode_result(result: Any) -> bytes:
    if isinstance(result, dict) and "test_scores" in result:
        with contextlib.suppress(Exception):
            if "estimator" not in result:
                return pickle.dumps(result, protocol=5)
    return bytes(cloudpickle.dumps(result, protocol=5))
