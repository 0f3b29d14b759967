"""Asks a sampler of Optuna for the points of a space, as `bayes.asker` asks skopt's models."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

from dask_hpsearch.strategies.optuna.dimensions import Dimensions
from dask_hpsearch.strategies.optuna.study import StudyTrials

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Point = list[Any]


class OptunaAsker:
    """Asks for points of one space.

    Parameters
    ----------
    names : sequence of str
        Of the parameters, in the order of a point's values.
    dimensions : sequence of skopt.space.Dimension
    sampler : optuna.samplers.BaseSampler
        Its own.

    Attributes
    ----------
    exhausted : bool
        Whether the sampler has stopped the study, as `GridSampler` does after its last point.
    """

    def __init__(
        self, names: Sequence[str], dimensions: Sequence[Any], sampler: Any
    ) -> None:
        self._dimensions = Dimensions(names, dimensions)
        self._trials = StudyTrials(_study_with(sampler), self._dimensions.distributions)
        self.exhausted = False
        self._taken: Any = None
        self._pending: list[tuple[Point, Any]] = []
        self._n_asked = 0

    def start(self, ready: Callable[[], None]) -> None:
        """Do nothing: a point is made when it is taken."""

    def take(self, *, wait: bool, most: int) -> Point | None:
        """Return a point to evaluate; the caller then calls `note_asked`."""
        del wait, most
        self._taken = self._trials.ask(self._n_asked)
        return self._dimensions.point_of(self._taken.params)

    def note_asked(self, point: Point) -> None:
        """Count a point as pending: the one that was taken, or one of a journal."""
        trial, self._taken = self._taken, None
        if trial is None:
            params = self._dimensions.params_of(point)
            trial = self._trials.restore(self._n_asked, params)
        self._n_asked += 1
        self._pending.append((point, trial))

    def told(self, point: Point, value: float) -> None:
        """Tell a point's value (lower is better, NaN if it failed)."""
        (trial,) = (one for known, one in self._pending if known is point)
        self._pending = [one for one in self._pending if one[0] is not point]
        state = "COMPLETE" if math.isfinite(value) else "FAIL"
        with self._trials.optimizing():
            self._trials.tell(trial, -value if math.isfinite(value) else None, state)
        self.exhausted = self.exhausted or self._trials.is_stopped

    def models(self) -> list[Any]:
        """Return no models: Optuna keeps its own."""
        return []

    def model_at_last(self) -> None:
        """Do nothing, as there are no models."""

    def next_point(self) -> Point | None:
        """Return None, as there are no models."""
        return None

    def close(self) -> None:
        """Do nothing."""


def _study_with(sampler: Any) -> Any:
    """Make a study in memory, without the line that Optuna logs about it."""
    import optuna

    logger = logging.getLogger("optuna.storages._in_memory")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        return optuna.create_study(
            direction="maximize", sampler=sampler, pruner=optuna.pruners.NopPruner()
        )
    finally:
        logger.setLevel(level)
