"""A trial as steps of ``partial_fit`` on each split, with ``enable_pruning=True``.

A part of a trial is some steps on one split, few at first, and more as it is known how long
they take. The pruner decides after each step, as in OptunaSearchCV; steps of a part that came
after its decision do not count.
"""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import cloudpickle
import numpy as np

from dask_hpsearch.strategies.optuna.partial_steps import train_steps
from dask_hpsearch.strategies.optuna.scores import (
    partial_scores,
    report_to_terminator,
    store_scores,
)
from dask_hpsearch.strategies.optuna.study import marks_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dask_hpsearch.joblib_backend.session import Session
    from dask_hpsearch.recorder.call import RecordedCall
    from dask_hpsearch.recorder.recorder import Recorder
    from dask_hpsearch.sklearn_adapter import FitCall
    from dask_hpsearch.strategies.optuna.partial_steps import Training
    from dask_hpsearch.strategies.optuna.trial_loop import RunningTrial

_TARGET_S = 0.5
_SMOOTHING = 0.3


def part_size(*, done: int, known: int, most: int, step_s: float | None) -> int:
    """Return how many steps a trial's next parts have.

    Parameters
    ----------
    done : int
        Steps that the trial has.
    known : int
        Steps of which an earlier driver's journal has the decisions.
    most : int
        Steps of a whole trial.
    step_s : float or None
        Mean seconds of a step.
    """
    by_time = 1 if step_s is None else int(_TARGET_S / max(step_s, 1e-6))
    size = max(1, min(by_time, done), known - done)
    return min(size, most - done)


@dataclass(slots=True)
class _Models:
    """The models of a trial, one for each split.

    Attributes
    ----------
    states : list of bytes
        Pickled.
    n_steps : int
        Steps that they have.
    size : int
        Steps of the parts that run.
    parts : dict of int to dict
        Those that have ended, by split.
    """

    states: list[bytes]
    n_steps: int = 0
    size: int = 1
    parts: dict[int, dict[str, Any]] = field(default_factory=dict)


class PartialFits:
    """The training of trials with ``enable_pruning=True``.

    Parameters
    ----------
    session : Session
    recorder : Recorder
    call : RecordedCall
    fit_call : FitCall
        The captured one, by which finished trials are noted.
    training : Training
    max_iter : int
        Steps of a whole trial.
    """

    one_by_one = False

    def __init__(
        self,
        session: Session,
        recorder: Recorder,
        call: RecordedCall,
        fit_call: FitCall,
        *,
        training: Training,
        max_iter: int,
    ) -> None:
        self._session = session
        self._recorder = recorder
        self._call = call
        self._fit_call = fit_call
        self._training = training
        self._max_iter = max_iter
        self._group = session.new_group()
        self._part = _part_of(fit_call, training)
        self._models: dict[int, _Models] = {}
        self._step_s: float | None = None

    @property
    def slots(self) -> int:
        """Number of slots now."""
        return self._session.slots

    def begin(self, trial: RunningTrial) -> None:
        """Begin with unfitted models."""
        from sklearn.base import clone

        estimator = clone(self._fit_call.estimator)
        estimator.set_params(**self._call.candidates[trial.ordinal])
        state = cloudpickle.dumps(clone(estimator), protocol=5)
        self._models[trial.ordinal] = _Models([state] * self._n_splits)
        trial.left = deque(range(self._n_splits))

    def submit(
        self, trial: RunningTrial, split: int, done: Callable[[Any], None]
    ) -> None:
        """Train the next steps on a split."""
        models = self._models[trial.ordinal]
        if not models.parts and len(trial.left) == self._n_splits - 1:
            models.size = part_size(
                done=models.n_steps,
                known=trial.n_reported,
                most=self._max_iter,
                step_s=self._step_s,
            )
        train, test = self._call.splits[split]
        parameters = {"model": models.states[split], "n_steps": models.size}
        part = dataclasses.replace(
            self._part, train=train, test=test, parameters=parameters
        )

        def taken(result: Any) -> None:
            done(self._whole(result, parameters))

        self._session.submit_fit(part, self._group, taken)

    def recall(self, trial: RunningTrial) -> None:
        """Give a trial that was told before its results."""
        trial.results = self._call.results_of(trial.ordinal)
        trial.is_whole = len(trial.results) == self._n_splits
        self._models.pop(trial.ordinal, None)

    def take(self, trial: RunningTrial, split: int, result: dict[str, Any]) -> None:
        """Take in a part; once those of all splits are there, let the pruner decide."""
        models = self._models[trial.ordinal]
        models.parts[split] = result
        models.states[split] = result["model"]
        step_s = (result["fit_time"] + result["score_time"]) / models.size
        known = step_s if self._step_s is None else self._step_s
        self._step_s = known + _SMOOTHING * (step_s - known)
        if len(models.parts) < self._n_splits:
            return
        self._take_steps(trial, models)
        models.parts.clear()
        if trial.has_ended:
            del self._models[trial.ordinal]
        else:
            trial.left = deque(range(self._n_splits))

    def store(self, trial: RunningTrial) -> float:
        """Store the scores of a whole trial; return their mean."""
        self.store_partial(trial)
        scores = partial_scores(trial.results, n_splits=self._n_splits)
        report_to_terminator(trial.trial, scores)
        return float(trial.trial.user_attrs["mean_test_score"])

    def store_partial(self, trial: RunningTrial) -> None:
        """Store the scores of a trial's last step."""
        scores = partial_scores(trial.results, n_splits=self._n_splits)
        store_scores(trial.trial, scores)

    def drop(self, trial: RunningTrial) -> None:
        """Forget a trial's models; its parts that run go on."""
        self._models.pop(trial.ordinal, None)

    def cancel(self) -> None:
        """End all parts."""
        self._session.cancel(self._group)

    @property
    def _n_splits(self) -> int:
        return len(self._call.splits)

    def _whole(self, result: Any, parameters: Mapping[str, Any]) -> Any:
        """Return a part's result; if its process was ended, its steps have failed."""
        if not isinstance(result, dict) or "model" in result:
            return result
        size = parameters["n_steps"]
        scores, none = [self._training.error_score] * size, [0.0] * size
        return {
            "test_scores": scores,
            "train_scores": scores,
            "fit_times": none,
            "score_times": none,
            "fit_time": 0.0,
            "score_time": 0.0,
            "model": parameters["model"],
        }

    def _take_steps(self, trial: RunningTrial, models: _Models) -> None:
        """Report the steps of a trial's parts, until the pruner ends it."""
        first, values = models.n_steps, list[float]()
        for at in range(models.size):
            self._add_step(trial, models, at)
            step = models.n_steps
            models.n_steps += 1
            if step < trial.n_reported:  # an earlier driver's pruner has decided
                continue
            first = first if values else step
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # all are NaN
                scores = [one["test_scores"] for one in trial.results.values()]
                values.append(float(np.nanmean(scores)))
            trial.trial.report(values[-1], step)
            trial.n_reported += 1
            trial.is_pruned = bool(trial.trial.should_prune())
            if trial.is_pruned:
                break
        trial.is_whole = models.n_steps == self._max_iter and not trial.is_pruned
        if trial.has_ended:
            self._note_fits(trial)
        if values:
            self._recorder.note_report(
                self._call,
                trial.ordinal,
                first,
                values,
                pruned=trial.is_pruned,
                marks=marks_of(trial.trial),
            )

    def _add_step(self, trial: RunningTrial, models: _Models, at: int) -> None:
        """Make the results of a trial those of a further step."""
        for split in range(self._n_splits):
            part = models.parts[split]
            before = trial.results.get(split, {})
            result = {
                "fit_error": None,
                "test_scores": part["test_scores"][at],
                "fit_time": before.get("fit_time", 0.0) + part["fit_times"][at],
                "score_time": before.get("score_time", 0.0) + part["score_times"][at],
            }
            if self._training.return_train_score:
                result["train_scores"] = part["train_scores"][at]
            trial.results[split] = result

    def _note_fits(self, trial: RunningTrial) -> None:
        """Note a trial's results, which make the report after them complete."""
        for split, result in trial.results.items():
            fit = dataclasses.replace(
                self._fit_call, candidate=trial.ordinal, split=split
            )
            self._recorder.finished(fit, result)


def _part_of(fit_call: FitCall, training: Training) -> FitCall:
    """Return the call of a part, without its split and its model.

    It has no ordinals: the journal gets the results of whole and of pruned trials only.
    """
    function = copy.copy(fit_call.function)  # with the caller's filters of warnings
    if hasattr(function, "function"):
        function.function = train_steps
    else:
        function = train_steps
    shared = {"training": training, "error_score": training.error_score}
    return dataclasses.replace(
        fit_call, function=function, candidate=None, split=None, shared=shared
    )
