"""The fits of a call of ``evaluate_candidates``, and its best candidate."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Best:
    """A complete candidate and its score, averaged over its splits."""

    score: float
    candidate: int
    params: Mapping[str, Any]


@dataclass(slots=True)
class Call:
    """A call of ``evaluate_candidates``; fits may be added before it is announced.

    A fit takes nine bytes, so that there may be millions.
    """

    n_candidates: int | None = None
    n_splits: int | None = None
    resets_best: bool = True
    still_open: bool = False
    fits_done: int = 0
    best: Best | None = None
    params: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    dropped: set[int] = field(default_factory=set)
    _scores: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))
    _done: NDArray[np.bool_] = field(default_factory=lambda: np.empty((0, 0), bool))

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

    def means(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Average the scores of each candidate.

        Returns
        -------
        n_fits : ndarray of int
            Finished fits of each candidate.
        means : ndarray of float
            Over the finished fits; NaN if there are none, or if one has no score.
        """
        n_fits = self._done.sum(axis=1)
        with np.errstate(all="ignore"):
            means = np.where(self._done, self._scores, 0.0).sum(axis=1) / n_fits
        return n_fits, means

    def scores_of(self, candidate: int) -> NDArray[np.float64]:
        """Return the scores of a candidate's finished fits, by split."""
        scores: NDArray[np.float64] = self._scores[candidate][self._done[candidate]]
        return scores

    def _spared(self) -> list[int]:
        """Return how many fits of each dropped candidate never begin."""
        n_splits, rows = self.n_splits or 0, len(self._done)
        return [
            n_splits - (int(self._done[one].sum()) if one < rows else 0)
            for one in self.dropped
        ]

    def announce(
        self,
        n_candidates: int | None,
        n_splits: int,
        *,
        resets_best: bool,
        still_open: bool = False,
    ) -> None:
        """Set the size of the call."""
        self.n_candidates, self.n_splits = n_candidates, n_splits
        self.resets_best, self.still_open = resets_best, still_open
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
        self._make_room(candidate, split)
        if self._done[candidate, split]:
            return False
        self._done[candidate, split] = True
        self._scores[candidate, split] = math.nan if score is None else score
        self.params[candidate] = params
        self.fits_done += 1
        self._settle(candidate)
        return True

    def add_many(
        self,
        candidates: NDArray[np.int64],
        splits: NDArray[np.int64],
        scores: NDArray[np.float64],
        params_of: Callable[[int], Mapping[str, Any]],
    ) -> NDArray[np.bool_]:
        """Add fits of a call that was announced; return which of them are new.

        Parameters
        ----------
        candidates, splits : ndarray of int
        scores : ndarray of float
            NaN if there is none.
        params_of : callable
            Returns the parameters of a candidate.
        """
        if not len(candidates):
            return np.empty(0, dtype=bool)
        self._make_room(int(candidates.max()), int(splits.max()))
        places = candidates * self._done.shape[1] + splits
        new = np.zeros(len(places), dtype=bool)
        new[np.unique(places, return_index=True)[1]] = True  # the first of each fit
        new &= ~self._done[candidates, splits]
        candidates, splits = candidates[new], splits[new]
        self._done[candidates, splits] = True
        self._scores[candidates, splits] = scores[new]
        self.fits_done += len(candidates)
        self._settle_many(np.unique(candidates), params_of)
        return new

    def _make_room(self, candidate: int, split: int) -> None:
        rows, columns = self._done.shape
        if candidate < rows and split < columns:
            return
        known = self.n_candidates or 0, self.n_splits or 0
        rows = max(rows, known[0] if candidate < known[0] else 2 * candidate + 1)
        columns = max(columns, known[1], split + 1)
        scores, done = np.full((rows, columns), np.nan), np.zeros((rows, columns), bool)
        kept = tuple(slice(size) for size in self._done.shape)
        scores[kept], done[kept] = self._scores, self._done
        self._scores, self._done = scores, done

    def _settle(self, candidate: int) -> None:
        """Compare a candidate with the best so far, once it is complete."""
        if self.n_splits is None or self._done[candidate].sum() < self.n_splits:
            return
        params = self.params.pop(candidate)
        self._compare(candidate, self._scores[candidate][self._done[candidate]], params)

    def _compare(
        self, candidate: int, scores: NDArray[np.float64], params: Mapping[str, Any]
    ) -> None:
        # As NumPy averages a row of cv_results_, since the last digit decides ties.
        with np.errstate(all="ignore"):
            mean = float(np.add.reduce(scores)) / len(scores)
        best = self.best
        if not math.isnan(mean) and (
            best is None or (-mean, candidate) < (-best.score, best.candidate)
        ):
            self.best = Best(mean, candidate, params)

    def _settle_many(
        self,
        candidates: NDArray[np.int64],
        params_of: Callable[[int], Mapping[str, Any]],
    ) -> None:
        """Compare the complete ones of some candidates with the best so far."""
        if self.n_splits is None:
            return
        complete = candidates[self._done[candidates].sum(axis=1) >= self.n_splits]
        for candidate in complete.tolist() if self.params else ():
            self.params.pop(candidate, None)
        with np.errstate(all="ignore"):
            means = self._scores[complete, : self.n_splits].mean(axis=1)
        if np.isnan(means).all():
            return
        highest = float(np.nanmax(means))
        # A mean over many rows may differ from that of one row in its last digit.
        rounding = 1e-9 * abs(highest) if math.isfinite(highest) else 0.0
        for candidate in complete[means >= highest - rounding].tolist():
            self._compare(
                candidate,
                self._scores[candidate, : self.n_splits],
                params_of(candidate),
            )
