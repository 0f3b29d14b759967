"""The dropped candidates of a search, as a table like ``cv_results_``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dask_hpsearch.recorder.call import RecordedCall


def dropped_candidates(calls: Iterable[RecordedCall]) -> dict[str, Any]:
    """Return the dropped candidates with what is known of them.

    Returns
    -------
    dict of str to list or ndarray
        ``params``; ``n_splits``, the number of finished fits; for each score
        ``split0_test_score``, …, NaN for a fit that has not run, and the mean over the
        finished ones, ``mean_test_score``. Several scores have their own names.
    """
    n_splits, rows = 0, []
    for call in calls:
        n_splits = max(n_splits, len(call.splits))
        rows += [
            (call.candidates[candidate], call.results_of(candidate))
            for candidate in sorted(call.dropped.difference(call.complete()))
            if candidate < len(call.candidates)
        ]
    table: dict[str, Any] = {
        "params": [parameters for parameters, _ in rows],
        "n_splits": np.array([len(results) for _, results in rows], dtype=int),
    }
    for name in _score_names([results for _, results in rows]):
        scores = np.full((len(rows), n_splits), np.nan)
        for row, (_, results) in enumerate(rows):
            for split, result in results.items():
                found = result["test_scores"]
                scores[row, split] = found[name] if isinstance(found, dict) else found
        for split in range(n_splits):
            table[f"split{split}_test_{name}"] = scores[:, split]
        finished = [
            list(results) for _, results in rows
        ]  # a failed fit makes the mean NaN, as in scikit-learn
        table[f"mean_test_{name}"] = np.array(
            [
                np.mean(scores[row, splits]) if splits else np.nan
                for row, splits in enumerate(finished)
            ]
        )
    return table


def _score_names(rows: Sequence[dict[int, dict[str, Any]]]) -> list[str]:
    found = [one["test_scores"] for results in rows for one in results.values()]
    named = dict.fromkeys(
        name for scores in found if isinstance(scores, dict) for name in scores
    )
    return list(named) or (["score"] if found else [])
