"""Reports each candidate of a search once it has ended, while the search runs."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from dask_hpsearch.exports.candidate_result import GatheredFits
from dask_hpsearch.journal.serialization import digest_of, shown_value
from dask_hpsearch.recorder.listener import RecordListener

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from dask_hpsearch.exports.candidate_result import CandidateResult
    from dask_hpsearch.recorder.call import RecordedCall

_logger = logging.getLogger(__name__)


class CandidateReports(RecordListener):
    """Gathers the fits of candidates, and reports each candidate once it has ended.

    Parameters
    ----------
    run_id : str
    report : callable
        Called with each candidate that has ended, in order of completion, and whether it
        may change: a dropped one, whose fits that run may still complete it. Such a one
        comes again, at the end of the search at the latest.
    refit : str or None
        Which of several scores counts.
    generation : int
        How often the run had been extended.
    by_trials : bool
        Whether candidates end as Optuna trials do.
    ends : mapping
        When the fits of earlier drivers had ended: by call, digest and split.
    """

    def __init__(
        self,
        run_id: str,
        report: Callable[[CandidateResult, bool], None],
        *,
        refit: str | None,
        generation: int = 0,
        by_trials: bool = False,
        ends: Mapping[tuple[int, str, int], float],
    ) -> None:
        self._run_id = run_id
        self._report = report
        self._refit = refit
        self._generation = generation
        self._by_trials = by_trials
        self._ends = ends
        self._gathered: dict[tuple[int, int], GatheredFits] = {}
        self._lock = threading.RLock()

    def search_ended(self) -> None:
        """Report dropped candidates, and models that would be trained further."""
        with self._lock:
            left = list(self._gathered.values())
            self._gathered.clear()
            for one in sorted(left, key=lambda one: max(one.ends.values(), default=0)):
                if one.results and (one.is_dropped or one.is_complete):
                    self._end(one)

    # --- RecordListener -----------------------------------------------------------------

    def call_began(self, call: RecordedCall) -> None:
        """Report the candidates that the journal has."""
        now = time.time()
        digests = {
            candidate: digest_of(call.params_of(candidate))
            for candidate, _ in call.results
        }
        known = [
            (
                self._ends.get((call.ordinal, digests[candidate], split), now),
                candidate,
                split,
            )
            for candidate, split in call.results
        ]
        with self._lock:
            for ended, candidate, split in sorted(known):
                result = call.results[candidate, split]
                self._add(call, candidate, split, result, ended=ended)
            for candidate in sorted(call.dropped):
                if len(call.results_of(candidate)) < len(call.splits):
                    self.candidate_dropped(call, candidate)
            for step in call.steps:
                trial = getattr(step, "trial", None)
                if trial is not None:
                    self.trial_ended(call, step.candidate, trial)

    def fit_finished(
        self, call: RecordedCall, candidate: int, split: int, result: Mapping[str, Any]
    ) -> None:
        """Report the candidate if it was its last fit."""
        with self._lock:
            self._add(call, candidate, split, result, ended=time.time())

    def candidate_dropped(self, call: RecordedCall, candidate: int) -> None:
        """Report the candidate as dropped, with the fits that have finished."""
        with self._lock:
            one = self._candidate(call, candidate)
            one.is_dropped = True
            if one.results and not self._by_trials:
                self._end(one, may_change=True)

    def trial_ended(self, call: RecordedCall, candidate: int, trial: str) -> None:
        """Report the candidate of a trial."""
        with self._lock:
            one = self._gathered.pop((call.ordinal, candidate), None)
            if one is not None and one.results:
                one.trial = trial
                self._end(one)

    def model_scored(
        self,
        bracket: int,
        model: int,
        params: Mapping[str, Any],
        *,
        calls: int,
        result: Mapping[str, Any],
        ended: float,
    ) -> None:
        """Take up the last score of a model."""
        with self._lock:
            self._gathered[bracket, model] = GatheredFits.of_training(
                bracket,
                model,
                dict(params),
                calls=calls,
                result=dict(result),
                ended=ended,
                generation=self._generation,
                digest=digest_of(params),
            )

    def models_ended(self, bracket: int, models: Iterable[int]) -> None:
        """Report models with their last scores."""
        with self._lock:
            found = [self._gathered.pop((bracket, one), None) for one in models]
            scored = [one for one in found if one is not None]
            for one in sorted(scored, key=lambda one: one.ends[0]):
                self._end(one)

    # ------------------------------------------------------------------------------------

    def _add(
        self,
        call: RecordedCall,
        candidate: int,
        split: int,
        result: Mapping[str, Any],
        *,
        ended: float,
    ) -> None:
        one = self._candidate(call, candidate)
        one.results[split] = dict(result)
        one.ends[split] = ended
        if self._by_trials:
            return
        if one.is_complete:
            del self._gathered[call.ordinal, candidate]
        if one.is_complete or one.is_dropped:
            self._end(one, may_change=not one.is_complete)

    def _candidate(self, call: RecordedCall, candidate: int) -> GatheredFits:
        key = call.ordinal, candidate
        if key not in self._gathered:
            params = call.params_of(candidate)
            extra = call.extra_of(candidate)
            self._gathered[key] = GatheredFits(
                call=call.ordinal,
                number=candidate,
                n_splits=len(call.splits),
                params=dict(params),
                extra={name: shown_value(one) for name, one in extra.items()},
                generation=self._generation,
                digest=digest_of(params),
            )
        return self._gathered[key]

    def _end(self, one: GatheredFits, *, may_change: bool = False) -> None:
        try:
            self._report(one.result(self._run_id, refit=self._refit), may_change)
        except Exception:  # the search goes on, whatever a scorer has returned
            _logger.exception("candidate %d.%d is not reported", one.call, one.number)
