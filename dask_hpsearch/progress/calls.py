"""The fits of a call of ``evaluate_candidates``, and its best candidate."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Best:
    """A complete candidate and its score, averaged over its splits."""

    score: float
    candidate: int
    params: Mapping[str, Any]


@dataclass(slots=True)
class Call:
    """A call of ``evaluate_candidates``; fits may be added before it is announced."""

    n_candidates: int | None = None
    n_splits: int | None = None
    resets_best: bool = True
    fits_done: int = 0
    best: Best | None = None
    scores: dict[int, dict[int, float | None]] = field(default_factory=dict)
    params: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    dropped: set[int] = field(default_factory=set)

    @property
    def fits_known(self) -> int:
        """Number of fits that were announced and not dropped, or at least added."""
        if self.n_candidates is None or self.n_splits is None:
            return self.fits_done
        n_fits = self.n_candidates * self.n_splits
        return max(n_fits - sum(self._spared()), self.fits_done)

    @property
    def n_dropped(self) -> int:
        """Number of candidates with fits that never begin."""
        return sum(n_fits > 0 for n_fits in self._spared())

    def _spared(self) -> list[int]:
        """Return how many fits of each dropped candidate never begin."""
        n_splits = self.n_splits or 0
        return [n_splits - len(self.scores.get(one, ())) for one in self.dropped]

    def announce(
        self, n_candidates: int | None, n_splits: int, *, resets_best: bool
    ) -> None:
        """Set the size of the call."""
        self.n_candidates, self.n_splits = n_candidates, n_splits
        self.resets_best = resets_best
        for candidate in list(self.params):
            self._settle(candidate)

    def add(
        self,
        candidate: int,
        split: int,
        score: float | None,
        params: Mapping[str, Any],
    ) -> bool:
        """Add a fit; return whether it is new."""
        scores = self.scores.setdefault(candidate, {})
        if split in scores:
            return False
        scores[split] = score
        self.params[candidate] = params
        self.fits_done += 1
        self._settle(candidate)
        return True

    def _settle(self, candidate: int) -> None:
        """Compare a candidate with the best so far, once it is complete."""
        scores = self.scores[candidate]
        if self.n_splits is None or len(scores) < self.n_splits:
            return
        params = self.params.pop(candidate)
        known = [score for _, score in sorted(scores.items()) if score is not None]
        if len(known) < len(scores):
            return
        # As NumPy averages a row of cv_results_, since the last digit decides ties.
        mean = float(np.add.reduce(np.array(known, dtype=float))) / len(known)
        found = Best(mean, candidate, params)
        best = self.best
        if best is None or (-found.score, candidate) < (-best.score, best.candidate):
            self.best = found
