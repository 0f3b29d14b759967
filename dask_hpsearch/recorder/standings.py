"""What the scores so far decide: which candidates are dropped, and when the search ends."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dask_hpsearch import sklearn_adapter
from dask_hpsearch.engine.racing import Race, mean_score
from dask_hpsearch.exceptions import UnsupportedSearchError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dask_hpsearch.recorder.call import RecordedCall

STOP_SCORE, PATIENCE = "stop_score", "patience"


@dataclass(frozen=True, slots=True)
class EarlyEnds:
    """The parameters of `DaskSearchCV` by which scores end candidates or the search."""

    racing: bool = False
    stop_score: float | None = None
    patience: float | None = None

    def __bool__(self) -> bool:
        return self.racing or self.stop_score is not None or self.patience is not None


class Standings:
    """The scores of a search, and what follows from them.

    Parameters
    ----------
    rules : EarlyEnds
    refit : object
        The search's ``refit``: which of several scores counts.

    Attributes
    ----------
    race : Race or None
        Of the present call.
    """

    def __init__(self, rules: EarlyEnds, *, refit: Any) -> None:
        self.race: Race | None = None
        self._rules = rules
        self._refit = refit
        self._best: float | None = None
        self._n_without_improvement = 0

    def begin(self, call: RecordedCall) -> str | None:
        """Begin a call with the results and drops that its journal has.

        Returns
        -------
        str or None
            Why the search is to end, if it is.
        """
        if self._rules.racing:
            self.race = Race(
                len(call.splits),
                n_candidates=None if call.still_open else len(call.candidates),
                dropped=call.dropped,
            )
        reason = None
        scores: dict[int, dict[int, float]] = {}
        for (candidate, split), result in call.results.items():
            known = scores.setdefault(candidate, {})
            known[split] = self._take_score(candidate, split, result)
            if len(known) == len(call.splits):
                reason = self._take_mean(mean_score(known)) or reason
        return reason

    def take(
        self, call: RecordedCall, candidate: int, split: int, result: Mapping[str, Any]
    ) -> str | None:
        """Take in a result, which the call has already.

        Returns
        -------
        str or None
            Why the search is to end, if it is.

        Raises
        ------
        UnsupportedSearchError
            If a fit has several scores, and ``refit`` names none of them.
        """
        if not self._rules:
            return None
        self._take_score(candidate, split, result)
        results = call.results_of(candidate)
        if len(results) < len(call.splits):
            return None
        scores = {place: self._score_of(one) for place, one in results.items()}
        return self._take_mean(mean_score(scores))

    def beaten(self) -> list[int]:
        """Drop the candidates that are beaten now; return them."""
        return [] if self.race is None else self.race.beaten()

    def _take_score(
        self, candidate: int, split: int, result: Mapping[str, Any]
    ) -> float:
        score = self._score_of(result)
        if self.race is not None:
            self.race.add(candidate, split, score)
        return score

    def _score_of(self, result: Mapping[str, Any]) -> float:
        if not self._rules:
            return math.nan
        score = sklearn_adapter.score_of(result, self._refit)
        several = isinstance(result.get("test_scores"), dict)
        if score is None and several and result.get("fit_error") is None:
            names = ", ".join(map(repr, result["test_scores"]))
            msg = (
                "racing, stop_score and patience need one score to compare candidates by, "
                f"and the search has several ({names}): name one of them, refit=..., got "
                f"refit={self._refit!r}"
            )
            raise UnsupportedSearchError(msg)
        return math.nan if score is None else score

    def _take_mean(self, mean: float) -> str | None:
        """Take in the mean of a complete candidate, in the order in which they end."""
        if self._best is None or mean > self._best:
            self._best = None if math.isnan(mean) else mean
            self._n_without_improvement = 0
        else:
            self._n_without_improvement += 1
        stop_score, patience = self._rules.stop_score, self._rules.patience
        if stop_score is not None and mean >= stop_score:
            return STOP_SCORE
        if patience is not None and self._n_without_improvement >= patience:
            return PATIENCE
        return None
