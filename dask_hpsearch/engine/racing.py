"""Racing: candidates that are beaten on their first splits are dropped.

Pure: no clock, no cluster. `Race` decides which candidates are dropped; `RaceOrder`, which of
them runs next, so that those decisions come early.
"""

from __future__ import annotations

import bisect
import heapq
import math
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from dask_hpsearch.exceptions import HPSearchError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping


class RaceOver(HPSearchError):  # noqa: N818 (not an error: it leaves a call of scikit-learn)
    """Ends an ``evaluate_candidates`` call whose remaining candidates are dropped."""


class _Dropped:
    """The type of `DROPPED`."""

    def __repr__(self) -> str:
        return "DROPPED"


# Standard errors by which a candidate is behind the best one if it is beaten.
MOST_ERRORS = 4.5
_LEAST_DEGREES = 8  # of freedom, of the estimate of noise
_MOST_ROWS = 100
# Delivered in place of the result of a fit that never begins.
DROPPED: Final = _Dropped()


def mean_score(scores: Mapping[int, float]) -> float:
    """Average a candidate's scores as ``mean_test_score`` does, to the last digit.

    Parameters
    ----------
    scores : mapping of int to float
        Scores by split; NaN is a failed fit.
    """
    ordered = [score for _, score in sorted(scores.items())]
    return float(np.add.reduce(np.array(ordered, dtype=float))) / len(ordered)


class SplitEffects:
    """How much easier each split is than the others, and how scores vary beyond that.

    A score is the sum of three parts: its candidate's mean, an effect of its split, and
    noise. They are estimated from the better half of the complete candidates, as in a
    two-way analysis of variance: bad ones may be much noisier. Candidates with the same
    scores count once: they may be the same model.

    Parameters
    ----------
    n_splits : int
    """

    def __init__(self, n_splits: int) -> None:
        self._n_splits = n_splits
        self._least = 1 + math.ceil(_LEAST_DEGREES / max(n_splits - 1, 1))
        self._rows: list[tuple[float, tuple[float, ...]]] = []  # the best first
        self._effects = [0.0] * n_splits
        self._variance = math.inf

    def add(self, scores: Mapping[int, float]) -> None:
        """Take in the scores of a complete candidate, by split."""
        row = tuple(scores[split] for split in range(self._n_splits))
        entry = -mean_score(scores), row
        place = bisect.bisect_left(self._rows, entry)
        if not all(map(math.isfinite, row)) or self._rows[place : place + 1] == [entry]:
            return
        self._rows.insert(place, entry)
        half = max(self._least, math.ceil(len(self._rows) / 2))
        table = np.array([one for _, one in self._rows[: min(half, _MOST_ROWS)]])
        deviations = table - table.mean(axis=1, keepdims=True)
        effects = deviations.mean(axis=0)
        self._effects = effects.tolist()
        if len(table) >= self._least:
            degrees = (len(table) - 1) * max(self._n_splits - 1, 1)
            self._variance = float(((deviations - effects) ** 2).sum()) / degrees

    def expected_mean(self, scores: Mapping[int, float]) -> float:
        """Return the mean over all splits that some scores, by split, let expect."""
        parts = (score - self._effects[split] for split, score in scores.items())
        return sum(parts) / len(scores)

    def error(self, n_known: int) -> float:
        """Return the standard error of the mean that a number of scores let expect.

        Infinity if too few candidates are known.
        """
        return math.sqrt(self._variance * (1 / n_known - 1 / self._n_splits))


class Race:
    """Decides which candidates of a call are dropped.

    A candidate is beaten if the mean that its finished splits let expect (see
    `SplitEffects`) is below that of the best complete candidate by more than
    `MOST_ERRORS` of its standard errors. As in scikit-learn, the mean of a candidate with
    a failed fit is NaN, which is worse than any other, unless ``error_score`` is a
    number. Nothing is dropped before a candidate is complete, and a complete one never
    is.

    Parameters
    ----------
    n_splits : int
    n_candidates : int or None
        None: more come.
    dropped : collection of int
        Candidates that an earlier driver of the run has dropped.

    Attributes
    ----------
    dropped : set of int
        Candidates of which no further fit begins.
    n_complete : int
    """

    def __init__(
        self,
        n_splits: int,
        *,
        n_candidates: int | None = None,
        dropped: Collection[int] = (),
    ) -> None:
        self.dropped = set(dropped)
        self.n_complete = 0
        self._n_splits = n_splits
        self._n_candidates = n_candidates
        self._effects = SplitEffects(n_splits)
        self._best: tuple[float, int] | None = None  # the least: its mean is negated
        self._leader: int | None = None  # of those that have begun
        self._scores: dict[int, dict[int, float]] = {}
        self._open: set[int] = set()  # with some results, and not dropped
        self._to_check: set[int] = set()
        self._n_incomplete_dropped = len(self.dropped)

    def add(self, candidate: int, split: int, score: float | None) -> None:
        """Take in the score of a fit; None or NaN if it has failed."""
        scores = self._scores.setdefault(candidate, {})
        scores[split] = math.nan if score is None else score
        if len(scores) == self._n_splits:
            self.n_complete += 1
            self._n_incomplete_dropped -= candidate in self.dropped
            self._open.discard(candidate)
            self._take_complete(candidate)
        elif candidate not in self.dropped:
            self._open.add(candidate)
            self._to_check.add(candidate)
            if self._best is None:
                self._find_leader(candidate)

    def beaten(self) -> list[int]:
        """Drop the candidates that are beaten now; return them."""
        to_check, self._to_check = self._to_check & self._open, set()
        if self._best is None:
            return []
        found = sorted(filter(self._is_beaten, to_check))
        self.dropped.update(found)
        self._open.difference_update(found)
        self._n_incomplete_dropped += len(found)
        return found

    def leads(self, candidate: int) -> bool:
        """Whether a candidate that has begun may become the best complete one."""
        if self._best is None:
            return candidate == self._leader
        return self.expected_mean(candidate) > -self._best[0]

    def expected_mean(self, candidate: int) -> float:
        """Return the mean that a candidate's finished splits let expect.

        Negative infinity if a fit has failed, or none has finished.
        """
        scores = self._scores.get(candidate)
        mean = self._effects.expected_mean(scores) if scores else math.nan
        return -math.inf if math.isnan(mean) else mean

    @property
    def is_over(self) -> bool:
        """Whether each candidate is complete or dropped, and at least one is incomplete."""
        settled = self.n_complete + self._n_incomplete_dropped
        return self._n_incomplete_dropped > 0 and settled == self._n_candidates

    def _is_beaten(self, candidate: int) -> bool:
        expected = self.expected_mean(candidate)
        if self._best is None or expected == -math.inf:
            return self._best is not None
        margin = MOST_ERRORS * self._effects.error(len(self._scores[candidate]))
        return expected < -self._best[0] - margin

    def _find_leader(self, changed: int) -> None:
        """Find the best of those that have begun, while none is complete."""
        mean = self.expected_mean
        if changed == self._leader:  # it may have lost its lead
            self._leader = max(self._open, key=lambda one: (mean(one), -one))
        elif self._leader is None or mean(changed) > mean(self._leader):
            self._leader = changed

    def _take_complete(self, candidate: int) -> None:
        scores = self._scores[candidate]
        mean = mean_score(scores)
        if math.isnan(mean):
            return
        self._effects.add(scores)
        # Of equal candidates the first counts, as in scikit-learn.
        self._best = min(self._best or (-mean, candidate), (-mean, candidate))
        self._to_check |= self._open


class Racer(Protocol):
    """A candidate that waits, as `RaceOrder` sees it."""

    @property
    def ordinal(self) -> int:
        """The candidate."""

    @property
    def place(self) -> int:
        """When it came, among the candidates."""

    @property
    def waiting(self) -> list[Any]:
        """Its waiting fits."""

    @property
    def n_running(self) -> int:
        """How many of its fits have begun and not ended."""

    @property
    def begun(self) -> bool:
        """Whether a fit of it has begun."""


class RaceOrder:
    """Decides which candidate runs its next split.

    A candidate runs one split at a time while others can use the slots. First come those
    that may become the best complete one, by their mean so far, since that one decides on
    the others; then candidates that have not begun; then the others, the best first. A
    candidate with a running fit begins another one only if nothing else waits.

    Parameters
    ----------
    race : Race
    """

    def __init__(self, race: Race) -> None:
        self.race = race
        self._new: deque[Racer] = deque()
        self._changed: list[Racer] = []
        self._begun: list[tuple[float, int, Racer]] = []  # a heap
        self._keys: dict[int, float] = {}  # the last ones in it, by place
        self._n_complete = 0

    def note(self, racer: Racer) -> None:
        """Note that a candidate has come, that a fit of it has ended, or waits again."""
        if racer.begun:
            self._changed.append(racer)
        else:
            self._new.append(racer)

    def clear(self) -> None:
        """Forget all candidates."""
        self._new.clear()
        self._changed.clear()
        self._begun.clear()

    def first_new(self) -> Any:
        """Return the first candidate that has not begun; None if there is none."""
        while self._new and (self._new[0].begun or not self._new[0].waiting):
            self._new.popleft()
        return self._new[0] if self._new else None

    def best_begun(self) -> Any:
        """Return the best candidate without a running fit that has begun; None if none."""
        if self._n_complete != self.race.n_complete:  # others are expected now
            self._n_complete = self.race.n_complete
            self._changed += [racer for _, _, racer in self._begun]
            self._begun.clear()
        for racer in dict.fromkeys(self._changed):
            if _is_free(racer):
                key = self._keys[racer.place] = -self.race.expected_mean(racer.ordinal)
                heapq.heappush(self._begun, (key, racer.place, racer))
        self._changed.clear()
        while self._begun:
            key, place, racer = self._begun[0]
            if _is_free(racer) and key == self._keys[place]:
                return racer
            heapq.heappop(self._begun)
        return None

    def best_of(self, racers: Iterable[Any]) -> Any:
        """Return the best of some candidates that have begun."""
        mean = self.race.expected_mean
        return min(racers, key=lambda one: (-mean(one.ordinal), one.place))


def _is_free(racer: Racer) -> bool:
    return bool(racer.waiting) and not racer.n_running
