"""The result of `cross_validate` from fits that have finished.

Private parts of scikit-learn that are used: the functions by which ``cross_validate`` turns
the results of its fits into arrays (stable since 1.4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sklearn.model_selection._validation import (
    _aggregate_score_dicts,
    _insert_error_scores,
    _normalize_score_results,
    _warn_or_raise_about_fit_failures,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


def cross_validated(
    results: Sequence[dict[str, Any]], *, error_score: Any
) -> dict[str, Any]:
    """Return what ``cross_validate`` with a scoring function returns.

    Parameters
    ----------
    results : sequence of dict
        Of the fits, by split.
    error_score : object
        As for ``cross_validate``.

    Returns
    -------
    dict of str to ndarray of shape (n_splits,)
        ``fit_time``, ``score_time``, ``test_score`` and, if fits have them,
        ``train_score``.

    Raises
    ------
    ValueError
        If all fits have failed.
    """
    copies = [dict(result) for result in results]
    _warn_or_raise_about_fit_failures(copies, error_score)
    _insert_error_scores(copies, error_score)
    arrays = _aggregate_score_dicts(copies)
    found = {name: arrays[name] for name in ("fit_time", "score_time")}
    for kind in ("test", "train"):
        if f"{kind}_scores" in arrays:
            scores = _normalize_score_results(arrays[f"{kind}_scores"])
            found |= {f"{kind}_{name}": values for name, values in scores.items()}
    return found
