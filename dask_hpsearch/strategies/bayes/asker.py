"""Keeps points ready to be evaluated, so that no slot waits for a model.

A thread fits models and prepares as many points as are taken while a model is being fitted.
`Asker.take` returns one of these; if there are none, one of the last model's reserve; if
that is empty, a random one.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

import numpy as np

from dask_hpsearch.strategies.bayes.surrogate import Known, Surrogate

if TYPE_CHECKING:
    from collections.abc import Callable

    from dask_hpsearch.strategies.bayes.model_process import ModelProcess
    from dask_hpsearch.strategies.bayes.surrogate import Point, Suggestions

_logger = logging.getLogger(__name__)
_RECENT = 64
_SMOOTHING = 0.3
_LEAST_TOLD = 8
_FEW_SLOTS = 16
_LEAST_NEW = 4
_NEW_SHARE = 0.1
_DRAWN_AT_ONCE = 64


def look_ahead(*, cost_s: float, interval_s: float, most: int) -> int:
    """Return how many points to have ready: those taken while a model is fitted.

    Parameters
    ----------
    cost_s : float
        Seconds that a model and its points take.
    interval_s : float
        Mean seconds between two points taken.
    most : int
        Upper bound.
    """
    if interval_s * most <= cost_s:
        return max(1, most)
    return max(1, math.ceil(cost_s / interval_s))


class Asker:
    """Asks for points of one space.

    Parameters
    ----------
    index : int
        Index of the search space.
    optimizer : skopt.Optimizer
        Read for its space and settings; its random state draws random points.
    process : ModelProcess, optional
        Fits the models once it is ready; until then they are fitted in this process.
    clock : callable
        Returns seconds.

    Attributes
    ----------
    exhausted : bool
        False: it always has a further point.
    sources : Counter of str
        Number of points by source: "initial", "model", "reserve" or "random".
    """

    exhausted = False

    def __init__(
        self,
        index: int,
        optimizer: Any,
        *,
        process: ModelProcess | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._index = index
        self._optimizer = optimizer
        self._process = process
        self._given = False
        self._clock = clock
        # A copy of its state: the initial points must be those of skopt's own loop.
        state = np.random.RandomState()
        state.set_state(optimizer.rng.get_state())
        seed = state.randint(0, np.iinfo(np.int32).max)
        self._surrogate = Surrogate(optimizer, seed=seed)
        self._random_points: list[Point] = []
        self._random = np.random.RandomState(seed)
        self._changed = threading.Condition()
        self._known = Known()
        self._ready: deque[Point] = deque()
        self._reserve: deque[Point] = deque()
        self._models: list[Any] = []
        self._taken = 0
        self._taken_at: deque[float] = deque(maxlen=_RECENT)
        self._cost_s = 0.0
        self._most = 1
        self._modelled = 0
        self._replaces = False
        self.sources: Counter[str] = Counter()
        self._closed = False
        self._models_points = optimizer.base_estimator_ is not None

    def start(self, ready: Callable[[], None]) -> None:
        """Begin to fit models.

        Parameters
        ----------
        ready : callable
            Called when points are ready.
        """
        if self._models_points:
            threading.Thread(
                target=self._run,
                args=(ready,),
                name="dask-hpsearch-asking",
                daemon=True,
            ).start()

    # --- the search's thread ----------------------------------------------------------

    def take(self, *, wait: bool, most: int) -> Point | None:
        """Return a point to evaluate; the caller then calls `note_asked`.

        Parameters
        ----------
        wait : bool
            Whether to return None instead of a point that is not of the last model's best.
        most : int
            Most points that may be taken at once: the number of slots.
        """
        with self._changed:
            point = self._next(wait=wait)
            self._most = most
        return point

    def note_asked(self, point: Point) -> None:
        """Count a point as pending."""
        with self._changed:
            self._taken += 1
            self._taken_at.append(self._clock())
            self._known.pending.append(point)
            self._changed.notify_all()

    def told(self, point: Point, value: float) -> None:
        """Note a point's value (NaN if it failed); the point is no longer pending."""
        with self._changed:
            pending = [one for one in self._known.pending if one is not point]
            self._known.pending[:] = pending
            self._known.points.append(point)
            self._known.values.append(value)
            self._changed.notify_all()

    def models(self) -> list[Any]:
        """Return the models learnt since the last call."""
        with self._changed:
            models, self._models = self._models, []
        return models

    def model_at_last(self) -> None:
        """Fit a model if there is none, so that the optimizer can ask again later.

        Called at the end: a search may end before its first model is ready.
        """
        enough = len(self._known.values) >= max(1, self._optimizer.n_initial_points_)
        if enough and self._models_points:
            found = self._surrogate.suggest(self._known, 1, 0)
            self._ready.extend(found.points)
            self._models.append(found.model)

    def next_point(self) -> Point | None:
        """Return the point that would be asked next, if a model has chosen it."""
        with self._changed:
            return next(iter([*self._ready, *self._reserve]), None)

    def close(self) -> None:
        """End the thread; a model that is being fitted is dropped."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _next(self, *, wait: bool) -> Point | None:
        if self._taken < self._optimizer.n_initial_points_:
            self.sources["initial"] += 1
            return self._initial()
        if self._ready:
            self.sources["model"] += 1
            return self._ready.popleft()
        if wait and self._can_model():
            return None
        if self._reserve:
            self.sources["reserve"] += 1
            return self._reserve.popleft()
        self.sources["random"] += 1
        return self._drawn()

    def _initial(self) -> Point:
        """Return the point of skopt's ``ask(n_points=1)``, which would copy itself."""
        samples = self._optimizer._initial_samples  # noqa: SLF001
        if samples is None:
            seed = self._optimizer.rng.randint(0, np.iinfo(np.int32).max)
            samples = self._optimizer.space.rvs(random_state=seed)
            return list(samples[0])
        return list(samples[self._taken])

    def _drawn(self) -> Point:
        if not self._random_points:
            space = self._optimizer.space
            self._random_points = space.rvs(_DRAWN_AT_ONCE, random_state=self._random)
        return self._random_points.pop()

    # --- its own thread ---------------------------------------------------------------

    def _run(self, ready: Callable[[], None]) -> None:
        while (wanted := self._wait_until_wanted()) is not None:
            known, n_points, n_reserve = wanted
            begun = self._clock()
            try:
                found = self._suggest(known, n_points, n_reserve)
            except Exception as error:  # noqa: BLE001 (slots must not stop for a model)
                if not self._closed:
                    _logger.warning(
                        "the model failed, further points are random: %s", error
                    )
                self.close()
                ready()
                return
            with self._changed:
                if self._replaces:
                    self._ready.clear()
                self._ready.extend(found.points)
                self._reserve = deque(found.reserve)
                if found.model is not None:
                    self._models.append(found.model)
                spent = self._clock() - begun
                self._cost_s += _SMOOTHING * (spent - self._cost_s)
            ready()

    def _suggest(self, known: Known, n_points: int, n_reserve: int) -> Suggestions:
        """Ask the surrogate, in the model process if that is ready."""
        if self._process is None or not self._process.is_ready():
            return self._surrogate.suggest(known, n_points, n_reserve)
        if not self._given:
            self._process.give(self._index, self._surrogate)
            self._given = True
        return self._process.suggest(self._index, known, n_points, n_reserve)

    def _wait_until_wanted(self) -> tuple[Known, int, int] | None:
        """Wait until points are wanted; None if no more are."""
        with self._changed:
            while not self._closed:
                wanted = self._look_ahead()
                if self._is_stale():
                    kept: list[Point] = []  # all are asked again
                else:
                    kept = list(self._ready)
                missing = wanted - len(kept)
                if missing > 0 and self._can_model() and not self._awaits_process():
                    self._replaces = not kept
                    self._modelled = len(self._known.values)
                    known = Known(
                        list(self._known.points),
                        list(self._known.values),
                        [*self._known.pending, *kept],
                    )
                    return known, missing, self._most
                self._changed.wait()
        return None

    def _is_stale(self) -> bool:
        """Whether so many values are new that the ready points should be asked again."""
        new = len(self._known.values) - self._modelled
        return new >= max(_LEAST_NEW, _NEW_SHARE * self._modelled)

    def _awaits_process(self) -> bool:
        """Whether a model fitted in this process would delay too many slots."""
        many = self._most > _FEW_SLOTS
        return many and self._process is not None and not self._process.is_ready()

    def _can_model(self) -> bool:
        """Whether enough values are known, and all initial points are asked."""
        needed = min(_LEAST_TOLD, max(1, self._optimizer.n_initial_points_))
        told = len(self._known.values)
        asked = self._taken >= self._optimizer.n_initial_points_
        return not self._closed and asked and told >= needed and self._models_points

    def _look_ahead(self) -> int:
        times = self._taken_at
        if not times:
            return 1
        interval_s = (self._clock() - times[0]) / len(times)
        return look_ahead(cost_s=self._cost_s, interval_s=interval_s, most=self._most)
