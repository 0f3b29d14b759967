"""Explores search spaces without a barrier: a free slot gets a new point at once.

`Explorer` decides what runs next. Models are fitted by `bayes.asker`, and fits run where
the protocol `Slots` says.
"""

from __future__ import annotations

import math
import queue
import time
import warnings
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from threadpoolctl import threadpool_limits

from dask_hpsearch.engine.racing import DROPPED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_HANDOVER_S = 0.01
_IDLE_SHARE = 0.12
_MOST_WAIT_S = 5.0
_LOOK_EVERY_S = 0.5
_SMOOTHING = 0.2
# The user need not know of a model that does not converge. Filters belong to the process,
# so they are set here and not in the thread that fits models.
_WARN_OF_MODELS = (r"sklearn\.", r"skopt\.", r"scipy\.", r"numpy")


class Slots(Protocol):
    """Runs fits."""

    @property
    def slots(self) -> int:
        """Number of slots now."""

    def submit(
        self,
        space: int,
        candidate: int,
        split: int,
        done: Callable[[Any], None],
    ) -> None:
        """Run a fit.

        ``done`` is called once, in any thread, with its result or an error, or with
        `DROPPED` if its candidate is dropped: then the fit never begins.
        """

    def cancel(self, space: int) -> None:
        """End the running fits of a space; their results are no longer needed."""


class Asker(Protocol):
    """Asks for the points of one space."""

    @property
    def exhausted(self) -> bool:
        """Whether it has no further points."""

    def start(self, ready: Callable[[], None]) -> None:
        """Begin; ``ready`` is called when points are ready."""

    def take(self, *, wait: bool, most: int) -> list[Any] | None:
        """Return a point, or None to wait a moment; `note_asked` follows.

        Parameters
        ----------
        wait : bool
            Whether to return None if a better point comes soon.
        most : int
            Most points that may be taken at once: the number of slots.
        """

    def note_asked(self, point: list[Any]) -> None:
        """Count a point as pending: the one that was taken, or one of a journal."""

    def told(self, point: list[Any], value: float) -> None:
        """Note a point's value (lower is better, NaN: failed)."""

    def models(self) -> list[Any]:
        """Return the models of skopt that were learnt since the last call."""

    def model_at_last(self) -> None:
        """Learn a model if there is none."""

    def next_point(self) -> list[Any] | None:
        """Return the point that would be asked next, if a model has chosen it."""

    def close(self) -> None:
        """End what it does in the background."""


class AskLog(Protocol):
    """Keeps asks, so that a resumed search asks the same points again."""

    def asked(self, ordinal: int, space_index: int) -> Mapping[str, Any] | None:
        """Return the parameters of an ask of that space; None if there is none."""

    def record_ask(
        self, ordinal: int, space_index: int, params: Mapping[str, Any]
    ) -> None:
        """Keep an ask."""

    def told(self, ordinal: int, space_index: int, value: float) -> None:
        """Keep the value that was told for a candidate (lower is better, NaN: failed)."""


@dataclass(slots=True, eq=False)
class Space:
    """One search space.

    Attributes
    ----------
    index : int
    names : list of str
        Names of the parameters, in the order of a point's values.
    n_iter : int
        Candidates to evaluate.
    optimizer : skopt.Optimizer
        It is told all values; the asker fits its models.
    asker : Asker
    """

    index: int
    names: list[str]
    n_iter: int
    optimizer: Any
    asker: Asker
    asked: int = 0
    stopped: bool = False
    told: dict[int, float] = field(default_factory=dict)
    worst: float | None = None

    @property
    def asking(self) -> bool:
        """Whether it wants more candidates."""
        ended = self.stopped or self.asker.exhausted
        return not ended and self.asked < self.n_iter


@dataclass(slots=True)
class _InFlight:
    space: Space
    point: list[Any]
    left: deque[int]  # splits that are not submitted
    running: int = 0
    dropped: bool = False
    results: dict[int, dict[str, Any]] = field(default_factory=dict)


def wanted_fits(slots: int, mean_s: float | None) -> int:
    """Return how many fits to submit: one a slot, and more if fits are short.

    A slot has a waiting fit while a result travels and the next fit is handed over. More
    fits would be asked earlier than needed, with less known.
    """
    slots = max(slots, 1)
    if mean_s is None:
        return slots
    return slots + math.ceil(slots * min(1.0, _HANDOVER_S / max(mean_s, 1e-4)))


def model_wait_s(mean_s: float | None) -> float:
    """Return how long a slot waits for a model's point before it gets a cheaper one."""
    return min(_IDLE_SHARE * (mean_s or 0.0), _MOST_WAIT_S)


class Explorer:
    """Evaluates candidates of some spaces, one space after the other.

    Parameters
    ----------
    spaces : sequence of Space
    slots : Slots
    n_splits : int
    open_candidate : callable
        Called with a candidate's parameters before its fits are submitted.
    value : callable
        Returns a candidate's value (lower is better, NaN: failed) from its results.
    asks : AskLog
    stops : callable
        Called with skopt's result after each tell; returns whether to leave the space.
    most_in_flight : int or None
        Upper bound of candidates at once.
    split_by_split : bool
        Whether a candidate may be dropped: its splits run one after the other while other
        candidates can use the slots.
    clock : callable
        Returns seconds.
    """

    def __init__(
        self,
        spaces: Sequence[Space],
        slots: Slots,
        *,
        n_splits: int,
        open_candidate: Callable[[dict[str, Any]], None],
        value: Callable[[list[dict[str, Any]]], float],
        asks: AskLog,
        stops: Callable[[Any], bool] = lambda _: False,
        most_in_flight: int | None = None,
        split_by_split: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spaces = spaces
        self._slots = slots
        self._n_splits = n_splits
        self._open_candidate = open_candidate
        self._value = value
        self._asks = asks
        self._stops = stops
        self._most_in_flight = most_in_flight or math.inf
        self._split_by_split = split_by_split
        self._clock = clock
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._in_flight: dict[int, _InFlight] = {}
        self._submitted = 0
        self._ordinal = 0
        self._mean_s: float | None = None
        self._free_since: float | None = None

    def run(self) -> None:
        """Explore until all candidates are evaluated, or a callback has stopped it.

        Raises
        ------
        Exception
            Raised by a fit or a callback; no fit is left running.
        """
        # More BLAS threads make models slower, and take cores from fits.
        with threadpool_limits(1), warnings.catch_warnings():
            for module in _WARN_OF_MODELS:
                warnings.filterwarnings("ignore", module=module)
            self._run()

    def _run(self) -> None:
        try:
            for space in self._spaces:
                space.asker.start(self._wake)
            self._fill()
            while self._in_flight or self._asking() is not None:
                self._take_events()
                self._fill()
        finally:
            for space in self._spaces:
                space.asker.close()
                if any(one.space is space for one in self._in_flight.values()):
                    self._slots.cancel(space.index)

    # --- asking -----------------------------------------------------------------------

    def _asking(self) -> Space | None:
        return next((space for space in self._spaces if space.asking), None)

    def _fill(self) -> None:
        """Ask and submit while slots are free."""
        while self._has_room():
            if self._submit_further(only_idle=True):
                continue
            space = self._asking()
            if space is None or len(self._in_flight) >= self._most_in_flight:
                if self._submit_further(only_idle=False):
                    continue
                break
            ordinal = self._ordinal
            recorded = self._recorded(ordinal)
            if recorded is not None:
                self._ordinal += 1
                self._replay(ordinal, *recorded)
                continue
            point = self._point(space)
            if point is None:
                return
            self._ordinal += 1
            # skopt converts to Python's own types in the same way.
            point = [np.array(value).item() for value in point]
            space.asker.note_asked(point)
            params = OrderedDict(zip(space.names, point, strict=True))
            self._asks.record_ask(ordinal, space.index, params)
            self._submit(ordinal, space, point, params)
        self._free_since = None

    def _has_room(self) -> bool:
        return self._submitted < wanted_fits(self._slots.slots, self._mean_s)

    def _point(self, space: Space) -> list[Any] | None:
        """Take a point; None to wait a moment for a better one."""
        now = self._clock()
        self._free_since = self._free_since or now
        wait = now < self._free_since + model_wait_s(self._mean_s)
        return space.asker.take(wait=wait, most=max(self._slots.slots, 1))

    def _recorded(self, ordinal: int) -> tuple[Space, Mapping[str, Any]] | None:
        """Look up a recorded ask, which may be of another space than the present one."""
        for space in self._spaces:
            params = self._asks.asked(ordinal, space.index)
            if params is not None:
                return space, params
        return None

    def _replay(self, ordinal: int, space: Space, params: Mapping[str, Any]) -> None:
        point = [params[name] for name in space.names]
        space.asker.note_asked(point)
        ordered = OrderedDict(zip(space.names, point, strict=True))
        self._submit(ordinal, space, point, ordered)

    def _submit(
        self, ordinal: int, space: Space, point: list[Any], params: dict[str, Any]
    ) -> None:
        space.asked += 1
        trial = _InFlight(space, point, deque(range(self._n_splits)))
        self._in_flight[ordinal] = trial
        self._open_candidate(params)
        self._submit_next(ordinal, trial)
        while trial.left and not self._split_by_split:
            self._submit_next(ordinal, trial)

    def _submit_next(self, ordinal: int, trial: _InFlight) -> None:
        """Submit a candidate's next split."""
        split = trial.left.popleft()
        self._submitted += 1
        trial.running += 1
        index = trial.space.index
        self._slots.submit(index, ordinal, split, self._taker(ordinal, split))

    def _submit_further(self, *, only_idle: bool) -> bool:
        """Submit a further split of a candidate that has begun; return whether one is left.

        Parameters
        ----------
        only_idle : bool
            Of a candidate without a running fit only.
        """
        if not self._split_by_split:
            return False
        for ordinal, trial in self._in_flight.items():
            if trial.left and not (only_idle and trial.running):
                self._submit_next(ordinal, trial)
                return True
        return False

    def _wake(self) -> None:
        self._events.put(lambda: None)

    # --- telling ----------------------------------------------------------------------

    def _taker(self, ordinal: int, split: int) -> Callable[[Any], None]:
        def done(result: Any) -> None:
            self._events.put(lambda: self._take(ordinal, split, result))

        return done

    def _take_events(self) -> None:
        """Wait for an event, and handle every one in the queue."""
        timeout = _LOOK_EVERY_S
        if self._free_since is not None:
            until = self._free_since + model_wait_s(self._mean_s)
            timeout = min(timeout, max(until - self._clock(), 0.001))
        try:
            event = self._events.get(timeout=timeout)
            while True:
                event()
                event = self._events.get_nowait()
        except queue.Empty:
            return

    def _take(self, ordinal: int, split: int, result: Any) -> None:
        trial = self._in_flight.get(ordinal)
        if trial is None:
            return  # its space was left
        self._submitted -= 1
        trial.running -= 1
        if isinstance(result, BaseException):
            raise result
        if result is DROPPED:
            trial.dropped = True
            trial.left.clear()
        else:
            self._take_result(trial, split, result)
        whole = len(trial.results) == self._n_splits
        if whole or (trial.dropped and not trial.running):
            del self._in_flight[ordinal]
            self._tell(ordinal, trial)

    def _take_result(
        self, trial: _InFlight, split: int, result: dict[str, Any]
    ) -> None:
        seconds = sum(result.get(key) or 0.0 for key in ("fit_time", "score_time"))
        mean_s = seconds if self._mean_s is None else self._mean_s
        self._mean_s = mean_s + _SMOOTHING * (seconds - mean_s)
        trial.results[split] = result

    def _tell(self, ordinal: int, trial: _InFlight) -> None:
        space = trial.space
        value = self._value([trial.results[split] for split in sorted(trial.results)])
        space.told[ordinal] = value
        self._asks.told(ordinal, space.index, value)
        space.asker.told(trial.point, value)
        if math.isfinite(value):
            space.worst = value if space.worst is None else max(value, space.worst)
        told = value if math.isfinite(value) else space.worst or 0.0
        result = space.optimizer.tell(trial.point, told, fit=False)
        add_models(space.optimizer, space.asker.models())
        if self._stops(result):
            self._leave(space)

    def _leave(self, space: Space) -> None:
        """Evaluate no more of a space."""
        space.stopped = True
        space.asker.close()
        left = [n for n, trial in self._in_flight.items() if trial.space is space]
        for ordinal in left:
            trial = self._in_flight.pop(ordinal)
            self._submitted -= trial.running
        if left:
            self._slots.cancel(space.index)


def add_models(optimizer: Any, models: list[Any]) -> None:
    """Add models to an optimizer, up to the number that it keeps."""
    optimizer.models.extend(models)
    if optimizer.max_model_queue_size is not None:
        del optimizer.models[: -optimizer.max_model_queue_size or None]
