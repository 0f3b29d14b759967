"""Events as tables: what is complete, and whose results count."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dask_hpsearch.journal.contents import Content
from dask_hpsearch.journal.events import (
    AskEvent,
    CallEvent,
    ClusterUsage,
    Event,
    FitEvent,
    HeartbeatEvent,
)
from dask_hpsearch.journal.fit_columns import gathered
from dask_hpsearch.runs import views

SCORES = (0.1, 0.7, 0.3)


def call(params: list[dict[str, Any]], n_candidates: int | None = None) -> CallEvent:
    """Begin a call of three splits."""
    return CallEvent(
        generation=0,
        time=0.0,
        call=0,
        n_splits=3,
        params=params,
        extra={},
        n_candidates=n_candidates,
    )


def ask(number: int, at: float) -> AskEvent:
    """Ask for candidate 0, by some driver."""
    return AskEvent(
        generation=0,
        time=at,
        call=0,
        candidate=0,
        space=0,
        digest=f"d{number}",
        encoded={},
        params={"number": number},
    )


def fit(
    candidate: int, split: int, score: float, *, digest: str = "", at: float = 1.0
) -> FitEvent:
    """End a fit."""
    return FitEvent(
        generation=0,
        time=at,
        call=0,
        candidate=candidate,
        split=split,
        digest=digest,
        result={"test_scores": score, "fit_time": 1.0},
    )


def test_a_mean_is_scikit_learns_once_it_is_whole() -> None:
    """To the last digit, in whatever order splits come; a part has none."""
    params = [{"number": 0}, {"number": 1}]
    fits = [fit(0, split, SCORES[split]) for split in (2, 0, 1)]

    table = views.trials([call(params), *fits, fit(1, 1, 0.5)])

    assert table["mean_test_score"][0] == np.average(np.array([SCORES]), axis=1)[0]
    assert np.isnan(table["mean_test_score"][1])
    assert list(table["n_fits"]) == [3, 1]
    assert list(table["mean_fit_time"].isna()) == [False, True]


def test_of_two_drivers_that_ask_otherwise_the_earlier_ask_counts() -> None:
    """Results of the other's candidate are none of its, whichever comes first."""
    mine = [fit(0, split, SCORES[split], digest="d7", at=5.0) for split in range(3)]
    other = [fit(0, split, 0.9, digest="d8", at=4.0) for split in range(3)]
    events = [call([], n_candidates=1), ask(8, 2.0), ask(7, 1.0), *other, *mine]

    table = views.trials(events)

    assert list(table["param_number"]) == [7]
    assert list(table["split1_test_score"]) == [SCORES[1]]
    snapshot = views.progress(events, refit=None, ended=True)
    assert snapshot.fits_done == 3
    assert snapshot.best_params == {"number": 7}


def beat(at: float, slots: int) -> HeartbeatEvent:
    """Note the size of the cluster."""
    usage = ClusterUsage(workers=1, slots=slots, running=slots)
    return HeartbeatEvent(generation=0, time=at, usage=usage)


def object_of(events: list[Event]) -> Content:
    """Make an object of a journal, its fits in columns where that saves space."""
    columns, fits = gathered(one for one in events if isinstance(one, FitEvent))
    others = [one for one in events if not isinstance(one, FitEvent)]
    return Content.of([*others, *fits], columns)


@given(
    scores=st.lists(st.sampled_from([0.1, 0.3, 0.7, float("nan")]), max_size=60),
    seed=st.randoms(use_true_random=False),
    sizes=st.lists(st.integers(1, 25), min_size=1, max_size=6),
    ended=st.booleans(),
)
def test_progress_that_is_kept_up_is_that_of_all_events(
    scores: list[float], seed: Any, sizes: list[int], *, ended: bool
) -> None:
    """Whatever came between two looks, and though a snapshot repeats the segments."""
    n_candidates = len(scores) // 3 + 1
    fits = [
        fit(n // 3, n % 3, score, at=float(n + 1)) for n, score in enumerate(scores)
    ]
    seed.shuffle(fits)
    head: list[Event] = [call([{"number": n} for n in range(n_candidates)])]
    rest: list[Event] = [*fits, beat(2.0, 4), beat(70.0, 8)]
    seen = views.RunProgress(refit=None)
    objects = {"0": object_of(head)}
    while rest:
        size = seed.choice(sizes)
        objects[str(len(objects))] = object_of(rest[:size])
        rest = rest[size:]
        seen.update(objects)
        seen.snapshot(ended=False)
    whole = object_of([*head, *fits])
    seen.update({"whole": whole, "last": objects[max(objects, key=int)]})

    found = seen.snapshot(ended=ended)

    events = [*head, *fits, beat(2.0, 4), beat(70.0, 8)]
    expected = views.progress(events, refit=None, ended=ended)
    for name in ("fits_done", "fits_total", "fits_failed", "best_score", "best_params"):
        assert getattr(found, name) == getattr(expected, name)
    assert (found.slots, found.ended) == (expected.slots, ended)
    if ended:
        assert (found.elapsed, found.rate) == (expected.elapsed, expected.rate)


def test_a_later_look_replays_new_events_only() -> None:
    """An object that was seen is not looked into again, until a call begins."""
    fits: list[Event] = [fit(n, 0, 0.5) for n in range(100)]
    first = {"0": object_of([call([{"number": n} for n in range(200)]), *fits])}
    seen = views.RunProgress(refit=None)
    seen.update(first)
    forgotten: dict[str, Any] = {"0": None}
    more: list[Event] = [fit(n, 0, 0.5) for n in range(100, 120)]

    seen.update({**forgotten, "1": object_of(more)})

    assert seen.snapshot(ended=False).fits_done == 120


def test_candidates_that_were_asked_later_replay_nothing() -> None:
    """A strategy asks one by one; what was seen before is not looked into again."""
    first = {"0": object_of([call([], n_candidates=2), beat(3.0, 2)])}
    seen = views.RunProgress(refit=None)
    seen.update(first)
    forgotten: dict[str, Any] = {"0": None}
    later: list[Event] = [ask(7, 4.0), fit(0, 0, 0.5, digest="d7", at=5.0)]

    seen.update({**forgotten, "1": object_of(later)})

    assert seen.snapshot(ended=False).fits_done == 1


def test_an_ask_that_is_read_late_replays_all() -> None:
    """The earlier of two asks counts, whichever is read first."""
    objects = {
        "0": object_of([call([], n_candidates=1), ask(8, 2.0)]),
        "1": object_of([fit(0, 0, 0.9, digest="d8", at=4.0)]),
    }
    seen = views.RunProgress(refit=None)
    seen.update(objects)
    assert seen.snapshot(ended=False).fits_done == 1

    seen.update({**objects, "2": object_of([ask(7, 1.0)])})

    assert seen.snapshot(ended=False).fits_done == 0


def test_a_run_that_goes_on_after_its_end_is_under_way() -> None:
    """It was interrupted, and is resumed."""
    objects = {"0": object_of([call([{"number": 0}]), fit(0, 0, 0.5)])}
    seen = views.RunProgress(refit=None)
    seen.update(objects)
    assert seen.snapshot(ended=True, reason="interrupted").ended

    seen.update({**objects, "1": object_of([fit(0, 1, 0.5)])})

    found = seen.snapshot(ended=False)
    assert (found.ended, found.fits_done) == (False, 2)


def test_the_rate_is_that_of_the_last_half_minute() -> None:
    """In whatever order segments and snapshots are read."""
    now = time.time()
    fits = [fit(n, 0, 0.5, at=now - 100 + n / 10) for n in range(1000)]
    begin = [call([{"number": n} for n in range(1000)])]
    parts: list[list[Event]] = [
        list(fits[800:900]),
        list(fits[:400]),
        [*begin, *fits[400:800]],
        list(fits[900:995]),
        list(fits[995:]),
    ]
    objects = {str(n): object_of(part) for n, part in enumerate(parts)}
    seen = views.RunProgress(refit=None)

    seen.update(objects)

    assert seen.snapshot(ended=False).rate == pytest.approx(10, rel=0.05)
