"""A run's events as progress and as tables; nothing is unpickled."""

from __future__ import annotations

import html
import operator
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dask_hpsearch.journal.contents import Content
from dask_hpsearch.journal.events import (
    AskEvent,
    CallEvent,
    DropEvent,
    FitEvent,
    HeartbeatEvent,
    StateEvent,
)
from dask_hpsearch.journal.fit_columns import FitColumns, score_of
from dask_hpsearch.journal.training_events import RoundEvent, TrainEvent
from dask_hpsearch.progress import Fits, ProgressSnapshot, SearchProgress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import pandas as pd

    from dask_hpsearch.journal.events import Event
    from dask_hpsearch.runs.table import Candidate


@dataclass(frozen=True, slots=True)
class _Call:
    """A call with its candidates, also those that were asked after it began."""

    event: CallEvent
    asked: dict[int, AskEvent] = field(default_factory=dict)

    def params_of(self, candidate: int) -> dict[str, Any]:
        """Return the parameters of a candidate that it has."""
        if candidate < len(self.event.params):
            return self.event.params[candidate]
        return self.asked[candidate].params

    def extra_of(self, candidate: int) -> dict[str, Any]:
        """Return what the search class adds for a candidate.

        A call whose candidates were not known has one value for all of them.
        """
        return {
            name: values[min(candidate, len(values) - 1)]
            for name, values in self.event.extra.items()
        }

    def knows(self, candidate: int) -> bool:
        """Whether it has a candidate."""
        return candidate < len(self.event.params) or candidate in self.asked

    def has(self, event: FitEvent | DropEvent) -> bool:
        """Whether an event's candidate is known, and not that of another driver's ask."""
        ask = self.asked.get(event.candidate)
        known = self.knows(event.candidate)
        return known and (ask is None or ask.digest == event.digest)


class Calls:
    """The calls of a run so far, while its events are replayed."""

    def __init__(self) -> None:
        self.by_ordinal: dict[int, _Call] = {}

    def begin(self, event: CallEvent) -> None:
        """Begin a call, or begin it again in a later generation."""
        self.by_ordinal[event.call] = _Call(event)

    def add_ask(self, ask: AskEvent) -> None:
        """Add a candidate to a call that began without it; the first ask counts."""
        call = self.by_ordinal.get(ask.call)
        if (
            call is not None
            and call.event.generation == ask.generation
            and not call.knows(ask.candidate)
        ):
            call.asked[ask.candidate] = ask

    def call_of(self, fit: FitEvent | DropEvent | FitColumns) -> _Call | None:
        """Return the call of an event; None if the event's candidate is not known."""
        call = self.by_ordinal.get(fit.call)
        if call is None or isinstance(fit, FitColumns):
            return call
        return call if call.has(fit) else None


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
    seen = RunProgress(refit=refit)
    seen.update({"events": Content.of(list(events))})
    return seen.snapshot(ended=ended, reason=reason)


class RunProgress:
    """The progress of a run, kept up to date as its journal grows.

    Parameters
    ----------
    refit : str or None
        Which of several scores counts.
    counter : callable
        Takes a clock, and returns what counts the fits. Called again if all is replayed.
    """

    def __init__(
        self,
        *,
        refit: str | None,
        counter: Callable[[Callable[[], float]], SearchProgress] = SearchProgress,
    ) -> None:
        self._refit = refit
        self._counter = counter
        self._begin()

    def _begin(self) -> None:
        self._now = self._newest = self._last_note = 0.0
        self._state = self._counter(lambda: self._now)
        self._calls = Calls()
        self._newest_of_call: dict[int, int] = {}
        self._seen: set[str] = set()
        self._states: list[StateEvent] = []
        self._ended = False

    def update(self, objects: Mapping[str, Content]) -> None:
        """Take in what a journal has, of which most was there the last time.

        New candidates may change what counts of the rest: then all is replayed. Those
        that were asked after everything that is known change nothing.
        """
        new = [one for name, one in objects.items() if name not in self._seen]
        begins = any(
            isinstance(event, CallEvent)
            or (isinstance(event, AskEvent) and event.time < self._newest)
            for one in new
            for event in one.notes
        )
        if new and (begins or self._ended):
            self._begin()
            new = list(objects.values())
        self._seen = set(objects)
        self._replay(new)

    def snapshot(self, *, ended: bool, reason: str | None = None) -> ProgressSnapshot:
        """Return the progress.

        Parameters
        ----------
        ended : bool
            Whether the run has ended.
        reason : str or None
            Why it ended early, if it did.
        """
        self._now = self._newest if ended else max(self._newest, time.time())
        if ended:
            self._ended = True
            _show_best_of_result(self._state, self._states)
            self._state.ended(reason)
        return self._state.snapshot()

    def _replay(self, contents: list[Content]) -> None:
        """Replay events in the order of time, calls first."""
        plain = [event for one in contents for event in one.plain]
        plain.sort(key=lambda event: event.time)
        calls = [event for event in plain if isinstance(event, CallEvent)]
        for call in calls:
            newest = max(self._newest_of_call.get(call.call, 0), call.generation)
            self._newest_of_call[call.call] = newest
        for call in calls:
            self._now = self._newest = max(self._newest, call.time)
            self._calls.begin(call)
            _replay_call(self._state, call)
        timed: list[tuple[float, Event | FitColumns]]
        timed = [(event.time, event) for event in plain]
        timed += [(one.newest_time, one) for each in contents for one in each.columns]
        timed.sort(key=operator.itemgetter(0))
        for seconds, event in timed:
            self._now = self._newest = max(self._newest, seconds)
            self._replay_one(event)

    def _replay_one(self, event: Event | FitColumns) -> None:
        if isinstance(event, FitColumns):
            self._replay_fits(event)
        elif isinstance(event, FitEvent):
            self._replay_fit(event)
        elif isinstance(event, AskEvent):
            self._calls.add_ask(event)
        elif isinstance(event, DropEvent):
            self._replay_drop(event)
        elif isinstance(event, TrainEvent):
            self._replay_training(event)
        elif isinstance(event, RoundEvent):
            self._state.more_calls_wanted(event.call, event.calls)
        elif event.time >= self._last_note:
            self._replay_note(event)

    def _replay_note(self, event: Event) -> None:
        if isinstance(event, HeartbeatEvent):
            self._last_note = event.time
            _replay_heartbeat(self._state, event)
        elif isinstance(event, StateEvent):
            self._last_note = event.time
            self._states.append(event)
            # A driver that tries again has an error.
            self._state.problem_changed(event.error)

    def _replay_fit(self, fit: FitEvent) -> None:
        call = self._calls.call_of(fit)
        if call is None or fit.generation != self._newest_of_call[fit.call]:
            return
        score = score_of(fit.result.get("test_scores"), self._refit)
        self._state.fit_finished(
            fit.call,
            fit.candidate,
            fit.split,
            params=call.params_of(fit.candidate),
            score=score,
            fit_time=float(fit.result.get("fit_time") or 0.0),
            failed=fit.result.get("fit_error") is not None,
        )

    def _replay_training(self, event: TrainEvent) -> None:
        call = self._calls.by_ordinal.get(event.call)
        if call is None or not call.knows(event.candidate):
            return
        self._state.model_trained(
            event.call,
            event.candidate,
            event.calls,
            params=call.params_of(event.candidate),
            score=score_of(event.result.get("score"), None),
        )

    def _replay_drop(self, drop: DropEvent) -> None:
        call = self._calls.call_of(drop)
        if call is not None and drop.generation == self._newest_of_call[drop.call]:
            self._state.candidate_dropped(drop.call, drop.candidate)

    def _replay_fits(self, columns: FitColumns) -> None:
        call = self._calls.call_of(columns)
        if call is None or columns.generation != self._newest_of_call[columns.call]:
            return
        if call.asked:  # their digests count
            for fit in columns.events():
                self._replay_fit(fit)
            return
        known = columns.candidates < len(call.event.params)
        fits = Fits(
            columns.candidates[known],
            columns.splits[known],
            columns.scores(self._refit)[known],
            columns.failed()[known],
            columns.times[known],
        )
        self._state.fits_finished(columns.call, fits, call.params_of)


def _replay_call(state: SearchProgress, call: CallEvent) -> None:
    if call.trains_models:
        state.training_started(call.call, n_models=len(call.params))
        return
    n_candidates = len(call.params) if call.n_candidates is None else call.n_candidates
    state.call_started(
        call.call,
        n_candidates=n_candidates,
        n_splits=call.n_splits,
        resets_best="n_resources" in call.extra,
        still_open=call.n_candidates is not None,
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


def _show_best_of_result(state: SearchProgress, noted: Iterable[StateEvent]) -> None:
    """Show the best candidate of the run's result, if the last generation has one."""
    noted = list(noted)
    newest = max((event.generation for event in noted), default=0)
    for event in noted:
        if event.generation == newest and event.best is not None:
            state.chosen(event.best.score, event.best.params)
            return


def trials(events: Iterable[Event]) -> pd.DataFrame:
    """Tabulate candidates with at least one finished fit.

    If a race has dropped some, a column ``dropped`` says which. Models that are trained by
    ``partial_fit`` have the result of their last scoring, and the calls before it.

    Raises
    ------
    MissingExtraError
        If pandas is not installed.
    """
    from dask_hpsearch.runs.table import tabulate  # imports SciPy

    calls = Calls()
    found: dict[tuple[int, int], Candidate] = {}
    dropped: set[tuple[int, int]] = set()
    for event in latest_events(events):
        if isinstance(event, CallEvent):
            calls.begin(event)
        elif isinstance(event, AskEvent):
            calls.add_ask(event)
        elif isinstance(event, FitEvent):
            call = calls.call_of(event)
            if call is not None:
                _add_fit(found, call, event)
        elif isinstance(event, TrainEvent):
            _add_training(found, calls, event)
        elif isinstance(event, DropEvent) and calls.call_of(event) is not None:
            dropped.add((event.call, event.candidate))
    n_splits = max(
        (call.event.n_splits or 1 for call in calls.by_ordinal.values()), default=0
    )
    return tabulate(list(found.values()), n_splits=n_splits, dropped=dropped)


def _add_fit(
    found: dict[tuple[int, int], Candidate], call: _Call, fit: FitEvent
) -> None:
    from dask_hpsearch.runs.table import Candidate

    key = fit.call, fit.candidate
    if key not in found:
        found[key] = Candidate(
            *key, call.params_of(fit.candidate), call.extra_of(fit.candidate)
        )
    found[key].results[fit.split] = fit.result


def _add_training(
    found: dict[tuple[int, int], Candidate], calls: Calls, event: TrainEvent
) -> None:
    from dask_hpsearch.runs.table import Candidate

    key = event.call, event.candidate
    call = calls.by_ordinal.get(event.call)
    if call is None or not call.knows(event.candidate) or "score" not in event.result:
        return
    if key in found and found[key].extra["partial_fit_calls"] >= event.calls:
        return
    extra = {"bracket": event.call, "partial_fit_calls": event.calls}
    found[key] = Candidate(*key, call.params_of(event.candidate), extra)
    found[key].results[0] = {
        "test_scores": event.result["score"],
        "fit_time": event.result["partial_fit_time"],
        "score_time": event.result["score_time"],
    }


def as_html(rows: Mapping[str, str]) -> str:
    """Write names and values as a table of a notebook."""
    cells = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
        for name, value in rows.items()
    )
    return f"<table>{cells}</table>"


def latest_events(events: Iterable[Event]) -> list[Event]:
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
