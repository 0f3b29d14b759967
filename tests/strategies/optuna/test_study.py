"""The trials of a study go on where an earlier driver has left them."""

from __future__ import annotations

import pickle
from typing import Any

import optuna
import pytest
from optuna import samplers

from dask_hpsearch.strategies.optuna.study import StudyTrials
from tests.strategies.optuna.searches import SPACE, study_with

KINDS = {
    "random": lambda: samplers.RandomSampler(seed=0),
    "TPE": lambda: samplers.TPESampler(seed=0, n_startup_trials=2),
    "QMC": lambda: samplers.QMCSampler(seed=0, warn_independent_sampling=False),
    "genetic": lambda: samplers.NSGAIISampler(seed=0, population_size=3),
}
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def go_on(study: Any, asked: list[dict[str, Any]], number: int) -> list[Any]:
    """Restore trials and ask for others; each is told before the next one."""
    trials = StudyTrials(study, SPACE)
    for ordinal in range(number):
        known = ordinal < len(asked)
        trial = (
            trials.restore(ordinal, asked[ordinal]) if known else trials.ask(ordinal)
        )
        trials.tell(trial, float(trial.params["C"]), "COMPLETE")
    return [(one.number, one.params, one.value) for one in study.trials]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_known", [1, 2, 5])
def test_a_restored_study_asks_what_it_would_have_asked(
    kind: str, n_known: int
) -> None:
    """Samplers draw as they did for the trials that are restored."""
    whole = go_on(study_with(KINDS[kind]()), [], 8)

    asked = [params for _, params, _ in whole[:n_known]]
    assert go_on(study_with(KINDS[kind]()), asked, 8) == whole


@pytest.mark.parametrize("n_known", [0, 1, 2, 3])
def test_enqueued_trials_run_once(n_known: int) -> None:
    """Each driver gets the study as it was before the search, with all of them waiting."""
    study = study_with(samplers.RandomSampler(seed=0))
    study.enqueue_trial({"C": 0.5, "degree": 3}, user_attrs={"own": "mark"})
    study.enqueue_trial({name: study_value(name) for name in SPACE})
    before = pickle.dumps(study)
    whole = go_on(study, [], 5)

    again = pickle.loads(before)
    asked = [params for _, params, _ in whole[:n_known]]

    assert go_on(again, asked, 5) == whole
    assert [one.number for one in again.trials] == list(range(5))
    assert again.trials[0].user_attrs == {"own": "mark"}


def test_a_trial_that_a_callback_has_enqueued_is_restored() -> None:
    """It does not take the place of one that still waits."""
    study = study_with(samplers.RandomSampler(seed=0))
    study.enqueue_trial({"C": 0.5})
    other = {name: study_value(name) for name in SPACE}

    trial = StudyTrials(study, SPACE).restore(0, other)

    assert trial.params == other
    assert study.get_trials(states=(optuna.trial.TrialState.WAITING,))


def study_value(name: str) -> Any:
    """Return the lowest value of a parameter, or its first category."""
    distribution: Any = SPACE[name]
    choices = getattr(distribution, "choices", None)
    return distribution.low if choices is None else choices[0]
