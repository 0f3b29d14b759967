"""A run's events as progress and as tables; nothing is unpickled."""

from __future__ import annotations

import html
import time
from typing import TYPE_CHECKING, Any

from dask_hpsearch.progress import ProgressSnapshot, SearchProgress
from dask_hpsearch.runs.table import Candidate, tabulate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd

Event = dict[str, Any]


def progress(
    events: Iterable[Event],
    *,
    refit: str | None,
    ended: bool,
    reason: str | None = None,
) -> ProgressSnapshot:
    """Replay events into a snapshot; rates are those of the events' own times.

    Parameters
    ----------
    events : iterable of dict
    refit : str or None
        Which of several scores counts.
    ended : bool
        Whether the run is over.
    reason : str or None
        Why it ended before its time, if it did.
    """
    events = list(events)
    now = 0.0
    state = SearchProgress(clock=lambda: now)
    calls: dict[int, Event] = {}
    for event in _latest(events):
        now = max(now, event["t"])
        if event["e"] == "call":
            calls[event["c"]] = _with_numbered_params(event)
            state.call_started(
                event["c"],
                n_candidates=event.get("n", len(event["params"])),
                n_splits=event["k"],
                resets_best="n_resources" in event["extra"],
            )
        elif event["e"] == "ask":
            _add_ask(calls, event)
        elif event["e"] == "beat" and "w" in event:
            state.slots_changed(
                workers=event["w"], slots=event["n"], running=event["b"]
            )
            state.problem_changed(event.get("x", ""))
        elif event["e"] == "state":  # a driver that begins again says after what
            state.problem_changed(event.get("error", ""))
        elif event["e"] == "fit" and _is_known(calls, event):
            result = event["r"]
            state.fit_finished(
                event["c"],
                event["i"],
                event["s"],
                params=calls[event["c"]]["params"][event["i"]],
                score=_score(result, refit),
                fit_time=float(result.get("fit_time") or 0.0),
                failed=result.get("fit_error") is not None,
            )
        if "usd" in event:
            state.spent(event["usd"])
    if ended:
        _take_over_best(state, events)
        state.ended(reason)
    else:
        now = max(now, time.time())
    return state.snapshot()


def _take_over_best(state: SearchProgress, events: Iterable[Event]) -> None:
    """Show the best candidate of the run's result, if the newest generation has one."""
    noted = [event for event in events if event["e"] == "state"]
    newest = max((event["g"] for event in noted), default=0)
    for event in noted:
        if event["g"] == newest and "best" in event:
            best = event["best"] or {"score": None, "params": None}
            state.chosen(best["score"], best["params"])
            return


def trials(events: Iterable[Event]) -> pd.DataFrame:
    """Tabulate candidates with at least one finished fit.

    Raises
    ------
    MissingExtraError
        If pandas is not installed.
    """
    calls: dict[int, Event] = {}
    found: dict[tuple[int, int], Candidate] = {}
    for event in _latest(events):
        if event["e"] == "call":
            calls[event["c"]] = _with_numbered_params(event)
        elif event["e"] == "ask":
            _add_ask(calls, event)
        elif event["e"] == "fit" and _is_known(calls, event):
            _add_fit(found, calls[event["c"]], event)
    n_splits = max((call["k"] for call in calls.values()), default=0)
    return tabulate(list(found.values()), n_splits=n_splits)


def as_html(rows: Mapping[str, str]) -> str:
    """Write names and values as a table of a notebook."""
    cells = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
        for name, value in rows.items()
    )
    return f"<table>{cells}</table>"


def _with_numbered_params(call: Event) -> Event:
    return call | {"params": dict(enumerate(call["params"])), "digests": {}}


def _add_ask(calls: dict[int, Event], ask: Event) -> None:
    """Add a candidate to a call that was begun without any."""
    call = calls.get(ask["c"])
    if call is not None and call["g"] == ask["g"] and ask["i"] not in call["params"]:
        call["params"][ask["i"]] = ask["params"]
        call["digests"][ask["i"]] = ask["d"]


def _is_known(calls: dict[int, Event], fit: Event) -> bool:
    """Whether a fit is of a candidate that is known, and not of another driver's."""
    call = calls.get(fit["c"], {})
    known = fit["i"] in call.get("params", {})
    return known and call["digests"].get(fit["i"], fit["d"]) == fit["d"]


def _add_fit(
    found: dict[tuple[int, int], Candidate], call: Event, event: Event
) -> None:
    number = event["i"]
    key = event["c"], number
    if key not in found:
        extra = {name: values[number] for name, values in call["extra"].items()}
        found[key] = Candidate(*key, call["params"][number], extra)
    found[key].results[event["s"]] = event["r"]


def _score(result: Mapping[str, Any], refit: str | None) -> float | None:
    scores = result.get("test_scores")
    if isinstance(scores, dict):
        scores = scores.get(refit)
    number = isinstance(scores, int | float) and not isinstance(scores, bool)
    return float(scores) if number else None  # type: ignore[arg-type]


def _latest(events: Iterable[Event]) -> list[Event]:
    """Events in order of time, each fit once, of the newest generation of its call."""
    ordered = sorted(events, key=lambda event: event["t"])
    newest: dict[int, int] = {}
    for event in ordered:
        if event["e"] == "call":
            newest[event["c"]] = max(newest.get(event["c"], 0), event["g"])
    seen: set[tuple[Any, ...]] = set()
    kept = []
    for event in sorted(ordered, key=lambda one: one["e"] != "call"):
        if event["e"] == "fit":
            key = event["c"], event["i"], event["s"], event["d"]
            if event["g"] != newest.get(event["c"]) or key in seen:
                continue
            seen.add(key)
        kept.append(event)
    return kept
