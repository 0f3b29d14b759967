"""A search as the displays see it, whatever its source."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


class Status(enum.StrEnum):
    """The status of a candidate.

    "complete"; "failed" (its mean score is not a number, or a fit had an error); "dropped"
    by a race; "unfinished" (the run is under way or was stopped).
    """

    COMPLETE = "complete"
    FAILED = "failed"
    DROPPED = "dropped"
    UNFINISHED = "unfinished"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fits:
    """Fits with their times, in the order of their ends.

    Attributes
    ----------
    starts, ends : ndarray of float
        Seconds since the epoch.
    candidates, splits : ndarray of int
        A candidate is its row of `SearchData`.
    failed : ndarray of bool
    """

    starts: FloatArray
    ends: FloatArray
    candidates: IntArray
    splits: IntArray
    failed: BoolArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClusterSizes:
    """Sizes of the cluster, as the driver noted them every few seconds.

    Attributes
    ----------
    times : ndarray of float
        Seconds since the epoch.
    workers, slots : ndarray of int
    """

    times: FloatArray
    workers: IntArray
    slots: IntArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SearchData:
    """Candidates of a search with their scores, and what is known of the times.

    Attributes
    ----------
    params : sequence of mapping
        Of each candidate. A candidate of a halving search is a row in each of its rungs.
    split_scores : mapping of str to ndarray of shape (n_candidates, n_splits)
        By the name of the score; NaN where there is none.
    mean_scores : mapping of str to ndarray of shape (n_candidates,)
        Of a candidate that is not complete: over its finished splits.
    status : sequence of Status
    rungs : ndarray of int
        Of a halving search; 0 otherwise.
    resources : ndarray of int
        ``n_resources`` of a halving search; 0 otherwise.
    ends : ndarray of float
        When the last fit of each candidate ended, in seconds since the epoch; NaN if that
        is not known.
    refit : str or None
        Which of several scores the search itself goes by.
    fits : Fits, optional
    sizes : ClusterSizes, optional
    driver_starts : ndarray of float
        When a driver began, in seconds since the epoch.
    """

    params: Sequence[Mapping[str, Any]]
    split_scores: Mapping[str, FloatArray]
    mean_scores: Mapping[str, FloatArray]
    status: Sequence[Status]
    rungs: IntArray
    resources: IntArray
    ends: FloatArray
    refit: str | None = None
    fits: Fits | None = None
    sizes: ClusterSizes | None = None
    driver_starts: FloatArray = field(default_factory=lambda: np.array([]))

    def __len__(self) -> int:
        return len(self.params)

    def score_name(self, scoring: str | None) -> str:
        """Return the score to display: ``scoring``, or that which the search goes by.

        Raises
        ------
        ValueError
            If the search has no such score, or has several and none is chosen.
        """
        names = list(self.mean_scores)
        if scoring in names:
            return str(scoring)
        if scoring is not None:
            msg = f"scoring must be one of {names} for this search, got {scoring!r}"
            raise ValueError(msg)
        if self.refit in names:
            return str(self.refit)
        if len(names) == 1:
            return names[0]
        if not names:
            msg = (
                "the search has no scores yet: display it once a fit has finished, which "
                "run.progress() shows"
            )
            raise ValueError(msg)
        msg = f"the search has several scores: choose one with scoring=, of {names}"
        raise ValueError(msg)

    def has_status(self, *statuses: Status) -> BoolArray:
        """Return which candidates have one of some statuses."""
        return np.array([one in statuses for one in self.status], dtype=bool)

    def varied_parameters(self) -> list[str]:
        """Return the names of the parameters that differ between candidates."""
        names = dict.fromkeys(name for one in self.params for name in one)
        varied = []
        for name in names:
            texts = {repr(one.get(name, MISSING)) for one in self.params}
            if len(texts) > 1:
                varied.append(name)
        return varied

    def choose_parameters(self, params: Sequence[str] | None) -> list[str]:
        """Return the parameters to display: those named, or all that vary.

        Raises
        ------
        ValueError
            If the search has no such parameter, or none that varies.
        """
        known = list(dict.fromkeys(name for one in self.params for name in one))
        unknown = [name for name in params or () if name not in known]
        if unknown:
            msg = f"params must be names of {known}, got {unknown}"
            raise ValueError(msg)
        chosen = self.varied_parameters() if params is None else list(params)
        if not chosen:
            msg = (
                "no parameter varies between the candidates: name those to display with "
                f"params=, of {known}"
            )
            raise ValueError(msg)
        return chosen

    def values_of(self, name: str) -> list[Any]:
        """Return the values of a parameter; `MISSING` for a candidate without it."""
        return [one.get(name, MISSING) for one in self.params]

    def last_rung_rows(self) -> IntArray:
        """Return the rows of each candidate's last rung: all, unless it is halving."""
        if not self.rungs.any():
            return np.arange(len(self))
        last: dict[str, int] = {}
        for row in np.argsort(self.rungs, kind="stable"):
            last[_identity(self.params[row])] = int(row)
        return np.array(sorted(last.values()), dtype=np.int64)

    def first_rung_rows(self) -> IntArray:
        """Return the rows of the first rung, where resources and scores are comparable."""
        first = self.rungs.min() if len(self) else 0
        return np.flatnonzero(self.rungs == first)


class _Missing:
    """The value of a parameter that a candidate does not have."""

    def __repr__(self) -> str:
        return "not set"


MISSING = _Missing()


def _identity(params: Mapping[str, Any]) -> str:
    from dask_hpsearch.journal.serialization import digest_of

    return digest_of(params)
