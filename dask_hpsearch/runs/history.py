"""The history of a run: its candidates, when each fit ran, and the cluster meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from dask_hpsearch.journal.events import (
    AskEvent,
    CallEvent,
    DropEvent,
    FitEvent,
    HeartbeatEvent,
    StateEvent,
)
from dask_hpsearch.runs.table import Candidate
from dask_hpsearch.runs.views import Calls, latest_events

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dask_hpsearch.journal.events import Event

Key = tuple[int, int]
Note = TypeVar("Note", HeartbeatEvent, StateEvent)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedFit:
    """A fit that has finished.

    Attributes
    ----------
    call, candidate, split : int
    ended : float
        When the driver had its result, in seconds since the epoch.
    seconds : float
        Time that it took to fit and to score.
    failed : bool
    """

    call: int
    candidate: int
    split: int
    ended: float
    seconds: float
    failed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHistory:
    """The journal of a run, in order.

    Attributes
    ----------
    candidates : list of Candidate
        Those with at least one finished fit, in the order of ``cv_results_``.
    n_splits : int
    dropped : frozenset of (int, int)
        Call and number of candidates that a race has dropped.
    fits : list of FinishedFit
        By their end.
    calls : list of CallEvent
        One for each call, of its last generation.
    heartbeats : list of HeartbeatEvent
    states : list of StateEvent
    refit : str or None
        Which of several scores counts.
    """

    candidates: list[Candidate]
    n_splits: int
    dropped: frozenset[Key]
    fits: list[FinishedFit]
    calls: list[CallEvent]
    heartbeats: list[HeartbeatEvent]
    states: list[StateEvent]
    refit: str | None


def history_of(events: Iterable[Event], *, refit: str | None) -> RunHistory:
    """Replay a run's events.

    Parameters
    ----------
    events : iterable of Event
    refit : str or None
        Which of several scores counts.
    """
    events = list(events)
    ends = first_ends(events)
    calls = Calls()
    found: dict[Key, Candidate] = {}
    dropped: set[Key] = set()
    fits: list[FinishedFit] = []
    for event in latest_events(events):
        if isinstance(event, CallEvent):
            calls.begin(event)
        elif isinstance(event, AskEvent):
            calls.add_ask(event)
        elif isinstance(event, FitEvent | DropEvent):
            call = calls.call_of(event)
            if call is None:
                continue
            key = event.call, event.candidate
            if isinstance(event, DropEvent):
                dropped.add(key)
                continue
            if key not in found:
                found[key] = Candidate(
                    *key,
                    call.params_of(event.candidate),
                    call.extra_of(event.candidate),
                )
            found[key].results[event.split] = event.result
            fits.append(_finished(event, ends))
    begun = [call.event for call in calls.by_ordinal.values()]
    return RunHistory(
        candidates=[found[key] for key in sorted(found)],
        n_splits=max((call.n_splits for call in begun), default=0),
        dropped=frozenset(dropped),
        fits=sorted(fits, key=lambda fit: fit.ended),
        calls=sorted(begun, key=lambda call: call.call),
        heartbeats=_in_order(events, HeartbeatEvent),
        states=_in_order(events, StateEvent),
        refit=refit,
    )


def _in_order(events: Iterable[Event], kind: type[Note]) -> list[Note]:
    found = [event for event in events if isinstance(event, kind)]
    return sorted(found, key=lambda event: event.time)


def first_ends(events: Iterable[Event]) -> Mapping[tuple[int, str, int], float]:
    """Return when fits ended first, by call, digest of the candidate and split.

    A new generation takes over the results of the one before: their events are younger
    than the fits.
    """
    fits = [event for event in events if isinstance(event, FitEvent)]
    newest: dict[int, int] = {}
    for fit in fits:
        newest[fit.call] = max(newest.get(fit.call, 0), fit.generation)
    ends: dict[tuple[int, str, int], float] = {}
    for fit in fits:
        if fit.generation < newest[fit.call]:
            key = fit.call, fit.digest, fit.split
            ends[key] = min(ends.get(key, fit.time), fit.time)
    return ends


def _finished(
    fit: FitEvent, first_ends: Mapping[tuple[int, str, int], float]
) -> FinishedFit:
    times = (fit.result.get(name) for name in ("fit_time", "score_time"))
    return FinishedFit(
        call=fit.call,
        candidate=fit.candidate,
        split=fit.split,
        ended=first_ends.get((fit.call, fit.digest, fit.split), fit.time),
        seconds=sum(float(one) for one in times if isinstance(one, int | float)),
        failed=fit.result.get("fit_error") is not None,
    )
