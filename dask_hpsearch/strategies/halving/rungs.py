"""The rungs of a halving search: their number, resources, candidates and splits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from sklearn.utils import resample

N_SAMPLES = "n_samples"
PARTIAL_FIT = "partial_fit"


def n_rungs(
    n_candidates: int, *, min_resources: int, max_resources: int, factor: float
) -> int:
    """Return how many rungs a search has, as scikit-learn's halving counts iterations."""
    required = 1 + _floor_log(n_candidates, factor)
    possible = 1 + _floor_log(max_resources // min_resources, factor)
    return min(required, possible)


def exhausting_min_resources(
    n_candidates: int, *, min_resources: int, max_resources: int, factor: float
) -> int:
    """Return the resources of the lowest rung with which the highest has the most."""
    last = _floor_log(n_candidates, factor)
    return max(min_resources, int(max_resources // factor**last))


def rung_resources(
    n_rungs: int, *, min_resources: int, max_resources: int, factor: float
) -> list[int]:
    """Return the resources of each rung, lowest first."""
    return [
        min(int(factor**rung * min_resources), max_resources) for rung in range(n_rungs)
    ]


def _floor_log(value: float, base: float) -> int:
    # As scikit-learn rounds it.
    return math.floor(math.log(value, base))


@dataclass(frozen=True, slots=True)
class Rungs:
    """The rungs of one search.

    Attributes
    ----------
    candidates : list of dict
        As they were drawn.
    resources : list of int
        Of each rung, lowest first.
    resource : str
        ``"n_samples"``, a parameter's name or ``"partial_fit"``.
    factor : float
    n_samples : int
        Of all data.
    seed : object
        Seed of the subsamples.
    """

    candidates: list[dict[str, Any]]
    resources: list[int]
    resource: str
    factor: float
    n_samples: int
    seed: Any

    @property
    def is_parameter(self) -> bool:
        """Whether the resource is a parameter of the estimator."""
        return self.resource not in {N_SAMPLES, PARTIAL_FIT}

    def params(self, candidate: int, rung: int) -> dict[str, Any]:
        """Return a candidate's parameters on a rung."""
        given = self.candidates[candidate]
        if not self.is_parameter:
            return given
        return {**given, self.resource: self.resources[rung]}

    def expected(self, rung: int) -> int:
        """Return how many candidates a rung has if each promotes one in ``factor``."""
        return max(1, int(len(self.candidates) / self.factor**rung))

    def columns(self, rung: int, n_candidates: int) -> dict[str, list[int]]:
        """Return what is added to ``cv_results_`` for candidates of a rung."""
        return {
            "iter": [rung] * n_candidates,
            "n_resources": [self.resources[rung]] * n_candidates,
        }

    def splits(self, splits: list[tuple[Any, Any]], rung: int) -> list[tuple[Any, Any]]:
        """Return the splits of a rung, from those of all data.

        If samples are the resource, both sides of a split are subsampled as scikit-learn's
        halving does it. A smaller subsample is part of each larger one.
        """
        if self.resource != N_SAMPLES:
            return splits
        fraction = self.resources[rung] / self.n_samples
        return [
            (self._subsample(train, fraction), self._subsample(test, fraction))
            for train, test in splits
        ]

    def _subsample(self, rows: Any, fraction: float) -> Any:
        return resample(
            rows,
            replace=False,
            random_state=self.seed,
            n_samples=int(fraction * len(rows)),
        )
