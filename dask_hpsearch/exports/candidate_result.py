"""`CandidateResult`: a candidate with its scores, as exports, trackers and callbacks see it."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Self

Scores = dict[str, tuple[float, ...]]
Result = dict[str, Any]  # of a fit, as scikit-learn's fit call returns it


class CandidateState(enum.StrEnum):
    """The state of a candidate.

    "complete"; "failed" (a fit had an error, or the mean score is not a number); "dropped"
    by a race or a pruner; "unfinished" (the search is under way, or was stopped).
    """

    COMPLETE = "complete"
    FAILED = "failed"
    DROPPED = "dropped"
    UNFINISHED = "unfinished"


_OF_TRIALS = {"PRUNED": CandidateState.DROPPED, "FAIL": CandidateState.FAILED}


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateResult:
    """A candidate of a search, with the results of its fits.

    Attributes
    ----------
    run_id : str
        The name of the run.
    call, number : int
        Its ordinals: the call of ``evaluate_candidates`` (the rung of a halving search, the
        bracket of one of dask-ml's) and the candidate within that call, both from 0, as in
        the columns ``call`` and ``candidate`` of `SearchRun.trials`.
    params : dict
        Its parameters; of a run that is read from its journal, those that are no numbers,
        strings, booleans or None are shortened texts.
    state : CandidateState
        "complete", "failed" or "dropped"; in exports also "unfinished".
    split_scores : dict of str to tuple of float
        Test scores of all splits, by the name of the score: "score" if there is one only.
        NaN for a split without result.
    mean_scores : dict of str to float
        Means over the splits with results.
    score : float or None
        The mean by which the search ranks; None if several scores have no ``refit``.
    train_scores : dict of str to tuple of float
        As ``split_scores``; empty without ``return_train_score``.
    fit_times, score_times : tuple of float
        Seconds by split; NaN for a split without result.
    started, ended : float
        When its first fit began and its last one ended, in seconds since the epoch.
    extra : dict
        What the search class adds, such as halving's ``n_resources``.
    generation : int
        How often the run had been extended.
    digest : str
        Of the parameters: equal ones have equal digests.
    """

    run_id: str
    call: int
    number: int
    params: Mapping[str, Any]
    state: CandidateState
    split_scores: Scores
    mean_scores: dict[str, float]
    score: float | None
    train_scores: Scores
    fit_times: tuple[float, ...]
    score_times: tuple[float, ...]
    started: float
    ended: float
    extra: Mapping[str, Any]
    generation: int = 0
    digest: str = ""

    @property
    def name(self) -> str:
        """Its ordinals as one text, such as "0.12"."""
        return f"{self.call}.{self.number}"

    @property
    def n_finished(self) -> int:
        """Number of splits with results."""
        return sum(not math.isnan(one) for one in self.fit_times)


@dataclass(slots=True, kw_only=True)
class GatheredFits:
    """The fits of a candidate, as they come in.

    Attributes
    ----------
    call, number, n_splits : int
    params : dict
    extra : dict
    generation : int
    digest : str
    results : dict of int to dict
        By split.
    ends : dict of int to float
        When each had ended, in seconds since the epoch.
    is_dropped : bool
    trial : str or None
        The state of an Optuna trial, by its name there.
    is_open : bool
        Whether it may get further results although all splits have one.
    """

    call: int
    number: int
    n_splits: int
    params: Mapping[str, Any]
    extra: Mapping[str, Any]
    generation: int = 0
    digest: str = ""
    results: dict[int, Result] = field(default_factory=dict)
    ends: dict[int, float] = field(default_factory=dict)
    is_dropped: bool = False
    trial: str | None = None
    is_open: bool = False

    @classmethod
    def of_training(
        cls,
        bracket: int,
        model: int,
        params: Mapping[str, Any],
        *,
        calls: int,
        result: Result,
        ended: float,
        generation: int = 0,
        digest: str = "",
    ) -> Self:
        """Return a model that ``partial_fit`` trains as a candidate with one split.

        Parameters
        ----------
        bracket, model : int
        params : dict
        calls : int
            Calls of ``partial_fit`` that made it.
        result : dict
            Of its scoring.
        ended : float
            When it was scored.
        generation : int
        digest : str
        """
        scored = {
            "test_scores": result["score"],
            "fit_time": result["partial_fit_time"],
            "score_time": result["score_time"],
        }
        return cls(
            call=bracket,
            number=model,
            n_splits=1,
            params=params,
            extra={"bracket": bracket, "partial_fit_calls": calls},
            generation=generation,
            digest=digest,
            results={0: scored},
            ends={0: ended},
        )

    def result(self, run_id: str, *, refit: str | None) -> CandidateResult:
        """Return the candidate as it is now.

        Parameters
        ----------
        run_id : str
        refit : str or None
            Which of several scores counts.
        """
        split_scores = self._scores("test_scores")
        mean_scores = {name: self._mean(one) for name, one in split_scores.items()}
        only = next(iter(mean_scores.values())) if len(mean_scores) == 1 else None
        score = mean_scores.get(refit, only) if refit is not None else only
        ends = self.ends or {0: math.nan}
        return CandidateResult(
            run_id=run_id,
            call=self.call,
            number=self.number,
            params=self.params,
            state=self._state(mean_scores),
            split_scores=split_scores,
            mean_scores=mean_scores,
            score=None if score is None or math.isnan(score) else score,
            train_scores=self._scores("train_scores"),
            fit_times=self._by_split(lambda one: one.get("fit_time")),
            score_times=self._by_split(lambda one: one.get("score_time")),
            started=min(end - self._seconds(split) for split, end in ends.items()),
            ended=max(ends.values()),
            extra=self.extra,
            generation=self.generation,
            digest=self.digest,
        )

    @property
    def is_complete(self) -> bool:
        """Whether all splits have results."""
        return len(self.results) == self.n_splits

    def _state(self, mean_scores: Mapping[str, float]) -> CandidateState:
        failed = any(
            one.get("fit_error") is not None for one in self.results.values()
        ) or any(map(math.isnan, mean_scores.values()))
        if self.trial in _OF_TRIALS:
            return _OF_TRIALS[self.trial]
        if self.is_complete and not self.is_open:
            return CandidateState.FAILED if failed else CandidateState.COMPLETE
        if self.is_dropped:
            return CandidateState.DROPPED
        return CandidateState.UNFINISHED

    def _scores(self, key: str) -> Scores:
        """Return scores by their names; empty if no fit has such scores."""
        if not any(key in one for one in self.results.values()):
            return {}

        def score_named(name: str) -> Callable[[Result], Any]:
            def score(result: Result) -> Any:
                scores = result.get(key)
                # A fit that failed may have one score for all scorers.
                return scores.get(name) if isinstance(scores, dict) else scores

            return score

        names = _names(one.get(key) for one in self.results.values())
        return {name: self._by_split(score_named(name)) for name in names}

    def _mean(self, scores: tuple[float, ...]) -> float:
        """Average as scikit-learn does, over the splits with results."""
        known = [scores[split] for split in sorted(self.results)]
        return float(np.average(np.array(known, dtype=np.float64)))

    def _by_split(self, value: Callable[[Result], Any]) -> tuple[float, ...]:
        found = (value(self.results.get(split, {})) for split in range(self.n_splits))
        return tuple(math.nan if one is None else float(one) for one in found)

    def _seconds(self, split: int) -> float:
        result = self.results.get(split, {})
        times = (result.get(name) for name in ("fit_time", "score_time"))
        return sum(float(one) for one in times if isinstance(one, int | float))


def _names(scores: Iterable[Any]) -> list[str]:
    named = dict.fromkeys(
        name for one in scores if isinstance(one, dict) for name in one
    )
    return list(named) or ["score"]
