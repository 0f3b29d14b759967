"""The live state of a run: the facts that every view shows, as values that JSON has."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dask_hpsearch.live.candidates import Status
from dask_hpsearch.progress import text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dask_hpsearch.live.candidates import (
        CandidateProgress,
        Candidates,
        FloatArray,
        IntArray,
    )
    from dask_hpsearch.progress import ProgressSnapshot

N_TOP = 10
_MOST_POINTS = 240
_MOST_STEPS = 120
_STATES_WITHOUT_END = ("starting", "running")

Params = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """A run, apart from its progress.

    Attributes
    ----------
    run_id, name, search, url : str
        ``name`` is the ``task_name``, ``search`` the class.
    created : float
        Seconds since the epoch.
    """

    run_id: str
    name: str
    search: str
    url: str
    created: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TopCandidate:
    """One of the best complete candidates.

    Attributes
    ----------
    rank : int
        From 1; equal scores have the same rank.
    call, candidate : int
    score, std : float
        Mean over the splits, and standard deviation.
    params : tuple of (str, str)
        Names and values, as texts.
    """

    rank: int
    call: int
    candidate: int
    score: float
    std: float
    params: Params


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Scores of candidates in the order in which they ended, thinned.

    Attributes
    ----------
    n : int
        Number of candidates that have ended.
    x : tuple of int
        Places in that order, from 1.
    scores : tuple of float or None
        None for a candidate that failed.
    best_x, best : tuple
        Where the best score so far became better, and to what; with the last place.
    """

    n: int
    x: tuple[int, ...]
    scores: tuple[float | None, ...]
    best_x: tuple[int, ...]
    best: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveState:
    """A run at one moment.

    Attributes
    ----------
    about : About
    at : float
        The moment, in seconds since the epoch.
    state : str
        As `RunState` has it.
    reason, error, problem : str
        Why it was stopped early; the error that ended it; the problem of the cluster.
        Empty if there is none.
    fits_done, fits_total, fits_failed : int
    n_candidates, complete, failed, dropped : int
        Candidates that are known, and of these: complete, failed and dropped.
    rate : float
        Fits per second.
    elapsed : float
        Seconds.
    eta : float or None
        When the known fits will be done, in seconds since the epoch.
    best_score : float or None
    best_params : tuple of (str, str), or None
        None if no candidate is complete.
    curve : Curve
    top : tuple of TopCandidate
    workers, slots, busy : int
    cost_usd : float or None
    dashboard : str
        URL of Dask's dashboard; empty if it is not known.
    actions : tuple of str
        What may be done now: "stop", "cancel", "scale".
    """

    about: About
    at: float
    state: str
    reason: str
    error: str
    problem: str
    fits_done: int
    fits_total: int
    fits_failed: int
    n_candidates: int
    complete: int
    failed: int
    dropped: int
    rate: float
    elapsed: float
    eta: float | None
    best_score: float | None
    best_params: Params | None
    curve: Curve
    top: tuple[TopCandidate, ...]
    workers: int
    slots: int
    busy: int
    cost_usd: float | None
    dashboard: str
    actions: tuple[str, ...]

    @property
    def has_ended(self) -> bool:
        """Whether nothing more happens to the run by itself."""
        return self.state not in _STATES_WITHOUT_END

    def to_json(self) -> dict[str, Any]:
        """Return the state as values that JSON has; no number is NaN or infinite."""
        return {name: _plain(value) for name, value in asdict(self).items()}


def live_state(
    about: About,
    snapshot: ProgressSnapshot,
    progress: CandidateProgress,
    *,
    at: float,
    state: str,
    error: str = "",
    problem: str = "",
    dashboard: str = "",
    can_scale: bool = False,
) -> LiveState:
    """Gather the facts of one moment.

    Parameters
    ----------
    about : About
    snapshot : ProgressSnapshot
        Of ``progress``.
    progress : CandidateProgress
    at : float
        Seconds since the epoch.
    state, error, problem, dashboard : str
        As for `LiveState`; without a problem, that of the snapshot counts.
    can_scale : bool
        Whether the view can scale the cluster.
    """
    candidates = progress.candidates()
    best = snapshot.best_params
    under_way = state in _STATES_WITHOUT_END
    can = {"stop": under_way, "cancel": under_way, "scale": under_way and can_scale}
    return LiveState(
        about=about,
        at=at,
        state=state,
        reason=snapshot.reason or "",
        error=error,
        problem=problem or snapshot.problem,
        fits_done=snapshot.fits_done,
        fits_total=snapshot.fits_total,
        fits_failed=snapshot.fits_failed,
        n_candidates=progress.n_candidates(),
        complete=candidates.count(Status.COMPLETE),
        failed=candidates.count(Status.FAILED),
        dropped=snapshot.dropped,
        rate=snapshot.rate,
        elapsed=snapshot.elapsed,
        eta=_eta(snapshot, at),
        best_score=snapshot.best_score,
        best_params=None if best is None else shown_params(best),
        curve=curve_of(candidates),
        top=_top(candidates, progress),
        workers=snapshot.workers,
        slots=snapshot.slots,
        busy=snapshot.running if under_way else 0,
        cost_usd=snapshot.cost_usd,
        dashboard=dashboard if under_way else "",
        actions=tuple(name for name, possible in can.items() if possible),
    )


def shown_params(params: Mapping[str, Any]) -> Params:
    """Return parameters as texts; floats with five digits."""
    return tuple((str(name), shown_value(value)) for name, value in params.items())


def shown_value(value: Any) -> str:
    """Return a parameter's value as a short text."""
    if isinstance(value, float):
        return f"{value:.5g}"
    return text.printable(text.shorten_value(value))


def curve_of(candidates: Candidates) -> Curve:
    """Return the scores in the order of their ends, and the best so far.

    Of many candidates, the best one of each of some hundred stretches is kept, and the
    failed ones up to a limit.
    """
    ended = candidates.compares & (
        (candidates.status == Status.COMPLETE) | (candidates.status == Status.FAILED)
    )
    rows = np.flatnonzero(ended)
    rows = rows[np.argsort(candidates.ends[rows], kind="stable")]
    failed = candidates.status[rows] == Status.FAILED
    scores = np.where(failed, np.nan, candidates.scores[rows])
    scores[~np.isfinite(scores)] = np.nan
    best_x, best = _best_so_far(scores)
    kept = np.union1d(_thinned(scores), _some(np.flatnonzero(failed)))
    return Curve(
        n=len(rows),
        x=tuple((kept + 1).tolist()),
        scores=tuple(
            None if math.isnan(one) else _rounded(one) for one in scores[kept].tolist()
        ),
        best_x=tuple((best_x + 1).tolist()),
        best=tuple(map(_rounded, best.tolist())),
    )


def _best_so_far(scores: FloatArray) -> tuple[IntArray, FloatArray]:
    """Return where the best score so far became better, and the last place."""
    known = np.flatnonzero(~np.isnan(scores))
    if not len(known):
        return known, np.empty(0)
    best = np.maximum.accumulate(scores[known])
    better = np.append(True, np.diff(best) > 0)
    x, y = known[better], best[better]
    if len(x) > _MOST_STEPS:
        chosen = np.unique(np.linspace(0, len(x) - 1, _MOST_STEPS).round()).astype(int)
        x, y = x[chosen], y[chosen]
    return np.append(x, len(scores) - 1), np.append(y, y[-1])


def _thinned(scores: FloatArray) -> IntArray:
    """Return the places of some scores: the best and the middle one of each stretch."""
    known = np.flatnonzero(~np.isnan(scores))
    if len(known) <= _MOST_POINTS:
        return known
    chosen = []
    for stretch in np.array_split(known, _MOST_POINTS // 2):
        order = stretch[np.argsort(scores[stretch])]
        chosen += [order[-1], order[len(order) // 2]]
    return np.unique(chosen)


def _some(places: IntArray) -> IntArray:
    if len(places) <= _MOST_POINTS // 4:
        return places
    chosen = np.linspace(0, len(places) - 1, _MOST_POINTS // 4).round().astype(int)
    return np.take(places, chosen)


def _top(
    candidates: Candidates, progress: CandidateProgress
) -> tuple[TopCandidate, ...]:
    complete = candidates.compares & (candidates.status == Status.COMPLETE)
    rows = np.flatnonzero(complete & np.isfinite(candidates.scores))
    scores = candidates.scores[rows]
    if len(rows) > N_TOP:  # of equal scores, the first candidates count
        least = np.partition(scores, -N_TOP)[-N_TOP]
        rows = rows[scores >= least]
    rows = rows[np.argsort(-candidates.scores[rows], kind="stable")][:N_TOP]
    found: list[TopCandidate] = []
    for place, row in enumerate(rows.tolist()):
        call, candidate = int(candidates.calls[row]), int(candidates.numbers[row])
        score = float(candidates.scores[row])
        equal = bool(found) and found[-1].score == score
        splits = progress.split_scores_of(call, candidate)
        found.append(
            TopCandidate(
                rank=found[-1].rank if equal else place + 1,
                call=call,
                candidate=candidate,
                score=score,
                std=float(np.std(splits)) if len(splits) else 0.0,
                params=shown_params(progress.params_of(call, candidate)),
            )
        )
    return tuple(found)


def _eta(snapshot: ProgressSnapshot, at: float) -> float | None:
    if snapshot.eta is None or snapshot.fits_done >= snapshot.fits_total:
        return None
    return at + snapshot.eta


def _rounded(score: float) -> float:
    """Return a score with six digits, which a picture needs at most."""
    return float(f"{score:.6g}")


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def varied_names(params: Sequence[Params]) -> list[str]:
    """Return the names of parameters that differ; all names if none does."""
    values: dict[str, set[str | None]] = {}
    for one in params:
        for name, _ in one:
            values.setdefault(name, set())
    for one in params:
        given = dict(one)
        for name, known in values.items():
            known.add(given.get(name))
    varied = [name for name, known in values.items() if len(known) > 1]
    return varied or list(values)
