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
import functools
import pickle
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sklearn
from sklearn.pipeline import Pipeline

from dask_hpsearch.sklearn_adapter import warning_filters
from dask_hpsearch.slots.fit_watch import FitWatch, WarningWatch
from dask_hpsearch.slots.node_files import BeingMadeError
from dask_hpsearch.slots.repeatability import (
    identity_of,
    is_known_code,
    is_repeatable,
    may_be_repeatable,
)
from dask_hpsearch.slots.snapshots import Snapshot, snapshot_of

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from dask_hpsearch.localfs.node_cache import Claim
    from dask_hpsearch.slots.node_steps import NodeSteps

MIB = 2**20
MOST_BYTES = 256 * MIB
_LARGEST_PART = 4  # one result takes at most a quarter of the room
_MOST_STEPS = 1000
_CHEAP_S = 0.01


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


@dataclass(frozen=True, slots=True)
class Step:
    """An unfitted step, as far as it is known.

    Attributes
    ----------
    identity : bytes
    is_sure : bool
        Whether its parameters alone guarantee the same result each time.
    is_known_code : bool
    """

    identity: bytes
    is_sure: bool
    is_known_code: bool


@dataclass(frozen=True, slots=True)
class StepFit:
    """One fit of a step that may be in the cache.

    Attributes
    ----------
    key : hashable
        Names the step, the steps before it, and their data.
    step : Step
    run : callable
        Fits the step; returns its output and the fitted step.
    kind : type
        Its class.
    given : (X, y)
        What it is fitted on.
    rows : tuple of str
        Digests of the data of the pipeline's first step.
    """

    key: Hashable
    step: Step
    run: Callable[[], tuple[Any, Any]]
    kind: type
    given: tuple[Any, Any]
    rows: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """A step's output, the fitted step, and whether another fit gives the same result."""

    transformed: Any
    step: Any
    repeatable: bool


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
        self._seconds: dict[bytes | type, float] = {}

    def attach(
        self,
        estimator: Any,
        rows: tuple[str, ...],
        *,
        candidate: Candidate | None = None,
        n_steps: int | None = None,
        may_wait: bool = False,
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
        """
        if type(estimator) is Pipeline and estimator.memory is None and n_steps != 0:
            estimator.memory = PipelineMemory(
                self, rows, estimator, candidate, n_steps, may_wait=may_wait
            )

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

    def fit(self, fit: StepFit, *, may_wait: bool) -> Result:
        """Fit a step, or recall an earlier fit.

        Parameters
        ----------
        fit : StepFit
        may_wait : bool

        Raises
        ------
        BeingMadeError
            If another slot is fitting the step, and this fit may wait.
        """
        key = fit.key
        known = self._get(key)
        if known is not None:
            return Result(*known, repeatable=True)
        claim = None
        if key not in self._every_time and self._may_take_long(fit):
            found = self._ask_node(key, may_wait=may_wait)
            if isinstance(found, tuple):
                self.hits += 1
                return Result(*found, repeatable=True)
            if isinstance(found, bool):
                self._note_every_time(key, repeatable=found)
            else:
                claim = found
        if key in self._every_time:
            return Result(*fit.run(), repeatable=self._every_time[key])
        with claim or nullcontext():
            return self._fit(fit, claim)

    def _fit(self, fit: StepFit, claim: Claim | None) -> Result:
        """Fit a step, and keep it if another fit would give the same result."""
        step = fit.step
        watch = (
            WarningWatch()
            if step.is_sure
            else FitWatch(fit.given, known_code=step.is_known_code)
        )
        with watch:
            began = time.perf_counter()
            transformed, fitted = fit.run()
            seconds = time.perf_counter() - began
        self._note_seconds(fit, seconds)
        kept = False
        if watch.repeatable and not watch.warned:
            snapshot = snapshot_of(transformed, fitted, given=fit.given[0])
            kept = snapshot is not None and self._keep(fit, snapshot, seconds, claim)
        if not kept:
            self._note_every_time(fit.key, repeatable=watch.repeatable)
            takes_long = seconds >= _CHEAP_S  # otherwise other slots do not wait long
            if takes_long and claim is not None and self.node is not None:
                self.node.note_every_time(claim, repeatable=watch.repeatable)
        return Result(transformed, fitted, repeatable=watch.repeatable)

    def _keep(
        self, fit: StepFit, snapshot: Snapshot, seconds: float, claim: Claim | None
    ) -> bool:
        """Keep a step for all slots if that saves time, else in this slot's memory."""
        if (
            claim is not None
            and self.node is not None
            and self.node.is_worth(seconds, snapshot.nbytes)
        ):
            return self.node.keep(claim, snapshot)
        return self._put(fit.key, fit.rows, snapshot)

    def _ask_node(
        self, key: Hashable, *, may_wait: bool
    ) -> tuple[Any, Any] | bool | Claim | None:
        """Return the node's copy of a step, or a claim to make it."""
        name = None if self.node is None else self.node.key(key)
        if name is None or self.node is None:
            return None
        try:
            return self.node.recall(name)
        except BeingMadeError:
            if may_wait:
                raise
            return None

    def _get(self, key: Hashable) -> tuple[Any, Any] | None:
        """Return copies of the transformed data and of the fitted step."""
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        self.hits += 1
        found: tuple[Any, Any] = self._kept[key].snapshot.load()
        return found

    def _put(self, key: Hashable, rows: tuple[str, ...], snapshot: Snapshot) -> bool:
        """Keep a step and its output in this slot's memory, unless they are large."""
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

    def _note_seconds(self, fit: StepFit, seconds: float) -> None:
        if len(self._seconds) >= _MOST_STEPS:
            self._seconds.clear()
        for of in (fit.step.identity, fit.kind):
            self._seconds[of] = max(seconds, self._seconds.get(of, 0.0))

    def _may_take_long(self, fit: StepFit) -> bool:
        """Whether a step may take long enough to ask the other slots for it.

        A step that runs a user's code may take longer with other parameters.
        """
        expected_s = self._seconds.get(fit.step.identity)
        if expected_s is None and fit.step.is_sure:
            expected_s = self._seconds.get(fit.kind)
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
    """

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
        surroundings = _surroundings()
        if surroundings is not None:
            self._so_far = self._rows, surroundings
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
        run = functools.partial(function, step, X, y, **others)
        result = self._cache.fit(
            StepFit(key, known, run, type(step), (X, y), self._rows),
            may_wait=self._may_wait,
        )
        self._so_far = key if result.repeatable else None
        return result.transformed, result.step


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


def _surroundings() -> Hashable | None:
    """Return the settings that can change the result of a step.

    They are scikit-learn's configuration, such as "transform_output", and the warning
    filters, which may turn a warning into an error. None if they have no hash.
    """
    found = tuple(sklearn.get_config().items()), warning_filters.current()
    try:
        hash(found)
    except TypeError:
        return None
    return found
