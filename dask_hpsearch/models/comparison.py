"""Scores of champion and challenger on the same rows, and how sure their difference is.

The interval is a percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap,
1993, chapter 13) of paired rows: each resample draws rows with replacement, and both models are
scored on the same ones. So what makes a row hard for both models cancels out.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dask_hpsearch.exceptions import PromotionError
from dask_hpsearch.models.recorded_model import RecordedModel
from dask_hpsearch.safe_text import message_of, repr_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from dask_hpsearch.models.holdout import Holdout
    from dask_hpsearch.models.recorded_model import Rows

# A score that is undefined on some resamples (one class is missing) is left out there.
_LEAST_DEFINED = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrap:
    """How the interval of a difference is computed.

    Attributes
    ----------
    confidence : float
        Probability that the interval covers the difference, between 0 and 1.
    n_resamples : int
    random_state : int
        Seed of the rows that are drawn.
    """

    confidence: float
    n_resamples: int
    random_state: int

    def check(self) -> None:
        """Refuse invalid values.

        Raises
        ------
        ValueError
        """
        if not 0 < self.confidence < 1:
            msg = (
                f"confidence must be between 0 and 1, as 0.95, got {self.confidence!r}"
            )
            raise ValueError(msg)
        if self.n_resamples < 1:
            msg = f"n_resamples must be a positive integer, got {self.n_resamples!r}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """By how much the challenger's score is higher.

    Attributes
    ----------
    value : float
        On all rows.
    interval : (float, float)
        Of the bootstrap.
    """

    value: float
    interval: tuple[float, float]


class ScoredModel:
    """A model, its score on the holdout, and on any rows of it.

    Parameters
    ----------
    name : str
        "challenger" or "champion", in errors.
    model : object
        Fitted.
    scorer : callable
        As scikit-learn's ``scorer(estimator, X, y)``.
    holdout : Holdout

    Raises
    ------
    PromotionError
        If the model cannot be scored, or its score is not a finite number.
    """

    def __init__(
        self,
        name: str,
        model: Any,
        scorer: Callable[[Any, Any, Any], Any],
        holdout: Holdout,
    ) -> None:
        self._model = model
        self._scorer = scorer
        self._holdout = holdout
        self._recorded = RecordedModel(model, holdout.X)
        self._uses_predictions_only = _is_scorer_of_sklearn(scorer)
        try:
            self.score = self.score_of(np.arange(holdout.n_rows))
        except Exception as error:
            msg = (
                f"the {name}, {repr_of(model)}, cannot be scored on the holdout: "
                f"{type(error).__name__}: {message_of(error)}"
            )
            raise PromotionError(msg) from error
        if not math.isfinite(self.score):
            msg = (
                f"the score of the {name} on the holdout is {self.score}: choose rows, or a "
                "scoring, for which it is a finite number"
            )
            raise PromotionError(msg)

    def score_of(self, rows: Rows) -> float:
        """Return the score on some rows."""
        y = self._holdout.y_of(rows)
        if self._uses_predictions_only:
            return float(self._scorer(self._recorded, rows, y))
        return float(self._scorer(self._model, self._holdout.X_of(rows), y))


def compare(
    challenger: ScoredModel,
    champion: ScoredModel,
    *,
    n_rows: int,
    bootstrap: Bootstrap,
) -> Gain:
    """Compare two models on the same rows.

    Raises
    ------
    PromotionError
        If the score is undefined on most resamples.
    """
    from sklearn import config_context

    rng = np.random.default_rng(bootstrap.random_state)
    gains = []
    # All rows were checked when they were scored together.
    unchecked = config_context(assume_finite=True, skip_parameter_validation=True)
    with unchecked, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scores that are undefined on a resample
        for _ in range(bootstrap.n_resamples):
            rows = rng.integers(n_rows, size=n_rows, dtype=np.intp)
            try:
                gain = challenger.score_of(rows) - champion.score_of(rows)
            except ValueError:  # as of roc_auc, if one class is missing
                continue
            if math.isfinite(gain):
                gains.append(gain)
    if len(gains) < _LEAST_DEFINED * bootstrap.n_resamples:
        msg = (
            f"the score is undefined on {bootstrap.n_resamples - len(gains)} of "
            f"{bootstrap.n_resamples} resamples of the holdout's {n_rows} rows: take more rows "
            "of each class, or another scoring"
        )
        raise PromotionError(msg)
    tail = (1 - bootstrap.confidence) / 2
    low, high = np.quantile(gains, [tail, 1 - tail])
    value = challenger.score - champion.score
    return Gain(value=value, interval=(float(low), float(high)))


def _is_scorer_of_sklearn(scorer: Any) -> bool:
    """Whether a scorer is of `sklearn.metrics.make_scorer`: it sees predictions only."""
    from sklearn.metrics import make_scorer, max_error

    return isinstance(scorer, type(make_scorer(max_error)))
