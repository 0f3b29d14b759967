"""The candidates of a run as the trials of an Optuna study."""

from __future__ import annotations

import datetime as dt
import math
from typing import TYPE_CHECKING, Any

from dask_hpsearch.exports.candidate_result import CandidateResult, CandidateState
from dask_hpsearch.exports.parameter_space import (
    distributions_of,
    space_of,
    with_value,
)
from dask_hpsearch.extras import map_import_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

KEY = "dask_hpsearch"  # of the user attribute by which a trial is found again


def to_study(
    results: Sequence[CandidateResult],
    search: Any,
    *,
    storage: Any,
    study_name: str,
    scoring: str | None,
    refit: str | None,
) -> Any:
    """Add candidates to a study, those that it does not have yet.

    Parameters
    ----------
    results : sequence of CandidateResult
        Those that are unfinished are left out.
    search : object or None
        The search as the user made it, for its space; None: the values decide.
    storage : str, optuna.storages.BaseStorage or None
    study_name : str
        Of a new study, or of one to add to.
    scoring : str or None
        Which of several scores is the trials' value; None: the one in ``refit``.
    refit : str or None
        By which of several scores the search ranks.

    Returns
    -------
    optuna.Study

    Raises
    ------
    MissingExtraError
        If Optuna is not installed.
    ValueError
        If there is no such score, none of several is chosen, or the study is of another
        kind.
    """
    with map_import_errors("to_optuna()"):
        import optuna
    name = _score_name(results, scoring, refit)
    study = optuna.create_study(
        storage=storage,
        study_name=study_name,
        direction="maximize",
        load_if_exists=True,
    )
    known = [trial for trial in study.get_trials(deepcopy=False) if _key_of(trial)]
    new = _unknown(results, known)
    space = _distributions(results, search)
    for trial in known:
        space |= {
            parameter: distribution
            for parameter, distribution in trial.distributions.items()
            if _kind(distribution) == _kind(space.get(parameter, distribution))
        }
    for one in sorted(new, key=lambda one: one.ended):
        trial = _trial_of(one, space, name)
        try:
            study.add_trial(trial)
        except ValueError as error:
            msg = (
                f"study {study_name!r} cannot take candidate {one.name} of run "
                f"{one.run_id}: {error}; export it to a study of its own, study_name=..."
            )
            raise ValueError(msg) from error
    return study


def _kind(distribution: Any) -> type:
    return type(distribution)


def _score_name(
    results: Sequence[CandidateResult], scoring: str | None, refit: str | None
) -> str:
    """Return the name of the score to export."""
    names = list(dict.fromkeys(name for one in results for name in one.mean_scores))
    if scoring is not None and scoring not in names:
        msg = f"scoring must be one of {names} for this search, got {scoring!r}"
        raise ValueError(msg)
    chosen = refit if scoring is None else scoring
    if chosen is None and len(names) > 1:
        msg = f"the search has several scores: choose one with scoring=, of {names}"
        raise ValueError(msg)
    return chosen or next(iter(names), "score")


def _key_of(trial: Any) -> dict[str, Any] | None:
    key: dict[str, Any] | None = trial.user_attrs.get(KEY)
    return key


def _unknown(
    results: Iterable[CandidateResult], known: Iterable[Any]
) -> list[CandidateResult]:
    """Return the ended candidates that no trial is of.

    Within a generation of a run, ordinals name a candidate. In an extended run they may
    change: there the same parameters in the same call are the same candidate.
    """
    keys = [key for key in map(_key_of, known) if key is not None]
    ordinals = {
        (key["run"], key["generation"], key["call"], key["candidate"]) for key in keys
    }
    earlier: dict[tuple[Any, ...], list[int]] = {}
    for key in keys:
        earlier.setdefault((key["run"], key["call"], key["digest"]), []).append(
            key["generation"]
        )
    new = []
    for one in results:
        if one.state == CandidateState.UNFINISHED:
            continue
        if (one.run_id, one.generation, one.call, one.number) in ordinals:
            continue
        same = earlier.get((one.run_id, one.call, one.digest), [])
        older = [
            at for at, generation in enumerate(same) if generation < one.generation
        ]
        if older:
            del same[older[0]]
        else:
            new.append(one)
    return new


def _distributions(results: Sequence[CandidateResult], search: Any) -> dict[str, Any]:
    values: dict[str, list[Any]] = {}
    for one in results:
        for name, value in one.params.items():
            values.setdefault(name, []).append(value)
    return distributions_of({} if search is None else space_of(search), values)


def _trial_of(one: CandidateResult, space: Mapping[str, Any], scoring: str) -> Any:
    from optuna.trial import TrialState, create_trial

    states = {
        CandidateState.COMPLETE: TrialState.COMPLETE,
        CandidateState.DROPPED: TrialState.PRUNED,
        CandidateState.FAILED: TrialState.FAIL,
    }
    value = one.mean_scores.get(scoring, math.nan)
    state = states[one.state]
    missing = math.isnan(value)
    if missing and state == TrialState.COMPLETE:
        state = TrialState.FAIL
    trial = create_trial(
        state=state,
        value=None if missing or state == TrialState.FAIL else value,
        params=dict(one.params),
        distributions={
            name: with_value(space[name], given) for name, given in one.params.items()
        },
        user_attrs=_attributes(one),
        intermediate_values={
            split: score
            for split, score in enumerate(one.split_scores.get(scoring, ()))
            if math.isfinite(score)
        },
    )
    trial.datetime_start = _time(one.started)
    trial.datetime_complete = _time(one.ended)
    return trial


def _attributes(one: CandidateResult) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        KEY: {
            "run": one.run_id,
            "call": one.call,
            "candidate": one.number,
            "generation": one.generation,
            "digest": one.digest,
        },
        "state": str(one.state),
        "fit_times": _plain(one.fit_times),
        "score_times": _plain(one.score_times),
    }
    for name, scores in one.split_scores.items():
        attributes[f"split_test_{name}"] = _plain(scores)
        attributes[f"mean_test_{name}"] = _plain([one.mean_scores[name]])[0]
    for name, scores in one.train_scores.items():
        attributes[f"split_train_{name}"] = _plain(scores)
    return attributes | dict(one.extra)


def _plain(values: Sequence[float]) -> list[float | None]:
    """Return numbers that are JSON; None for the others."""
    return [value if math.isfinite(value) else None for value in values]


def _time(seconds: float) -> dt.datetime:
    """Return a local time without time zone, as Optuna has it."""
    return dt.datetime.fromtimestamp(seconds)  # noqa: DTZ006 (Optuna's own times have none)
