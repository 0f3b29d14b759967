"""Trains the candidates of a halving search as slots become free.

`RungLadder` decides which candidate goes on; its fits run where `Fits` says.
"""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from dask_hpsearch.strategies.explorer import wanted_fits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dask_hpsearch.strategies.halving.ladder import Job, RungLadder

_LOOK_EVERY_S = 0.5
_SMOOTHING = 0.2


class Fits(Protocol):
    """Runs the fits of jobs."""

    @property
    def slots(self) -> int:
        """Number of slots now."""

    def begin(self, job: Job) -> None:
        """Note that a job was decided, before its fits begin."""

    def submit(self, job: Job, done: Callable[[int, Any], None]) -> None:
        """Run a job's fits.

        ``done`` is called once for each split, in any thread, with the split and its
        result or an error.
        """


class LeadingScore:
    """The score by which candidates are compared: the mean over the splits.

    Parameters
    ----------
    refit : object
        The search's ``refit``: which of several scores counts.
    """

    def __init__(self, refit: Any) -> None:
        self._refit = refit

    def __call__(self, results: Sequence[Mapping[str, Any]]) -> float:
        """Return the mean test score of a candidate; NaN if a fit has none.

        Raises
        ------
        ValueError
            If there are several scores, and ``refit`` names none of them.
        """
        scores = [self._score_of(result["test_scores"]) for result in results]
        # The same mean as scikit-learn's, to the last digit.
        return float(np.average(np.array(scores, dtype=np.float64)))

    def _score_of(self, scores: Any) -> float:
        if not isinstance(scores, dict):
            return float(scores)
        if len(scores) == 1:
            return float(next(iter(scores.values())))
        if self._refit not in scores:
            msg = (
                "AsyncHalvingSearchCV needs one score to compare candidates by, and the "
                f"search has several ({', '.join(map(repr, scores))}): name one of them, "
                f"refit=..., got refit={self._refit!r}"
            )
            raise ValueError(msg)
        return float(scores[self._refit])


class Exploration:
    """Runs the jobs of a ladder until there is none left.

    Parameters
    ----------
    ladder : RungLadder
    fits : Fits
    n_splits : int
    score : callable
        Returns a candidate's score from the results of its splits, in their order.
    """

    def __init__(
        self,
        ladder: RungLadder,
        fits: Fits,
        *,
        n_splits: int,
        score: Callable[[Sequence[Mapping[str, Any]]], float],
    ) -> None:
        self._ladder = ladder
        self._fits = fits
        self._n_splits = n_splits
        self._score = score
        self._events: queue.SimpleQueue[tuple[Job, int, Any]] = queue.SimpleQueue()
        self._results: dict[Job, dict[int, dict[str, Any]]] = {}
        self._n_submitted = 0
        self._mean_s: float | None = None

    def run(self) -> None:
        """Run all jobs.

        Raises
        ------
        Exception
            Raised by a fit.
        """
        self._fill()
        while self._results:
            self._take_events()
            self._fill()

    def _fill(self) -> None:
        """Begin jobs while slots are free: a job is decided as late as possible."""
        while True:
            slots = self._fits.slots
            wanted = wanted_fits(slots, self._mean_s)
            most = 1 if slots <= 1 else wanted
            if self._n_submitted >= wanted or self._ladder.n_running >= most:
                return
            job = self._ladder.next_job()
            if job is None:
                return
            self._results[job] = {}
            self._n_submitted += self._n_splits
            self._fits.begin(job)
            self._fits.submit(job, self._taker(job))

    def _taker(self, job: Job) -> Callable[[int, Any], None]:
        return lambda split, result: self._events.put((job, split, result))

    def _take_events(self) -> None:
        """Wait for a result, and take every one in the queue."""
        try:
            event = self._events.get(timeout=_LOOK_EVERY_S)
            while True:
                self._take(*event)
                event = self._events.get_nowait()
        except queue.Empty:
            return

    def _take(self, job: Job, split: int, result: Any) -> None:
        self._n_submitted -= 1
        if isinstance(result, BaseException):
            raise result
        seconds = sum(result.get(key) or 0.0 for key in ("fit_time", "score_time"))
        mean_s = seconds if self._mean_s is None else self._mean_s
        self._mean_s = mean_s + _SMOOTHING * (seconds - mean_s)
        results = self._results[job]
        results[split] = result
        if len(results) == self._n_splits:
            del self._results[job]
            ordered = [results[each] for each in range(self._n_splits)]
            self._ladder.finished(job, self._score(ordered))
