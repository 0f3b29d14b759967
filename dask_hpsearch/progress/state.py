"""The progress of a search as numbers; no display."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from dask_hpsearch.progress.calls import Best, Call
from dask_hpsearch.progress.training import TrainedModels

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

RATE_WINDOW_S = 30.0
#: The window widens to hold this many fits, so that long fits have a rate too.
RATE_FITS = 16


@dataclass(frozen=True, slots=True)
class ProgressSnapshot:
    """The progress of a search at one moment.

    Attributes
    ----------
    fits_done
        Fits that have ended, including failed ones.
    fits_total
        Fits that are known so far: a halving search announces its rungs one by one.
    fits_failed
        Fits that ended without a score.
    rate
        Recent fits per second; of the whole search once it has ended.
    eta
        Seconds until the known fits are done; None if unknown.
    elapsed
        Seconds since the first fits were announced.
    best_score, best_params
        Mean score and parameters of the best complete candidate; None if there is none
        yet. They are those of the results once the search has ended.
    workers, slots, running
        Dask workers, their slots, and the fits that run in these.
    ended
        Whether the search has ended.
    reason
        Why it was stopped early; None if it was not.
    cost_usd
        US dollars so far, by list prices; None if the cluster's prices are not known.
    problem
        The problem of the cluster; empty if there is none.
    dropped
        Candidates that a race has dropped; their fits that never begin are not among
        ``fits_total``.
    """

    fits_done: int = 0
    fits_total: int = 0
    fits_failed: int = 0
    rate: float = 0.0
    eta: float | None = None
    elapsed: float = 0.0
    best_score: float | None = None
    best_params: Mapping[str, Any] | None = None
    workers: int = 0
    slots: int = 0
    running: int = 0
    ended: bool = False
    reason: str | None = None
    cost_usd: float | None = None
    problem: str = ""
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Fits:
    """Many fits that have finished, as arrays.

    Attributes
    ----------
    candidates, splits
        Ordinals of the fits.
    scores
        Higher is better; NaN if the fit failed or its score is unknown.
    failed
        Which of them ended without a score.
    times
        When they ended, by the clock of the progress.
    """

    candidates: NDArray[np.int64]
    splits: NDArray[np.int64]
    scores: NDArray[np.float64]
    failed: NDArray[np.bool_]
    times: NDArray[np.float64]


class SearchProgress:
    """Count the fits that a search reports, in any order and from any thread.

    Parameters
    ----------
    clock
        Seconds that never run backwards.

    Attributes
    ----------
    hint
        The next step if the search ends early; "" if there is none.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.hint = ""
        self._clock = clock
        self._lock = Lock()
        self._calls: dict[int, Call] = {}
        self._brackets: dict[int, TrainedModels] = {}
        self._fits_done = 0
        self._fits_failed = 0
        self._finish_times: deque[float] = deque()
        self._started_at: float | None = None
        self._ended_at: float | None = None
        self._reason: str | None = None
        self._chosen: tuple[float | None, Mapping[str, Any] | None] | None = None
        self._workers = self._slots = self._running = 0
        self._cost_usd: float | None = None
        self._problem = ""

    def call_started(
        self,
        call: int,
        *,
        n_candidates: int | None,
        n_splits: int,
        resets_best: bool = True,
        still_open: bool = False,
    ) -> None:
        """Announce the fits of one call of ``evaluate_candidates``.

        Parameters
        ----------
        call
            Its ordinal.
        n_candidates
            None if that is not known in advance.
        n_splits
            Fits of each candidate.
        resets_best
            Whether scores of earlier calls, such as earlier rungs of a halving search,
            cannot be compared with those of this call.
        still_open
            Whether its candidates come one by one, with those of other calls between them:
            earlier calls count until it has a complete candidate.
        """
        with self._lock:
            self._start()
            self._call(call).announce(
                n_candidates, n_splits, resets_best=resets_best, still_open=still_open
            )

    def fit_finished(
        self,
        call: int,
        candidate: int,
        split: int,
        *,
        params: Mapping[str, Any],
        score: float | None,
        fit_time: float,  # noqa: ARG002 (part of the report; not shown yet)
        failed: bool | None = None,
    ) -> None:
        """Count a fit, unless it was counted before.

        Parameters
        ----------
        call, candidate, split
            Ordinals of the fit.
        params
            Parameters of the candidate.
        score
            Higher is better; None or NaN if the fit failed or its score is unknown.
        fit_time
            Seconds.
        failed
            None: a fit without a score has failed.
        """
        known_score = None if score is None or math.isnan(score) else score
        with self._lock:
            self._start()
            if not self._call(call).add(candidate, split, known_score, params):
                return
            self._fits_done += 1
            self._fits_failed += known_score is None if failed is None else failed
            self._finish_times.append(self._clock())
            self._forget_old_times()

    def candidate_dropped(self, call: int, candidate: int) -> None:
        """Note that no further fit of a candidate begins."""
        with self._lock:
            self._call(call).dropped.add(candidate)

    def fits_finished(
        self,
        call: int,
        fits: Fits,
        params_of: Callable[[int], Mapping[str, Any]],
    ) -> None:
        """Count many fits of a call that has started, each unless it was counted before.

        Parameters
        ----------
        call
            Its ordinal.
        fits
        params_of
            Returns the parameters of a candidate.
        """
        with self._lock:
            new = self._call(call).add_many(
                fits.candidates, fits.splits, fits.scores, params_of
            )
            self._fits_done += int(new.sum())
            self._fits_failed += int((new & fits.failed).sum())
            self._add_times(np.sort(fits.times[new]).tolist())
            self._forget_old_times()

    def training_started(self, bracket: int, *, n_models: int) -> None:
        """Announce the models of a bracket that ``partial_fit`` trains."""
        with self._lock:
            self._start()
            self._bracket(bracket).n_models = n_models

    def calls_wanted(self, bracket: int, totals: Mapping[int, int]) -> None:
        """Announce how many calls of ``partial_fit`` some models are to have in all."""
        with self._lock:
            self._bracket(bracket).want(totals)

    def more_calls_wanted(self, bracket: int, calls: Mapping[int, int]) -> None:
        """Announce further calls of ``partial_fit`` by model."""
        with self._lock:
            self._bracket(bracket).want_more(calls)

    def model_trained(
        self,
        bracket: int,
        model: int,
        calls: int,
        *,
        params: Mapping[str, Any],
        score: float | None,
    ) -> None:
        """Count the calls of ``partial_fit`` that have trained a model.

        Parameters
        ----------
        bracket, model
            Ordinals of the model.
        calls
            All its calls so far, those that were counted before included.
        params
            Its parameters.
        score
            Higher is better; None if it was not scored.
        """
        with self._lock:
            self._start()
            known = self._bracket(bracket)
            new = known.add(model, calls, score=score, params=params)
            self._fits_done += new
            self._add_times([self._clock()] * new)
            self._forget_old_times()

    def slots_changed(self, *, workers: int, slots: int, running: int) -> None:
        """Set the size of the cluster, and how many of its slots are busy."""
        with self._lock:
            self._workers, self._slots, self._running = workers, slots, running

    def spent(self, usd: float) -> None:
        """Set the cost of the search so far, in US dollars."""
        with self._lock:
            self._cost_usd = usd

    def chosen(self, score: float | None, params: Mapping[str, Any] | None) -> None:
        """Set the best candidate of the results.

        Parameters
        ----------
        score
            Mean score; None if several scores count.
        params
            None if there is no best candidate.
        """
        with self._lock:
            self._chosen = score, params

    def problem_changed(self, text: str) -> None:
        """Set the problem of the cluster; empty if there is none."""
        with self._lock:
            self._problem = text

    def ended(self, reason: str | None) -> None:
        """Stop the clock; ``reason`` is None unless the search was stopped early."""
        with self._lock:
            self._start()
            self._ended_at = self._clock()
            self._reason = reason
            self._running = 0
            self._problem = ""

    def snapshot(self) -> ProgressSnapshot:
        """Return the current progress."""
        with self._lock:
            total = sum(call.fits_known for call in self._calls.values())
            total += sum(one.calls_known for one in self._brackets.values())
            rate, elapsed = self._rate(), self._elapsed()
            best_score, best_params = self._chosen or self._best_so_far()
            return ProgressSnapshot(
                fits_done=self._fits_done,
                fits_total=total,
                fits_failed=self._fits_failed,
                rate=rate,
                eta=self._eta(total, rate),
                elapsed=elapsed,
                best_score=best_score,
                best_params=best_params,
                workers=self._workers,
                slots=self._slots,
                running=self._running,
                ended=self._ended_at is not None,
                reason=self._reason,
                cost_usd=self._cost_usd,
                problem=self._problem,
                dropped=sum(call.n_dropped for call in self._calls.values()),
            )

    def _start(self) -> None:
        if self._started_at is None:
            self._started_at = self._clock()

    def _call(self, ordinal: int) -> Call:
        return self._calls.setdefault(ordinal, Call())

    def _bracket(self, ordinal: int) -> TrainedModels:
        return self._brackets.setdefault(ordinal, TrainedModels())

    def _now(self) -> float:
        return self._clock() if self._ended_at is None else self._ended_at

    def _elapsed(self) -> float:
        return 0.0 if self._started_at is None else self._now() - self._started_at

    def _add_times(self, times: list[float]) -> None:
        known = self._finish_times
        if known and times and times[0] < known[-1]:  # of fits that are read late
            self._finish_times = deque(sorted([*known, *times]))
        else:
            known.extend(times)

    def _forget_old_times(self) -> None:
        times, since = self._finish_times, self._now() - RATE_WINDOW_S
        # One more than are counted: the window starts when that fit ended.
        while len(times) > RATE_FITS + 1 and times[1] <= since:
            times.popleft()

    def _rate(self) -> float:
        elapsed = self._elapsed()
        if self._ended_at is not None or len(self._finish_times) == self._fits_done:
            # No fit is too old to count: the window starts with the search.
            n_fits, window_s = self._fits_done, elapsed
        else:
            self._forget_old_times()
            n_fits = len(self._finish_times) - 1
            window_s = self._now() - self._finish_times[0]
        return n_fits / window_s if window_s > 0 else 0.0

    def _eta(self, total: int, rate: float) -> float | None:
        unknown = any(call.n_candidates is None for call in self._calls.values())
        if self._ended_at is not None or unknown or rate <= 0:
            return None
        return (total - self._fits_done) / rate

    def _best_so_far(self) -> tuple[float | None, Mapping[str, Any] | None]:
        best = self._best()
        return (None, None) if best is None else (best.score, best.params)

    def _best(self) -> Best | None:
        """Find the best complete candidate of the calls that compare with the last.

        Of equal candidates the first counts, as in scikit-learn.
        """
        best: Best | None = None
        for bracket in self._brackets.values():
            if bracket.best is not None and (
                best is None or bracket.best.score > best.score
            ):
                best = bracket.best
        for ordinal in self._comparing():
            call = self._calls[ordinal]
            if call.best is not None and (
                best is None or call.best.score >= best.score
            ):
                best = call.best
        return best

    def _comparing(self) -> list[int]:
        """Return the calls whose scores compare with those of the last, last first."""
        found = any(one.best is not None for one in self._brackets.values())
        ordinals = []
        for ordinal in sorted(self._calls, reverse=True):
            call = self._calls[ordinal]
            ordinals.append(ordinal)
            found = found or call.best is not None
            if call.resets_best and (found or not call.still_open):
                break
        return ordinals
