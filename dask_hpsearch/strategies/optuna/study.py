"""An Optuna study that is asked and told by a search, and goes on where a journal ends.

Private parts of Optuna that are used:

* ``Study._storage``, ``Study._study_id`` and ``Trial._trial_id``, by which a trial with known
  parameters is created that is still running;
* ``Study._thread_local.in_optimize_loop`` and ``Study._stop_flag``, by which ``study.stop()``
  works in callbacks; ``Study._thread_local.cached_all_trials``, which `Study.ask` clears;
* ``Trial._suggest``, as OptunaSearchCV itself, and ``Trial._cached_frozen_trial``, as that;
  ``pruners._filter_study``, as that;
* the system attributes of `SuccessiveHalvingPruner` and of ``Study.enqueue_trial``.
"""

from __future__ import annotations

import copy
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_TAG = "dask_hpsearch:trial"
_OF_PRUNERS = "completed_rung_"
_FIXED = "fixed_params"  # of Study.enqueue_trial


class StudyTrials:
    """The trials that a search adds to a study.

    Parameters
    ----------
    study : optuna.Study
    distributions : dict of str to distribution
    run_id : str
        The name of the run, by which its trials are found again in a storage that other
        processes use; empty without a journal.
    """

    def __init__(
        self, study: Any, distributions: Mapping[str, Any], *, run_id: str = ""
    ) -> None:
        self.study = study
        self._distributions = dict(distributions)
        self._run_id = run_id
        self._stored: dict[str, list[Any]] = {}
        if self.is_shared:
            for trial in study.get_trials(deepcopy=False):
                tag = trial.system_attrs.get(_TAG)
                self._stored.setdefault(tag, []).append(trial)

    @contextmanager
    def optimizing(self) -> Iterator[None]:
        """Let callbacks and samplers stop the study while the block runs."""
        local = self.study._thread_local  # noqa: SLF001
        self.study._stop_flag = False  # noqa: SLF001
        local.in_optimize_loop = True
        try:
            yield
        finally:
            local.in_optimize_loop = False

    @property
    def is_stopped(self) -> bool:
        """Whether a callback or the sampler has stopped the study."""
        return bool(self.study._stop_flag)  # noqa: SLF001

    def ask(self, ordinal: int) -> Any:
        """Return a new trial with its parameters.

        Parameters
        ----------
        ordinal : int
            Of the candidate, within the run.
        """
        trial = self._found(ordinal) or self._asked(ordinal)
        self._suggest(trial)
        return trial

    def restore(self, ordinal: int, params: Mapping[str, Any]) -> Any:
        """Return a trial that was asked before, with its parameters.

        The sampler draws as it did then, so that it does not draw the same numbers again
        for later trials; what it draws is not used. For a trial that a shared storage has
        as finished it cannot draw: its random generator gets another seed instead.
        """
        trial = self._found(ordinal, finished=True)
        if trial is None:
            # Without parameters at first: samplers look at those of running trials.
            trial = self._enqueued(params) or self._created(ordinal)
        if self.is_finished(trial):
            self.study.sampler.reseed_rng()
        else:
            self._draw(trial, params)
        return trial

    def is_finished(self, trial: Any) -> bool:
        """Whether a trial was told before, which a shared storage has."""
        return bool(self.frozen(trial).state.is_finished())

    def repeat_report(
        self,
        trial: Any,
        values: Sequence[float],
        *,
        step: int,
        marks: Mapping[str, Any],
    ) -> None:
        """Report values that were reported before, unless the storage has them.

        Parameters
        ----------
        trial : optuna.Trial
        values : sequence of float
            One for each step.
        step : int
            Of the first value.
        marks : mapping
            As `marks_of` found them.
        """
        known = self.frozen(trial).intermediate_values
        for at, value in enumerate(values, start=step):
            if at not in known:
                trial.report(float(value), at)
        for name, mark in marks.items():
            self.study._storage.set_trial_system_attr(trial._trial_id, name, mark)  # noqa: SLF001

    def tell(self, trial: Any, value: float | None, state: str) -> Any:
        """Finish a trial.

        Parameters
        ----------
        trial : optuna.Trial
        value : float or None
            The mean score, for "COMPLETE".
        state : {"COMPLETE", "PRUNED", "FAIL"}

        Returns
        -------
        optuna.trial.FrozenTrial
        """
        from optuna.trial import TrialState

        if state == "COMPLETE" and value is not None and not math.isnan(value):
            self.study.tell(trial, value)
        else:
            kind = TrialState.FAIL if state == "COMPLETE" else TrialState[state]
            self.study.tell(trial, state=kind)
        return copy.deepcopy(self.frozen(trial))

    @property
    def is_shared(self) -> bool:
        """Whether the trials are in a storage that outlives this process."""
        from optuna.storages import InMemoryStorage

        storage = self.study._storage  # noqa: SLF001
        return bool(self._run_id) and not isinstance(storage, InMemoryStorage)

    def frozen(self, trial: Any) -> Any:
        """Return a trial as the storage has it."""
        return self.study._storage.get_trial(trial._trial_id)  # noqa: SLF001

    def _found(self, ordinal: int, *, finished: bool = False) -> Any:
        """Find a trial that a driver has left in a shared storage.

        Parameters
        ----------
        ordinal : int
        finished : bool
            Whether one that is complete or pruned counts too.
        """
        from optuna.trial import Trial, TrialState

        states = {TrialState.RUNNING}
        if finished:
            states |= {TrialState.COMPLETE, TrialState.PRUNED}
        for frozen in reversed(self._stored.get(self._tag(ordinal), [])):
            if frozen.state in states:
                return Trial(self.study, frozen._trial_id)  # noqa: SLF001
        return None

    def _tag(self, ordinal: int) -> str:
        return f"{self._run_id}/{ordinal}"

    def _asked(self, ordinal: int) -> Any:
        """Ask the study for a trial that can be found again from its first moment."""
        from optuna.trial import TrialState

        study = self.study
        if not self.is_shared:
            return study.ask()
        if study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            trial = study.ask()  # one that the user has enqueued
            study._storage.set_trial_system_attr(  # noqa: SLF001
                trial._trial_id,  # noqa: SLF001
                _TAG,
                self._tag(ordinal),
            )
            return trial
        study._thread_local.cached_all_trials = None  # noqa: SLF001 (as Study.ask)
        return self._created(ordinal)

    def _enqueued(self, params: Mapping[str, Any]) -> Any:
        """Take the next trial that the user has enqueued, if it became one with ``params``.

        A study in memory comes to each driver as it was before the search.
        """
        from optuna.trial import TrialState

        if self.is_shared:
            return None
        study = self.study
        waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if not waiting:
            return None
        fixed = waiting[0].system_attrs.get(_FIXED, {})
        is_it = all(params[name] == fixed[name] for name in params if name in fixed)
        return study.ask() if is_it else None

    def _created(self, ordinal: int) -> Any:
        """Create a running trial without parameters."""
        from optuna.trial import Trial, TrialState, create_trial

        template = create_trial(
            state=TrialState.RUNNING,
            system_attrs={_TAG: self._tag(ordinal)} if self.is_shared else {},
        )
        study = self.study
        trial_id = study._storage.create_new_trial(  # noqa: SLF001
            study._study_id,  # noqa: SLF001
            template_trial=template,
        )
        return Trial(study, trial_id)

    def _suggest(self, trial: Any) -> None:
        for name, distribution in self._distributions.items():
            trial._suggest(name, distribution)  # noqa: SLF001

    def _draw(self, trial: Any, params: Mapping[str, Any]) -> None:
        """Let the sampler draw a trial's parameters, and set the known ones instead."""
        from optuna.pruners import _filter_study

        study, storage = self.study, self.study._storage  # noqa: SLF001
        trial_id = trial._trial_id  # noqa: SLF001
        relative = trial.relative_params
        for name, distribution in self._distributions.items():
            frozen = self.frozen(trial)
            is_fixed = name in frozen.system_attrs.get(_FIXED, {})
            if not (is_fixed or name in relative or distribution.single()):
                study.sampler.sample_independent(
                    _filter_study(study, frozen), frozen, name, distribution
                )
            if name in params and name not in frozen.params:
                value = distribution.to_internal_repr(params[name])
                storage.set_trial_param(trial_id, name, value, distribution)
                cached = trial._cached_frozen_trial  # noqa: SLF001 (as Trial._suggest)
                cached.distributions[name] = distribution
                cached.params[name] = params[name]


def marks_of(trial: Any) -> dict[str, Any]:
    """Return what pruners keep in a trial, such as the rungs that it has completed."""
    attrs = trial.storage.get_trial(trial._trial_id).system_attrs  # noqa: SLF001
    return {name: attrs[name] for name in attrs if name.startswith(_OF_PRUNERS)}
