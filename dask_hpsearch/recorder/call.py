"""One recorded ``evaluate_candidates`` call: candidates, splits, results."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dask_hpsearch.journal.serialization import digest_of, has_stable_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from dask_hpsearch.journal.exploration import Step
    from dask_hpsearch.journal.run_journal import StoredCall


@dataclass(slots=True)
class RecordedCall:
    """One ``evaluate_candidates`` call.

    Attributes
    ----------
    ordinal : int
    candidates : list of dict
    more_results : dict of str to list, or None
        Extra columns of the search class, with one value for each candidate.
    splits : list of (train, test)
        Empty until scikit-learn asks for them.
    results : dict
        Finished fits by (candidate, split).
    taken_in : bool
        Whether scikit-learn has built its results from them.
    still_open : bool
        Whether candidates are added as the search goes on.
    asks : dict of int to (int, dict)
        Earlier asks, which are repeated: search space and parameters, by candidate.
    dropped : set of int
        Candidates of which no further fit begins.
    steps : list of AskEvent, ReportEvent or TellEvent
        Earlier steps of a strategy, in their order.
    """

    ordinal: int
    candidates: list[dict[str, Any]]
    more_results: Mapping[str, Sequence[Any]] | None
    splits: list[tuple[Any, Any]] = field(default_factory=list)
    results: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)
    taken_in: bool = False
    still_open: bool = False
    asks: dict[int, tuple[int, dict[str, Any]]] = field(default_factory=dict)
    dropped: set[int] = field(default_factory=set)
    steps: list[Step] = field(default_factory=list)

    def params_of(self, candidate: int) -> dict[str, Any]:
        """Return the parameters of a candidate that it has, or that was asked earlier."""
        asked = self.asks.get(candidate)
        return self.candidates[candidate] if asked is None else asked[1]

    def extra_of(self, candidate: int) -> dict[str, Any]:
        """Return what the search class adds for a candidate.

        A call whose candidates were not known has one value for all of them.
        """
        return {
            name: values[min(candidate, len(values) - 1)]
            for name, values in (self.more_results or {}).items()
        }

    def results_of(self, candidate: int) -> dict[int, dict[str, Any]]:
        """Return the results of a candidate, by split."""
        return {
            split: self.results[candidate, split]
            for split in range(len(self.splits))
            if (candidate, split) in self.results
        }

    def complete(self) -> list[int]:
        """Return the candidates that have results of all splits."""
        finished = Counter(candidate for candidate, _ in self.results)
        known = range(len(self.candidates))
        return sorted(
            candidate
            for candidate, n_splits in finished.items()
            if n_splits == len(self.splits) and candidate in known
        )

    def complete_results(self) -> list[dict[str, Any]]:
        """Return the results of complete candidates, in scikit-learn's order of fits."""
        splits = range(len(self.splits))
        return [
            self.results[candidate, split]
            for candidate in self.complete()
            for split in splits
        ]


class BegunElsewhereError(Exception):
    """Another driver of the run has stored this call first."""


def extend_call(
    call: RecordedCall, earlier: StoredCall, *, keep_candidates: bool
) -> None:
    """Give a call of an extended run the splits and results of the earlier run.

    Parameters
    ----------
    call : RecordedCall
        With its present candidates; changed in place.
    earlier : StoredCall
    keep_candidates : bool
        Whether the present candidates were drawn without a seed: then the earlier ones
        are kept, and new ones are added only up to the present number.
    """
    if keep_candidates:
        known = {digest_of(one) for one in earlier.candidates}
        more = len(call.candidates) - len(earlier.candidates)
        new = [
            one
            for one in call.candidates
            if digest_of(one) not in known or not has_stable_digest(one)
        ]
        call.candidates = earlier.candidates + new[:more]
    call.splits = earlier.splits
    call.results = earlier.results_for(call.candidates)
    call.dropped = earlier.dropped_for(call.candidates)


class RecordingSplitter:
    """Splits as the search's own splitter does, and reports the splits."""

    def __init__(self, splitter: Any, noted: Callable[[list[Any]], None]) -> None:
        self._splitter = splitter
        self._noted = noted

    def split(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Yield the splits, once they are noted."""
        splits = list(self._splitter.split(*args, **kwargs))
        self._noted(splits)
        return iter(splits)

    def get_n_splits(self, *args: Any, **kwargs: Any) -> int:
        """Count as the splitter does."""
        return int(self._splitter.get_n_splits(*args, **kwargs))


def worst_for_nan(scores: Any) -> Any:
    """Replace NaN by the worst finite score (0 if there is none yet)."""
    finite = scores[np.isfinite(scores)]
    return np.where(np.isfinite(scores), scores, finite.min() if finite.size else 0.0)
