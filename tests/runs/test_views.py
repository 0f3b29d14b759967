"""Events as tables: what is complete, and whose results count."""

from __future__ import annotations

from typing import Any

import numpy as np

from dask_hpsearch.journal.events import AskEvent, CallEvent, FitEvent
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
