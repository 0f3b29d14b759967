"""A trial as one fit for each split, whose scores a pruner may see as they come."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from dask_hpsearch.strategies.optuna.scores import (
    partial_scores,
    report_to_terminator,
    scores_of,
    store_scores,
)
from dask_hpsearch.strategies.optuna.study import marks_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from dask_hpsearch.recorder.call import RecordedCall
    from dask_hpsearch.recorder.recorder import Recorder
    from dask_hpsearch.strategies.optuna.trial_loop import RunningTrial
    from dask_hpsearch.strategies.session_slots import SessionSlots


class SplitFits:
    """The fits of trials without ``enable_pruning``.

    Parameters
    ----------
    slots : SessionSlots
    recorder : Recorder
    call : RecordedCall
    error_score : object
        The search's.
    prunes : bool
        Whether scores are reported to the study's pruner: split by split, in their order.
    means : bool
        Whether the mean of the splits so far is reported, or each split's own score.
    """

    def __init__(
        self,
        slots: SessionSlots,
        recorder: Recorder,
        call: RecordedCall,
        *,
        error_score: Any,
        prunes: bool,
        means: bool,
    ) -> None:
        self._slots = slots
        self._recorder = recorder
        self._call = call
        self._error_score = error_score
        self.one_by_one = prunes
        self._means = means

    @property
    def slots(self) -> int:
        """Number of slots now."""
        return self._slots.slots

    def begin(self, trial: RunningTrial) -> None:
        """Begin with its first split."""
        trial.left = deque(range(self._n_splits))

    def submit(
        self, trial: RunningTrial, split: int, done: Callable[[Any], None]
    ) -> None:
        """Fit on a split."""
        self._slots.submit(0, trial.ordinal, split, done)

    def recall(self, trial: RunningTrial) -> None:
        """Give a trial that was told before its results."""
        trial.results = self._call.results_of(trial.ordinal)
        trial.is_whole = len(trial.results) == self._n_splits

    def take(self, trial: RunningTrial, split: int, result: dict[str, Any]) -> None:
        """Take in a fit's result, and let the pruner decide."""
        trial.results[split] = result
        trial.is_whole = len(trial.results) == self._n_splits
        while self.one_by_one and not trial.is_pruned:
            if trial.n_reported not in trial.results:
                return
            self._report(trial)

    def store(self, trial: RunningTrial) -> float:
        """Store the scores of a whole trial; return their mean."""
        results = [trial.results[split] for split in range(self._n_splits)]
        scores = scores_of(
            results, error_score=self._error_score, n_splits=self._n_splits
        )
        store_scores(trial.trial, scores)
        report_to_terminator(trial.trial, scores)
        return float(trial.trial.user_attrs["mean_test_score"])

    def store_partial(self, trial: RunningTrial) -> None:
        """Store the scores of a trial that ended early.

        Of a pruned one, those that the pruner has seen: others may have come meanwhile.
        """
        results = trial.results
        if trial.is_pruned:
            results = {split: results[split] for split in range(trial.n_reported)}
        store_scores(trial.trial, partial_scores(results, n_splits=self._n_splits))

    def drop(self, trial: RunningTrial) -> None:
        """Keep the waiting fits of a trial from beginning."""
        self._slots.drop(trial.ordinal)

    def cancel(self) -> None:
        """End all fits."""
        self._slots.cancel(0)

    @property
    def _n_splits(self) -> int:
        return len(self._call.splits)

    def _report(self, trial: RunningTrial) -> None:
        """Report the next split's score; a trial with scores of all splits is complete."""
        step = trial.n_reported
        seen = [trial.results[split]["test_scores"] for split in range(step + 1)]
        value = float(np.mean(seen)) if self._means else float(seen[-1])
        trial.trial.report(value, step)
        trial.n_reported += 1
        if trial.n_reported < self._n_splits:
            trial.is_pruned = bool(trial.trial.should_prune())
        self._recorder.note_report(
            self._call,
            trial.ordinal,
            step,
            [value],
            pruned=trial.is_pruned,
            marks=marks_of(trial.trial),
        )


def prunes_splits(search: Any) -> bool:
    """Whether the scores of single splits are reported to the study's pruner.

    It must be the user's choice: a study that was given no pruner has a `MedianPruner`
    without arguments, and OptunaSearchCV itself does not use it.
    """
    from optuna.pruners import MedianPruner, NopPruner

    if search.study is None or search.enable_pruning:
        return False
    pruner = search.study.pruner
    is_default = type(pruner) is MedianPruner and vars(pruner) == vars(MedianPruner())
    return not is_default and not isinstance(pruner, NopPruner)


def reports_means(search: Any) -> bool:
    """Whether a pruner compares means so far; Wilcoxon's test compares single scores."""
    from optuna.pruners import WilcoxonPruner

    return not isinstance(search.study_.pruner, WilcoxonPruner)
