"""A run's events as progress and as tables; nothing is unpickled."""

from __future__ import annotations

import html
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dask_hpsearch.journal.events import (
    AskEvent,
    CallEvent,
    DropEvent,
    FitEvent,
    HeartbeatEvent,
    StateEvent,
)
from dask_hpsearch.progress import ProgressSnapshot, SearchProgress

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd

    from dask_hpsearch.journal.events import Event
    from dask_hpsearch.runs.table import Candidate


@dataclass(frozen=True, slots=True)
class _Call:
    """A call with its candidates, also those that were asked after it began."""

    event: CallEvent
    params: dict[int, dict[str, Any]]
    digests: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, event: CallEvent) -> _Call:
        return cls(event, dict(enumerate(event.params)))

    def has(self, fit: FitEvent | DropEvent) -> bool:
        """Whether an event's candidate is known, and not that of another driver's ask."""
        known = fit.candidate in self.params
        return known and self.digests.get(fit.candidate, fit.digest) == fit.digest


class _Calls:
    """The calls of a run so far, while its events are replayed."""

    def __init__(self) -> None:
        self.by_ordinal: dict[int, _Call] = {}

    def begin(self, event: CallEvent) -> None:
        self.by_ordinal[event.call] = _Call.of(event)

    def add_ask(self, ask: AskEvent) -> None:
        """Add a candidate to a call that began without it; the first ask counts."""
        call = self.by_ordinal.get(ask.call)
        if (
            call is not None
            and call.event.generation == ask.generation
            and ask.candidate not in call.params
        ):
            call.params[ask.candidate] = ask.params
            call.digests[ask.candidate] = ask.digest

    def call_of(self, fit: FitEvent | DropEvent) -> _Call | None:
        """Return the call of an event; None if the event's candidate is not known."""
        call = self.by_ordinal.get(fit.call)
        return call if call is not None and call.has(fit) else None


def progress(
    events: Iterable[Event],
    *,
    refit: str | None,
    ended: bool,
    reason: str | None = None,
) -> ProgressSnapshot:
    """Replay events into a snapshot; rates follow from the times of the events.

    Parameters
    ----------
    events : iterable of Event
    refit : str or None
        Which of several scores counts.
    ended : bool
        Whether the run has ended.
    reason : str or None
        Why it ended early, if it did.
    """
    events = list(events)
    now = 0.0
    state = SearchProgress(clock=lambda: now)
    calls = _Calls()
    for event in _latest(events):
        now = max(now, event.time)
        if isinstance(event, FitEvent):
            _replay_fit(state, calls, event, refit)
        elif isinstance(event, DropEvent):
            if calls.call_of(event) is not None:
                state.candidate_dropped(event.call, event.candidate)
        elif isinstance(event, CallEvent):
            calls.begin(event)
            _replay_call(state, event)
        elif isinstance(event, AskEvent):
            calls.add_ask(event)
        elif isinstance(event, HeartbeatEvent):
            _replay_heartbeat(state, event)
        elif isinstance(event, StateEvent):  # a driver that tries again has an error
            state.problem_changed(event.error)
    if ended:
        _show_best_of_result(state, events)
        state.ended(reason)
    else:
        now = max(now, time.time())
    return state.snapshot()


def _replay_call(state: SearchProgress, call: CallEvent) -> None:
    n_candidates = len(call.params) if call.n_candidates is None else call.n_candidates
    state.call_started(
        call.call,
        n_candidates=n_candidates,
        n_splits=call.n_splits,
        resets_best="n_resources" in call.extra,
    )


def _replay_fit(
    state: SearchProgress, calls: _Calls, fit: FitEvent, refit: str | None
) -> None:
    call = calls.call_of(fit)
    if call is None:
        return
    state.fit_finished(
        fit.call,
        fit.candidate,
        fit.split,
        params=call.params[fit.candidate],
        score=_score(fit.result, refit),
        fit_time=float(fit.result.get("fit_time") or 0.0),
        failed=fit.result.get("fit_error") is not None,
    )


def _replay_heartbeat(state: SearchProgress, heartbeat: HeartbeatEvent) -> None:
    usage = heartbeat.usage
    if usage is not None:
        state.slots_changed(
            workers=usage.workers, slots=usage.slots, running=usage.running
        )
        state.problem_changed(usage.problem)
    if heartbeat.cost_usd is not None:
        state.spent(heartbeat.cost_usd)


def _show_best_of_result(state: SearchProgress, events: Iterable[Event]) -> None:
    """Show the best candidate of the run's result, if the last generation has one."""
    noted = [event for event in events if isinstance(event, StateEvent)]
    newest = max((event.generation for event in noted), default=0)
    for event in noted:
        if event.generation == newest and event.best is not None:
            state.chosen(event.best.score, event.best.params)
            return


def trials(events: Iterable[Event]) -> pd.DataFrame:
    """Tabulate candidates with at least one finished fit.

    If a race has dropped some, a column ``dropped`` says which.

    Raises
    ------
    MissingExtraError
        If pandas is not installed.
    """
    from dask_hpsearch.runs.table import tabulate  # imports SciPy

    calls = _Calls()
    found: dict[tuple[int, int], Candidate] = {}
    dropped: set[tuple[int, int]] = set()
    for event in _latest(events):
        if isinstance(event, CallEvent):
            calls.begin(event)
        elif isinstance(event, AskEvent):
            calls.add_ask(event)
        elif isinstance(event, FitEvent):
            call = calls.call_of(event)
            if call is not None:
                _add_fit(found, call, event)
        elif isinstance(event, DropEvent) and calls.call_of(event) is not None:
            dropped.add((event.call, event.candidate))
    n_splits = max(
        (call.event.n_splits for call in calls.by_ordinal.values()), default=0
    )
    return tabulate(list(found.values()), n_splits=n_splits, dropped=dropped)


def _add_fit(
    found: dict[tuple[int, int], Candidate], call: _Call, fit: FitEvent
) -> None:
    from dask_hpsearch.runs.table import Candidate

    key = fit.call, fit.candidate
    if key not in found:
        extra = {
            name: values[fit.candidate] for name, values in call.event.extra.items()
        }
        found[key] = Candidate(*key, call.params[fit.candidate], extra)
    found[key].results[fit.split] = fit.result


def as_html(rows: Mapping[str, str]) -> str:
    """Write names and values as a table of a notebook."""
    cells = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
        for name, value in rows.items()
    )
    return f"<table>{cells}</table>"


def _score(result: Mapping[str, Any], refit: str | None) -> float | None:
    scores = result.get("test_scores")
    if isinstance(scores, dict):
        scores = scores.get(refit)
    number = isinstance(scores, int | float) and not isinstance(scores, bool)
    return float(scores) if number else None  # type: ignore[arg-type]


def _latest(events: Iterable[Event]) -> list[Event]:
    """Order events by time, calls first; each fit once, of its call's last generation."""
    ordered = sorted(events, key=lambda event: event.time)
    newest: dict[int, int] = {}
    for event in ordered:
        if isinstance(event, CallEvent):
            newest[event.call] = max(newest.get(event.call, 0), event.generation)
    seen: set[tuple[Any, ...]] = set()
    kept: list[Event] = []
    for event in sorted(ordered, key=lambda one: not isinstance(one, CallEvent)):
        if isinstance(event, FitEvent | DropEvent):
            split = event.split if isinstance(event, FitEvent) else None
            key = event.call, event.candidate, split, event.digest
            if event.generation != newest.get(event.call) or key in seen:
                continue
            seen.add(key)
        kept.append(event)
    return kept
