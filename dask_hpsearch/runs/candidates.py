"""The candidates of a run with their results and times, read from its journal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dask_hpsearch.exports.candidate_result import CandidateResult, GatheredFits
from dask_hpsearch.journal.events import (
    AskEvent,
    CallEvent,
    DropEvent,
    FitEvent,
    TellEvent,
)
from dask_hpsearch.journal.training_events import RoundEvent, TrainEvent
from dask_hpsearch.runs.history import first_ends
from dask_hpsearch.runs.views import Calls, latest_events

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dask_hpsearch.journal.events import Event

Key = tuple[int, int]


def candidates_of(
    events: Iterable[Event], run_id: str, *, refit: str | None, ended: bool
) -> list[CandidateResult]:
    """Replay a run's events into its candidates, those with at least one finished fit.

    Parameters
    ----------
    events : iterable of Event
    run_id : str
    refit : str or None
        Which of several scores counts.
    ended : bool
        Whether the run has ended: then no model is trained further.

    Returns
    -------
    list of CandidateResult
        In the order of ``cv_results_``.
    """
    events = list(events)
    ends = first_ends(events)
    calls = Calls()
    found: dict[Key, GatheredFits] = {}
    rounds: dict[int, RoundEvent] = {}
    latest = latest_events(events)
    for event in latest:
        if isinstance(event, CallEvent):
            calls.begin(event)
        elif isinstance(event, AskEvent):
            calls.add_ask(event)
        elif isinstance(event, FitEvent):
            _add_fit(found, calls, event, ends)
        elif isinstance(event, TrainEvent):
            _add_training(found, calls, event)
        elif isinstance(event, RoundEvent):
            rounds[event.call] = event
    for event in latest:
        if isinstance(event, DropEvent | TellEvent):
            _add_end(found, event)
    if not ended:
        _mark_open(found, calls, rounds)
    whole = (found[key] for key in sorted(found) if found[key].results)
    return [one.result(run_id, refit=refit) for one in whole]


def _add_fit(
    found: dict[Key, GatheredFits],
    calls: Calls,
    event: FitEvent,
    ends: Mapping[tuple[int, str, int], float],
) -> None:
    call = calls.call_of(event)
    if call is None:
        return
    one = found.setdefault(
        (event.call, event.candidate),
        GatheredFits(
            call=event.call,
            number=event.candidate,
            n_splits=call.event.n_splits,
            params=call.params_of(event.candidate),
            extra=call.extra_of(event.candidate),
            generation=event.generation,
            digest=event.digest,
        ),
    )
    one.results[event.split] = event.result
    one.ends[event.split] = ends.get(
        (event.call, event.digest, event.split), event.time
    )


def _add_training(
    found: dict[Key, GatheredFits], calls: Calls, event: TrainEvent
) -> None:
    """Take in the scoring of a model; the last one counts, with the calls before it."""
    call = calls.by_ordinal.get(event.call)
    if call is None or not call.knows(event.candidate) or "score" not in event.result:
        return
    key = event.call, event.candidate
    if key in found and found[key].extra["partial_fit_calls"] >= event.calls:
        return
    found[key] = GatheredFits.of_training(
        *key,
        call.params_of(event.candidate),
        calls=event.calls,
        result=event.result,
        ended=event.time,
        generation=event.generation,
        digest=event.digest,
    )


def _add_end(found: dict[Key, GatheredFits], event: DropEvent | TellEvent) -> None:
    one = found.get((event.call, event.candidate))
    if one is None or one.generation != event.generation:
        return
    if isinstance(event, TellEvent):
        one.trial = event.trial
    elif one.digest == event.digest:
        one.is_dropped = True


def _mark_open(
    found: Mapping[Key, GatheredFits],
    calls: Calls,
    rounds: Mapping[int, RoundEvent],
) -> None:
    """Mark the models that may be trained further."""
    for (call, number), one in found.items():
        if calls.by_ordinal[call].event.trains_models:
            last = rounds.get(call)
            goes_on = last is None or any(last.calls.values())
            one.is_open = goes_on and (last is None or number in last.calls)
