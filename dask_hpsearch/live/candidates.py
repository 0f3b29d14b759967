"""The candidates of a search while it runs: kept up to date fit by fit, read as columns."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dask_hpsearch.progress import Fits, SearchProgress

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]
    Params = Mapping[str, Any]


class Status(enum.IntEnum):
    """How far a candidate has come."""

    COMPLETE = 0
    FAILED = 1
    DROPPED = 2
    UNFINISHED = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidates:
    """Candidates with at least one finished fit, as columns of the same length.

    Attributes
    ----------
    calls, numbers : ndarray of int
        Their ordinals.
    scores : ndarray of float
        Mean over the finished fits; NaN if a fit failed or has no score.
    n_fits : ndarray of int
        Finished fits.
    ends : ndarray of float
        When the last of these ended, in seconds since the epoch.
    status : ndarray of int
        Values of `Status`.
    compares : ndarray of bool
        Whether the score compares with those of the last call: not for earlier rungs of a
        halving search.
    """

    calls: IntArray
    numbers: IntArray
    scores: FloatArray
    n_fits: IntArray
    ends: FloatArray
    status: IntArray
    compares: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.calls)

    def count(self, status: Status) -> int:
        """Return how many candidates have a status."""
        return int((self.status == status).sum())


@dataclass(slots=True)
class _Marks:
    """What a call's candidates have besides their scores."""

    ends: FloatArray = field(default_factory=lambda: np.empty(0))
    failed: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, dtype=bool))
    params: dict[int, Params] = field(default_factory=dict)
    params_of: Callable[[int], Params] | None = None

    def add(self, candidates: IntArray, times: FloatArray, failed: Any) -> None:
        self._make_room(int(candidates.max()) + 1)
        np.maximum.at(self.ends, candidates, times)
        np.logical_or.at(self.failed, candidates, failed)

    def _make_room(self, n_candidates: int) -> None:
        if n_candidates > len(self.ends):
            more = max(n_candidates, 2 * len(self.ends)) - len(self.ends)
            self.ends = np.append(self.ends, np.full(more, -np.inf))
            self.failed = np.append(self.failed, np.zeros(more, dtype=bool))

    def params_for(self, candidate: int) -> Params:
        if candidate in self.params or self.params_of is None:
            return self.params.get(candidate, {})
        return self.params_of(candidate)


class CandidateProgress(SearchProgress):
    """The progress of a search that remembers its candidates.

    Fits are reported by one thread, in the order of time.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self._marks: dict[int, _Marks] = {}

    def fit_finished(
        self,
        call: int,
        candidate: int,
        split: int,
        *,
        params: Params,
        score: float | None,
        fit_time: float,
        failed: bool | None = None,
    ) -> None:
        """Count a fit, unless it was counted before."""
        before = self._fits_done
        super().fit_finished(
            call,
            candidate,
            split,
            params=params,
            score=score,
            fit_time=fit_time,
            failed=failed,
        )
        if self._fits_done > before:
            marks = self._marks_of(call)
            marks.params[candidate] = params
            marks.add(np.array([candidate]), np.array([self._clock()]), bool(failed))

    def fits_finished(
        self, call: int, fits: Fits, params_of: Callable[[int], Params]
    ) -> None:
        """Count many fits of a call."""
        super().fits_finished(call, fits, params_of)
        if len(fits.candidates):
            marks = self._marks_of(call)
            marks.params_of = params_of
            marks.add(fits.candidates, fits.times, fits.failed)

    def model_trained(
        self,
        bracket: int,
        model: int,
        calls: int,
        *,
        params: Params,
        score: float | None,
    ) -> None:
        """Count the calls of ``partial_fit`` that have trained a model."""
        super().model_trained(bracket, model, calls, params=params, score=score)
        marks = self._marks_of(bracket)
        marks.params[model] = params
        marks.add(np.array([model]), np.array([self._clock()]), failed=False)

    def params_of(self, call: int, candidate: int) -> Params:
        """Return the parameters of a candidate that has a finished fit."""
        return self._marks_of(call).params_for(candidate)

    def split_scores_of(self, call: int, candidate: int) -> FloatArray:
        """Return the scores of a candidate's finished fits."""
        known = self._calls.get(call)
        return np.empty(0) if known is None else known.scores_of(candidate)

    def candidates(self) -> Candidates:
        """Return the candidates so far: of each call in their order."""
        comparing = set(self._comparing())
        parts = [self._of_call(one, compares=one in comparing) for one in self._calls]
        parts += [self._of_bracket(one) for one in self._brackets]
        return _concatenated([part for part in parts if len(part)])

    def n_candidates(self) -> int:
        """Return how many candidates are known so far."""
        known = [call.n_candidates or 0 for call in self._calls.values()]
        known += [one.n_models for one in self._brackets.values()]
        return sum(known)

    def _marks_of(self, call: int) -> _Marks:
        return self._marks.setdefault(call, _Marks())

    def _of_call(self, ordinal: int, *, compares: bool) -> Candidates:
        call, marks = self._calls[ordinal], self._marks_of(ordinal)
        n_fits, means = call.means()
        numbers = np.flatnonzero(n_fits)
        dropped = np.zeros(len(n_fits), dtype=bool)
        dropped[[one for one in call.dropped if one < len(dropped)]] = True
        status = np.full(len(numbers), int(Status.COMPLETE))
        unfinished = n_fits[numbers] < (call.n_splits or np.inf)
        status[unfinished] = Status.UNFINISHED
        status[unfinished & dropped[numbers]] = Status.DROPPED
        status[marks.failed[numbers]] = Status.FAILED
        return Candidates(
            calls=np.full(len(numbers), ordinal),
            numbers=numbers,
            scores=means[numbers],
            n_fits=n_fits[numbers],
            ends=marks.ends[numbers],
            status=status,
            compares=np.full(len(numbers), compares),
        )

    def _of_bracket(self, ordinal: int) -> Candidates:
        scored, marks = self._brackets[ordinal].scored, self._marks_of(ordinal)
        done = self._brackets[ordinal].done
        numbers = np.array(sorted(scored), dtype=np.int64)
        return Candidates(
            calls=np.full(len(numbers), ordinal),
            numbers=numbers,
            scores=np.array([scored[one].score for one in numbers.tolist()]),
            n_fits=np.array([done[one] for one in numbers.tolist()], dtype=np.int64),
            ends=marks.ends[numbers] if len(numbers) else np.empty(0),
            status=np.full(len(numbers), int(Status.COMPLETE)),
            compares=np.full(len(numbers), fill_value=True),
        )


def _concatenated(parts: Sequence[Candidates]) -> Candidates:
    def column(name: str, kind: Any) -> Any:
        columns = [getattr(part, name) for part in parts]
        return np.concatenate(columns) if columns else np.empty(0, dtype=kind)

    return Candidates(
        calls=column("calls", np.int64),
        numbers=column("numbers", np.int64),
        scores=column("scores", np.float64),
        n_fits=column("n_fits", np.int64),
        ends=column("ends", np.float64),
        status=column("status", np.int64),
        compares=column("compares", bool),
    )
