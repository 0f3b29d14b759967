"""Pipeline steps that several fits have in common, fitted once.

The candidates of a search often differ only in a pipeline's later steps: the earlier ones
are then fitted on the same rows with the same parameters again and again.
``Pipeline(memory=…)`` takes any object with a method ``cache``. `PipelineMemory` is such an
object; its key is the data, the split and the steps so far, so it hashes no array.

Only repeatable steps are kept: those whose parameters guarantee the same result
(`repeatability`), and those whose fit was seen to do nothing that another fit might do
differently (`fit_watch`). Steps that take long to fit are kept for all slots of the node
(`node_steps`), the others in the slot's own memory.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import pickle
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sklearn.pipeline import Pipeline

from dask_hpsearch.localfs.node_cache import Claim
from dask_hpsearch.slots.fit_watch import FitWatch, WarningWatch
from dask_hpsearch.slots.node_files import BeingMadeError
from dask_hpsearch.slots.repeatability import (
    identity_of,
    is_known_code,
    is_repeatable,
    may_be_repeatable,
)
from dask_hpsearch.slots.snapshots import Snapshot, snapshot_of
from dask_hpsearch.slots.step_work import Result, Step, Work, surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from dask_hpsearch.slots.node_steps import NodeSteps
    from dask_hpsearch.slots.shared_transforms import SharedTransforms

MIB = 2**20
MOST_BYTES = 256 * MIB
_LARGEST_PART = 4  # one result takes at most a quarter of the room
_MOST_STEPS = 1000
_CHEAP_S = 0.01
_MOST_WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class _Fitted:
    snapshot: Snapshot
    rows: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """The candidate of a fit: its steps are examined once, not for each split.

    Attributes
    ----------
    search : str
        Digest of the objects that the fits of its call have in common.
    parameters : mapping of str to object, or None
    """

    search: str
    parameters: Mapping[str, Any] | None


class PipelineCache:
    """The fitted steps of this slot; the least recently used are dropped first.

    Attributes
    ----------
    room : int
        Bytes that these steps may take in this slot's memory.
    hits : int
        How often a step needed no fitting.
    node : NodeSteps or None
        The fitted steps that the node's slots share.
    """

    def __init__(self, room: int = MOST_BYTES) -> None:
        self.room = room
        self.hits = 0
        self.node: NodeSteps | None = None
        self._kept: collections.OrderedDict[Hashable, _Fitted]
        self._kept = collections.OrderedDict()
        self._nbytes = 0
        self._steps: dict[Hashable, Step | None] = {}
        self._every_time: dict[Hashable, bool] = {}  # whether repeatable
        self._seconds: dict[Hashable, float] = {}

    def attach(
        self,
        estimator: Any,
        rows: tuple[str, ...],
        *,
        candidate: Candidate | None = None,
        n_steps: int | None = None,
        may_wait: bool = False,
        transforms: SharedTransforms | None = None,
    ) -> None:
        """Give a pipeline a memory of the steps that were fitted on the same rows before.

        Parameters
        ----------
        estimator : estimator
            Anything; only a `Pipeline` without a memory of its own gets one.
        rows : tuple of str
            Digests of X, y and the split.
        candidate : Candidate, optional
            The candidate of the fit.
        n_steps : int, optional
            How many of its first steps other fits have too; default: possibly all.
        may_wait : bool
            Whether the fit may end with `BeingMadeError`, and begin again later.
        transforms : SharedTransforms, optional
            The transforms of its test set, which are shared too.
        """
        if type(estimator) is Pipeline and estimator.memory is None and n_steps != 0:
            memory = PipelineMemory(
                self, rows, estimator, candidate, n_steps, may_wait=may_wait
            )
            memory.transforms = transforms
            estimator.memory = memory

    def forget(self, digest: str) -> None:
        """Drop the steps that were fitted on data or on a split that is no longer used."""
        for key, found in list(self._kept.items()):
            if digest in found.rows:
                self._nbytes -= self._kept.pop(key).snapshot.nbytes

    def step(
        self, step: Any, name: str, position: int, candidate: Candidate | None
    ) -> Step | None:
        """Return an unfitted step as far as it is known; None if it is fitted every time.

        Parameters
        ----------
        step : estimator
        name : str
            The step's name in its pipeline.
        position : int
            Its position there.
        candidate : Candidate or None
        """
        key = None if candidate is None else _short_key(name, position, candidate)
        if key is not None and key in self._steps:
            return self._steps[key]
        identity = identity_of(step)
        if identity is None:
            found = None
        elif identity in self._steps:
            found = self._steps[identity]
        else:
            found = self._look_at(step, identity)
            self._note(identity, found)
        if key is not None:
            self._note(key, found)
        return found

    def result_of(self, work: Work, *, may_wait: bool) -> Result:
        """Do some work, or recall its result.

        Parameters
        ----------
        work : Work
        may_wait : bool

        Raises
        ------
        BeingMadeError
            If another slot is doing the work, and this fit may wait.
        """
        key = work.key
        known = self._get(key)
        if known is not None:
            return Result(known, repeatable=True)
        claim = None
        if key not in self._every_time and self._may_take_long(work):
            found = self._ask_node(work, may_wait=may_wait)
            if isinstance(found, bool):
                self._note_every_time(key, repeatable=found)
            elif found is None or isinstance(found, Claim):
                claim = found
            else:
                self.hits += 1
                return Result(found, repeatable=True)
        if key in self._every_time:
            return Result(work.run(), repeatable=self._every_time[key])
        with claim or contextlib.nullcontext():
            return self._do(work, claim)

    def _do(self, work: Work, claim: Claim | None) -> Result:
        """Do some work, and keep its result if it would be the same again."""
        with work.watch as watch:
            began = time.perf_counter()
            value = work.run()
            seconds = time.perf_counter() - began
        self._note_seconds(work, seconds)
        kept = False
        if watch.repeatable and not watch.warned and seconds >= work.least_s:
            snapshot = work.snapshot(value)
            kept = snapshot is not None and self._keep(work, snapshot, seconds, claim)
        if not kept:
            self._note_every_time(work.key, repeatable=watch.repeatable)
            takes_long = seconds >= _CHEAP_S  # otherwise other slots do not wait long
            if takes_long and claim is not None and self.node is not None:
                self.node.note_every_time(claim, repeatable=watch.repeatable)
        return Result(value, repeatable=watch.repeatable)

    def _keep(
        self, work: Work, snapshot: Snapshot, seconds: float, claim: Claim | None
    ) -> bool:
        """Keep a result for all slots if that saves time, else in this slot's memory."""
        if (
            claim is not None
            and self.node is not None
            and self.node.is_worth(seconds, snapshot.nbytes)
        ):
            return self.node.keep(claim, snapshot)
        return self._put(work.key, work.rows, snapshot)

    def _ask_node(self, work: Work, *, may_wait: bool) -> Any:
        """Return the node's copy of a result, or a claim to make it; see `NodeSteps`."""
        name = None if self.node is None else self.node.key(work.key)
        if name is None or self.node is None:
            return None
        try:
            return self.node.recall(name)
        except BeingMadeError:
            if may_wait:
                raise
        if not work.waits:
            return None
        self.node.wait(name, timeout=_MOST_WAIT_S)
        with contextlib.suppress(BeingMadeError):
            return self.node.recall(name)
        return None

    def _get(self, key: Hashable) -> Any:
        """Return a copy of a result; None if it is not in this slot's memory."""
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        self.hits += 1
        return self._kept[key].snapshot.load()

    def _put(self, key: Hashable, rows: tuple[str, ...], snapshot: Snapshot) -> bool:
        """Keep a result in this slot's memory, unless it is large."""
        if snapshot.nbytes > self.room // _LARGEST_PART:
            return False
        self._kept[key] = _Fitted(snapshot.kept(), rows)
        self._nbytes += snapshot.nbytes
        while self._nbytes > self.room:
            self._nbytes -= self._kept.popitem(last=False)[1].snapshot.nbytes
        return True

    def _note_every_time(self, key: Hashable, *, repeatable: bool) -> None:
        if len(self._every_time) >= _MOST_STEPS:
            self._every_time.clear()
        self._every_time[key] = repeatable

    def _note_seconds(self, work: Work, seconds: float) -> None:
        if len(self._seconds) >= _MOST_STEPS:
            self._seconds.clear()
        for name in work.timed_as:
            self._seconds[name] = max(seconds, self._seconds.get(name, 0.0))

    def _may_take_long(self, work: Work) -> bool:
        """Whether some work may take long enough to ask the other slots for its result."""
        known = (self._seconds.get(name) for name in work.timed_as)
        expected_s = next((one for one in known if one is not None), None)
        return expected_s is None or expected_s >= _CHEAP_S

    def _look_at(self, step: Any, identity: bytes) -> Step | None:
        if is_repeatable(step):
            return Step(identity, is_sure=True, is_known_code=True)
        if not may_be_repeatable(step, identity):
            return None
        return Step(identity, is_sure=False, is_known_code=is_known_code(identity))

    def _note(self, key: Hashable, step: Step | None) -> None:
        if len(self._steps) >= _MOST_STEPS:
            self._steps.clear()
        self._steps[key] = step


class PipelineMemory:
    """The ``memory`` of one pipeline, for its next fit only.

    Parameters
    ----------
    cache : PipelineCache
    rows : tuple of str
        Digests of the data that the first step gets.
    pipeline : Pipeline
        It loses this memory as soon as that fit has begun, because a scorer may fit it, or
        a clone of it, on other rows.
    candidate, n_steps, may_wait
        As of `PipelineCache.attach`.

    Attributes
    ----------
    transforms : SharedTransforms or None
    location : None
        As of joblib's memory without a folder: the pipeline then fits its own steps. Clones of
        them would lack what their parameters do not show, and some steps have no clone.
    """

    location: Final = None

    def __init__(
        self,
        cache: PipelineCache,
        rows: tuple[str, ...],
        pipeline: Pipeline,
        candidate: Candidate | None,
        n_steps: int | None,
        *,
        may_wait: bool,
    ) -> None:
        self._cache, self._rows = cache, rows
        self._pipeline = pipeline
        self._candidate, self._n_steps = candidate, n_steps
        self._may_wait = may_wait
        self.transforms: SharedTransforms | None = None
        self._so_far: Hashable = None
        self._steps: collections.deque[tuple[int, str]] = collections.deque()

    def cache(self, function: Callable[..., Any], **_options: Any) -> Any:
        """Wrap scikit-learn's function that fits a step; called as a fit begins."""
        self._pipeline.memory = None
        self._steps.extend(
            (position, name)
            for position, (name, step) in enumerate(self._pipeline.steps[:-1])
            if step is not None and step != "passthrough"
        )
        settings = surroundings()
        if settings is not None:
            self._so_far = self._rows, settings
        return functools.partial(self._fit_transform, function)

    def _fit_transform(
        self, function: Callable[..., Any], step: Any, X: Any, y: Any, **others: Any
    ) -> Any:
        """Fit a step to the data and transform it, or recall both."""
        position, name = self._steps.popleft() if self._steps else (0, "")
        known = None
        if (
            self._so_far is not None
            and (self._n_steps is None or position < self._n_steps)
            and not _has_options(others)
        ):
            known = self._cache.step(step, name, position, self._candidate)
        if known is None:  # then the later steps are not known either
            self._so_far = None
            return function(step, X, y, **others)
        key = self._so_far, known.identity
        work = Work(
            key,
            run=functools.partial(function, step, X, y, **others),
            watch=_watch_of_fit(known, (X, y)),
            snapshot=lambda pair: snapshot_of(*pair, given=X),
            timed_as=known.timed_as(type(step)),
            rows=self._rows,
        )
        result = self._cache.result_of(work, may_wait=self._may_wait)
        self._so_far = key if result.repeatable else None
        transformed, fitted = result.value
        if result.repeatable and self.transforms is not None:
            self.transforms.share(fitted, key, known)
        return transformed, fitted


def _watch_of_fit(step: Step, given: tuple[Any, Any]) -> WarningWatch:
    if step.is_sure:
        return WarningWatch()
    return FitWatch(given, known_code=step.is_known_code)


def _short_key(name: str, position: int, candidate: Candidate) -> Hashable | None:
    """Return a key that tells a step from the other steps of a call: its parameters."""
    parameters = candidate.parameters or {}
    if "steps" in parameters:
        return None
    own = {
        key: value
        for key, value in parameters.items()
        if key == name or key.startswith(f"{name}__")
    }
    try:
        return candidate.search, position, pickle.dumps(own, protocol=5)
    except Exception:  # noqa: BLE001 (they are the user's)
        return None


def _has_options(others: dict[str, Any]) -> bool:
    """Whether a step gets metadata or weights, or has to print its time."""
    params = others.get("params") or {}
    return (
        any(params.values())
        or others.get("weight") is not None
        or others.get("message") is not None
    )
