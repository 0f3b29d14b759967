"""`RecordListener`: gets what a recorder records of the candidates, while a search runs.

It gets a result once that is in the journal, if there is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dask_hpsearch.recorder.call import RecordedCall


class RecordListener:
    """Does nothing; the base of listeners."""

    def call_began(self, call: RecordedCall) -> None:
        """Take up a call, with the results that its journal has."""

    def fit_finished(
        self, call: RecordedCall, candidate: int, split: int, result: Mapping[str, Any]
    ) -> None:
        """Take up the result of a fit."""

    def candidate_dropped(self, call: RecordedCall, candidate: int) -> None:
        """Take up that no further fit of a candidate begins."""

    def trial_ended(self, call: RecordedCall, candidate: int, trial: str) -> None:
        """Take up the state in which an Optuna trial has ended."""

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
        """Take up the score of a model after some calls of ``partial_fit``."""

    def models_ended(self, bracket: int, models: Iterable[int]) -> None:
        """Take up that models are not trained any more."""
