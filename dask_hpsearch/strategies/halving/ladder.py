"""Decides which candidate is trained next, and on which rung: pure.

Asynchronous successive halving (ASHA): Li, Jamieson, Rostamizadeh, Gonina, Ben-tzur, Hardt,
Recht, Talwalkar, "A System for Massively Parallel Hyperparameter Tuning", arXiv 1810.05934,
algorithm 2.
"""

from __future__ import annotations

import bisect
import heapq
import math
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Job:
    """The training of a candidate with the resources of a rung.

    Attributes
    ----------
    candidate : int
        Its ordinal; candidates enter the lowest rung in this order.
    rung : int
        0 is the lowest.
    """

    candidate: int
    rung: int


@dataclass(slots=True)
class _Rung:
    """The candidates of a rung.

    Attributes
    ----------
    entered : dict of int to None
        All its candidates, in the order in which they came.
    ranked : list of (float, int)
        Negated score and candidate of each one that has finished and not failed, best
        first.
    waiting : list of (float, int)
        Those of them that are not promoted: a heap.
    n_finished : int
        Failed ones too.
    """

    entered: dict[int, None] = field(default_factory=dict)
    ranked: list[tuple[float, int]] = field(default_factory=list)
    waiting: list[tuple[float, int]] = field(default_factory=list)
    n_finished: int = 0

    def promotable(self, factor: float) -> int | None:
        """Return the best candidate that is in the top 1/factor and not promoted."""
        best = self.best_waiting()
        if best is None:
            return None
        rank = bisect.bisect_left(self.ranked, self.waiting[0])
        return best if rank < int(self.n_finished / factor) else None

    def best_waiting(self) -> int | None:
        """Return the best candidate that has not failed and is not promoted."""
        return self.waiting[0][1] if self.waiting else None


class RungLadder:
    """The rungs of an asynchronous halving search.

    A candidate in the top ``1 / factor`` of those that have finished on its rung is promoted
    at once, from the highest rung that allows it; if no rung does, a new candidate enters
    the lowest rung. Of equal scores the candidate with the lower ordinal counts as better.
    A failed candidate counts as finished, and is never promoted. When no candidate is left
    and nothing runs, the best candidate of the highest rung that has any goes on alone, so
    that the highest rung is not left empty.

    Parameters
    ----------
    n_candidates : int
    n_rungs : int
    factor : float
        More than 1.
    """

    def __init__(self, n_candidates: int, *, n_rungs: int, factor: float) -> None:
        self._n_candidates = n_candidates
        self._factor = factor
        self._rungs = [_Rung() for _ in range(n_rungs)]
        self._next_new = 0
        self._running: set[Job] = set()
        self._recalled: dict[Job, None] = {}

    @property
    def n_running(self) -> int:
        """Number of jobs that were begun and have not finished."""
        return len(self._running)

    def entered(self, rung: int) -> list[int]:
        """Return the candidates of a rung, in the order in which they came."""
        return list(self._rungs[rung].entered)

    def next_job(self) -> Job | None:
        """Begin a job and return it; None if there is none before another one finishes."""
        if self._recalled:
            job = next(iter(self._recalled))
            del self._recalled[job]
            return self._begin(job)
        for rung in range(len(self._rungs) - 2, -1, -1):
            candidate = self._rungs[rung].promotable(self._factor)
            if candidate is not None:
                return self._promote(candidate, rung)
        while self._next_new in self._rungs[0].entered:
            self._next_new += 1
        if self._next_new < self._n_candidates:
            return self._begin(Job(self._next_new, 0))
        return None if self._running else self._last_promotion()

    def finished(self, job: Job, score: float) -> None:
        """Take in the score of a job (higher is better, NaN: it failed)."""
        rung = self._rungs[job.rung]
        self._running.discard(job)
        self._recalled.pop(job, None)
        rung.entered.setdefault(job.candidate)
        rung.n_finished += 1
        if math.isnan(score):
            return
        entry = (-score, job.candidate)
        bisect.insort(rung.ranked, entry)
        above = self._rungs[job.rung + 1 :]
        if above and job.candidate not in above[0].entered:
            heapq.heappush(rung.waiting, entry)

    def recall(self, job: Job) -> None:
        """Take over a job that an earlier driver of the search has decided.

        All of them are recalled before a score is taken in. Those without a score are the
        next to begin.
        """
        self._rungs[job.rung].entered.setdefault(job.candidate)
        self._recalled[job] = None

    def _begin(self, job: Job) -> Job:
        self._rungs[job.rung].entered.setdefault(job.candidate)
        self._running.add(job)
        return job

    def _promote(self, candidate: int, rung: int) -> Job:
        heapq.heappop(self._rungs[rung].waiting)
        return self._begin(Job(candidate, rung + 1))

    def _last_promotion(self) -> Job | None:
        """Promote the best candidate of the highest rung that has any, once all ended."""
        for rung in range(len(self._rungs) - 2, -1, -1):
            if self._rungs[rung + 1].ranked:
                return None
            candidate = self._rungs[rung].best_waiting()
            if candidate is not None:
                return self._promote(candidate, rung)
        return None
