"""Journal events and the JSON that is stored: old journals stay readable."""

from __future__ import annotations

import json
import uuid

import pytest

from dask_hpsearch.journal.events import (
    AskEvent,
    BestCandidate,
    CallEvent,
    ClusterUsage,
    DriverProcess,
    DropEvent,
    Event,
    FitEvent,
    HeartbeatEvent,
    StateEvent,
    TellEvent,
    event_from_json,
)
from dask_hpsearch.journal.run_state import RunState
from dask_hpsearch.journal.segments import JournalReader, JournalWriter
from dask_hpsearch.journal.training_events import RoundEvent, TrainEvent
from dask_hpsearch.runs import views
from dask_hpsearch.security import signing
from dask_hpsearch.stores import open_store

PROCESS = DriverProcess(driver="d", host="h", pid=7, started=1.5, own=True)
RESULT = {"fit_error": None, "test_scores": 0.5, "fit_time": 0.1}

# What version 0.1.0 stored (but for drops and training), and the events that it stands for.
STORED: list[tuple[dict[str, object], Event]] = [
    (
        {
            "e": "call",
            "g": 0,
            "t": 1.0,
            "c": 2,
            "k": 3,
            "params": [{"C": 1}],
            "extra": {"n_resources": [10]},
        },
        CallEvent(
            generation=0,
            time=1.0,
            call=2,
            n_splits=3,
            params=[{"C": 1}],
            extra={"n_resources": [10]},
        ),
    ),
    (
        {
            "e": "call",
            "g": 0,
            "t": 1.0,
            "c": 0,
            "k": 3,
            "params": [],
            "extra": {},
            "n": 16,
        },
        CallEvent(
            generation=0,
            time=1.0,
            call=0,
            n_splits=3,
            params=[],
            extra={},
            n_candidates=16,
        ),
    ),
    (
        {
            "e": "ask",
            "c": 0,
            "g": 1,
            "i": 4,
            "space": 2,
            "d": "ab",
            "p": {"C": 1.0},
            "params": {"C": 1},
            "t": 2.0,
        },
        AskEvent(
            generation=1,
            time=2.0,
            call=0,
            candidate=4,
            space=2,
            digest="ab",
            encoded={"C": 1.0},
            params={"C": 1},
        ),
    ),
    (
        {"e": "tell", "c": 0, "g": 0, "i": 4, "space": 0, "value": None, "t": 3.0},
        TellEvent(generation=0, time=3.0, call=0, candidate=4, space=0, value=None),
    ),
    (
        {"e": "fit", "c": 0, "g": 0, "i": 4, "s": 2, "d": "ab", "r": RESULT, "t": 3.5},
        FitEvent(
            generation=0,
            time=3.5,
            call=0,
            candidate=4,
            split=2,
            digest="ab",
            result=RESULT,
        ),
    ),
    (
        {"e": "drop", "c": 0, "g": 1, "i": 4, "d": "ab", "t": 3.75},
        DropEvent(generation=1, time=3.75, call=0, candidate=4, digest="ab"),
    ),
    (
        {
            "e": "train",
            "c": 2,
            "g": 0,
            "i": 4,
            "d": "ab",
            "calls": 9,
            "model": "cd",
            "r": {"partial_fit_time": 0.5, "score": 0.75},
            "t": 3.8,
        },
        TrainEvent(
            generation=0,
            time=3.8,
            call=2,
            candidate=4,
            digest="ab",
            calls=9,
            model="cd",
            result={"partial_fit_time": 0.5, "score": 0.75},
        ),
    ),
    (
        {
            "e": "round",
            "c": 2,
            "g": 0,
            "number": 1,
            "calls": [[4, 6], [0, 0]],
            "t": 3.9,
        },
        RoundEvent(generation=0, time=3.9, call=2, number=1, calls={4: 6, 0: 0}),
    ),
    ({"e": "beat", "g": 0, "t": 4.0}, HeartbeatEvent(generation=0, time=4.0)),
    (
        {
            "e": "beat",
            "g": 0,
            "t": 4.0,
            "usd": 0.25,
            "w": 2,
            "n": 8,
            "b": 7,
            "x": "no node",
            "l": "http://127.0.0.1:8787/status",
            "m": 2**30,
        },
        HeartbeatEvent(
            generation=0,
            time=4.0,
            usage=ClusterUsage(
                workers=2,
                slots=8,
                running=7,
                problem="no node",
                dashboard="http://127.0.0.1:8787/status",
            ),
            cost_usd=0.25,
            peak_nbytes=2**30,
        ),
    ),
    (
        {
            "e": "state",
            "g": 0,
            "t": 5.0,
            "state": "failed",
            "driver": "d",
            "host": "h",
            "pid": 7,
            "process": 1.5,
            "own": True,
            "error": "ValueError: x",
        },
        StateEvent(
            generation=0,
            time=5.0,
            state=RunState.FAILED,
            process=PROCESS,
            error="ValueError: x",
        ),
    ),
    (
        {
            "e": "state",
            "g": 0,
            "t": 5.0,
            "state": "stopped",
            "driver": "d",
            "host": "h",
            "pid": 7,
            "process": 1.5,
            "own": True,
            "best": {"score": 0.9, "params": {"C": 1}},
            "reason": "max_time",
            "unstored": "too large",
        },
        StateEvent(
            generation=0,
            time=5.0,
            state=RunState.STOPPED,
            process=PROCESS,
            best=BestCandidate(score=0.9, params={"C": 1}),
            reason="max_time",
            unstored="too large",
        ),
    ),
    (
        {
            "e": "state",
            "g": 0,
            "t": 5.0,
            "state": "finished",
            "driver": "d",
            "host": "h",
            "pid": 7,
            "process": 1.5,
            "own": True,
            "best": None,
            "reason": None,
            "unstored": "",
        },
        StateEvent(
            generation=0,
            time=5.0,
            state=RunState.FINISHED,
            process=PROCESS,
            best=BestCandidate(),
        ),
    ),
]


@pytest.mark.parametrize(
    ("stored", "event"), STORED, ids=lambda value: getattr(value, "KIND", None)
)
def test_an_event_is_stored_with_the_keys_of_earlier_versions(
    stored: dict[str, object], event: Event
) -> None:
    """Both ways, also as text."""
    assert event.to_json() == stored
    assert event_from_json(stored) == event
    assert event_from_json(json.loads(json.dumps(event.to_json()))) == event


def test_an_earlier_name_of_a_key_is_read() -> None:
    """Drivers in pods noted their heartbeat timeout under another name."""
    stored = STORED[-1][1].to_json() | {"patience": 900.0}

    event = event_from_json(stored)

    assert isinstance(event, StateEvent)
    assert event.process.heartbeat_timeout_s == 900.0
    assert "patience" not in event.to_json()
    assert event.to_json()["heartbeat_timeout"] == 900.0


def test_a_kind_of_a_later_version_is_left_out() -> None:
    """An older package can look at a run all the same."""
    assert event_from_json({"e": "new", "g": 0, "t": 0.0}) is None


@pytest.mark.parametrize(
    "stored",
    [
        {"g": 0, "t": 0.0},
        {"e": "fit", "g": 0, "t": 0.0},
        {"e": ["fit"]},
        [],
        STORED[-1][0] | {"state": "unheard of"},
    ],
)
def test_an_invalid_event_is_refused(stored: dict[str, object]) -> None:
    """With one kind of error, which a reader of a journal expects."""
    with pytest.raises(ValueError, match=r"invalid event|not a valid RunState"):
        event_from_json(stored)


def test_a_state_is_its_plain_word() -> None:
    """Equal to it, and printed as it, in a notebook and in JSON too."""
    state = RunState.FINISHED

    assert state == "finished"
    assert f"{state} {state!r} {state:10}|" == "finished 'finished' finished  |"
    assert json.dumps(state) == '"finished"'
    assert {state: 1}["finished"] == 1


def test_every_state_is_under_way_or_has_ended() -> None:
    """And only a run that has ended has a result."""
    for state in RunState:
        assert state.is_under_way != state.has_ended
        assert state.has_ended or not state.has_result
    assert [state for state in RunState if state.is_under_way] == [
        "starting",
        "running",
    ]
    assert [state for state in RunState if state.has_result] == ["finished", "stopped"]


def test_a_long_journal_is_read_as_it_was_written() -> None:
    """Ten thousand fits, in segments and a snapshot, in their order."""
    store = open_store(f"memory://{uuid.uuid4().hex}")
    key = signing.SigningKey.generate()
    call = CallEvent(
        generation=0,
        time=0.0,
        call=0,
        n_splits=5,
        params=[{"C": number} for number in range(2000)],
        extra={},
    )
    fits = [
        FitEvent(
            generation=0,
            time=float(number),
            call=0,
            candidate=number // 5,
            split=number % 5,
            digest="0123456789abcdef",
            result=RESULT,
        )
        for number in range(10_000)
    ]
    writer = JournalWriter(store, "run", key, on_error=pytest.fail)
    writer.append(call)
    for number, fit in enumerate(fits):
        writer.append(fit)
        if number % 400 == 0:
            writer.flush()
    writer.compact_if_due()
    writer.close()

    events = JournalReader(store, "run", key.public).events()
    snapshot = views.progress(events, refit=None, ended=True)

    assert events == [call, *fits]
    assert snapshot.fits_done == len(fits)
