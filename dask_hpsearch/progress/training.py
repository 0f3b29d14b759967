"""The models of a bracket, as far as calls of ``partial_fit`` have trained them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dask_hpsearch.progress.calls import Best

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(slots=True)
class TrainedModels:
    """The models of a bracket; each call of ``partial_fit`` counts as a fit.

    Attributes
    ----------
    n_models : int
    done : dict of int to int
        Calls that each model has had.
    scored : dict of int to Best
        The models that were scored, with their last score.
    """

    n_models: int = 0
    done: dict[int, int] = field(default_factory=dict)
    _wanted: dict[int, int] = field(default_factory=dict)
    scored: dict[int, Best] = field(default_factory=dict)

    @property
    def calls_known(self) -> int:
        """Number of calls that are wanted so far: at least one for each model."""
        models = range(max([self.n_models, *(one + 1 for one in self.done)]))
        return sum(
            max(1, self._wanted.get(one, 1), self.done.get(one, 0)) for one in models
        )

    def want(self, totals: Mapping[int, int]) -> None:
        """Set how many calls some models are to have in all."""
        for model, calls in totals.items():
            self._wanted[model] = max(calls, self._wanted.get(model, 0))

    def want_more(self, calls: Mapping[int, int]) -> None:
        """Set how many further calls some models are to have."""
        done = self.done
        self.want({model: done.get(model, 0) + more for model, more in calls.items()})

    def add(
        self, model: int, calls: int, *, score: float | None, params: Mapping[str, Any]
    ) -> int:
        """Set how many calls a model has had, and its score; return how many are new."""
        new = calls - self.done.get(model, 0)
        self.done[model] = max(calls, self.done.get(model, 0))
        if score is not None and not math.isnan(score) and new > 0:
            self.scored[model] = Best(score, model, params)
        return max(new, 0)

    @property
    def best(self) -> Best | None:
        """The model with the best last score; of equal ones the first."""
        return min(
            self.scored.values(),
            key=lambda one: (-one.score, one.candidate),
            default=None,
        )
