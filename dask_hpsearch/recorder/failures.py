"""Hides failed calls from scikit-learn's own check, and reports them at the end.

scikit-learn ends a search when all fits of a call have failed. A model-based search makes
many calls of a few candidates each, and goes on after such a call.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from dask_hpsearch import sklearn_adapter
from dask_hpsearch.identity import IdentityMemo

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dask_hpsearch.recorder.call import RecordedCall


class FailedCalls:
    """The failures of calls whose fits have all failed.

    Parameters
    ----------
    refit : object
        The search's ``refit``: which of several scores counts.
    tolerant : bool
        Whether failures are hidden at all.

    Attributes
    ----------
    error_score : object
        The score of a failed fit.
    """

    def __init__(self, *, refit: Any, tolerant: bool) -> None:
        self.error_score: Any = math.nan
        self._refit = refit
        self._tolerant = tolerant
        self._hidden: IdentityMemo[str] = IdentityMemo()

    def hide(
        self, results: Sequence[dict[str, Any]], calls: Iterable[RecordedCall]
    ) -> None:
        """Hide the failures of a call if all its fits have failed.

        Parameters
        ----------
        results : sequence of dict
            Those of the call; changed in place.
        calls : iterable of RecordedCall
            All calls of the search, for the names of its scores.
        """
        if not self._tolerant or any(one["fit_error"] is None for one in results):
            return
        names = _score_names(calls)
        if isinstance(self._refit, str) and not names:
            return  # the scoring function has not yet named its scores
        for one in results:
            self._hidden.put(one, value=one["fit_error"])
            one["fit_error"] = None
            for scores in {"test_scores", "train_scores"} & one.keys() if names else ():
                one[scores] = dict.fromkeys(names, self.error_score)

    def report(self, calls: Iterable[RecordedCall]) -> None:
        """Warn of hidden failures, or raise if all fits failed, as scikit-learn does."""
        if not self._hidden:
            return
        results = [one for call in calls for one in call.results.values()]
        errors = [self._hidden.get(one) for one in results]
        sklearn_adapter.report_fit_errors(errors, self.error_score)


def _score_names(calls: Iterable[RecordedCall]) -> list[str]:
    """Return the names of the scores, if there are several and a fit has given them."""
    for call in calls:
        for one in call.results.values():
            if isinstance(one["test_scores"], dict):
                return list(one["test_scores"])
    return []
