"""When scores end a search, and which of several scores counts."""

from __future__ import annotations

import math
from typing import Any

import pytest

from dask_hpsearch.exceptions import UnsupportedSearchError
from dask_hpsearch.recorder.call import RecordedCall
from dask_hpsearch.recorder.standings import EarlyEnds, Standings

SPLITS: list[Any] = [(None, None), (None, None)]


def new_call(n_candidates: int = 10) -> RecordedCall:
    """Return a call that has begun."""
    candidates = [{"number": number} for number in range(n_candidates)]
    return RecordedCall(0, candidates, None, splits=SPLITS)


def result(score: Any, error: str | None = None) -> dict[str, Any]:
    """Return a fit's result."""
    return {"test_scores": score, "fit_error": error}


def reasons(means: list[float], **rules: Any) -> list[str | None]:
    """Return what each complete candidate decides, in the order of the candidates."""
    standings = Standings(EarlyEnds(**rules), refit=True)
    call = new_call(len(means))
    standings.begin(call)
    found = []
    for candidate, mean in enumerate(means):
        for split, score in enumerate((mean - 0.25, mean + 0.25)):
            call.results[candidate, split] = result(score)
            found.append(standings.take(call, candidate, split, result(score)))
    assert not any(found[::2])  # an incomplete candidate decides nothing
    return found[1::2]


def test_a_score_that_is_reached_ends_the_search() -> None:
    """By the mean of a complete candidate; exactly that score is enough."""
    found = reasons([0.25, 0.5, 0.75], stop_score=0.5)

    assert found == [None, "stop_score", "stop_score"]


def test_patience_counts_complete_candidates_without_improvement() -> None:
    """An equal score is none; a better one begins a new count."""
    found = reasons([0.5, 0.25, 0.75, 0.75, 0.5], patience=2)

    assert found == [None, None, None, None, "patience"]


def test_candidates_that_fail_before_any_score_do_not_count() -> None:
    """Else a search could end without a result."""
    found = reasons([math.nan, math.nan, 0.5, math.nan, 0.5], patience=2)

    assert found == [None, None, None, None, "patience"]


def test_results_of_the_journal_decide_again() -> None:
    """A killed driver may not have stored the result."""
    call = new_call(2)
    call.results |= {(1, 0): result(0.5), (1, 1): result(0.75), (0, 0): result(0.1)}

    assert Standings(EarlyEnds(stop_score=0.5), refit=True).begin(call) == "stop_score"
    assert Standings(EarlyEnds(stop_score=0.9), refit=True).begin(call) is None
    assert Standings(EarlyEnds(), refit=True).begin(call) is None


def test_the_score_that_refit_names_counts() -> None:
    """Of several."""
    standings = Standings(EarlyEnds(stop_score=0.5), refit="b")
    call = new_call()
    scores = {"a": 0.9, "b": 0.4}
    call.results |= {(0, 0): result(scores), (0, 1): result(scores)}
    standings.begin(new_call())

    assert standings.take(call, 0, 1, result(scores)) is None
    better = {"a": 0.0, "b": 0.5}
    call.results |= {(1, 0): result(better), (1, 1): result(better)}
    assert standings.take(call, 1, 1, result(better)) == "stop_score"


@pytest.mark.parametrize("refit", [False, True])
def test_scores_of_a_function_that_refit_does_not_name_are_refused(
    refit: Any,
) -> None:
    """How many there are is known with the first result."""
    standings = Standings(EarlyEnds(racing=True), refit=refit)
    call = new_call()
    standings.begin(call)
    scores = {"a": 0.9, "b": 0.4}

    with pytest.raises(UnsupportedSearchError, match=r"several \('a', 'b'\).*refit="):
        standings.take(call, 0, 0, result(scores))


def test_without_rules_nothing_is_looked_at() -> None:
    """Scores may be of any kind then."""
    standings = Standings(EarlyEnds(), refit=False)
    call = new_call()
    standings.begin(call)

    assert standings.take(call, 0, 0, result({"a": 0.9})) is None
    assert standings.race is None
    assert standings.beaten() == []


def test_a_race_decides_again_by_the_journal_and_once() -> None:
    """Drops that were noted stay, those that a killed driver did not note are made."""
    call = new_call(4)
    call.results |= {
        (0, 0): result(0.5),
        (0, 1): result(0.5),
        (1, 0): result(math.nan),
        (2, 0): result(0.9),
    }
    call.dropped = {2}
    standings = Standings(EarlyEnds(racing=True), refit=True)

    standings.begin(call)

    assert standings.beaten() == [1]
    assert standings.race is not None
    assert standings.race.dropped == {1, 2}
    assert standings.beaten() == []
