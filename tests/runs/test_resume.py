"""Wherever a run was cut, going on gives the result of the run that was not."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import (
    HalvingRandomSearchCV,
    RandomizedSearchCV,
    ShuffleSplit,
)

from dask_hpsearch import SearchRun
from dask_hpsearch.exceptions import JournalMismatchError
from dask_hpsearch.journal.events import CallEvent, FitEvent
from tests.estimators import Deed, flowers, seen
from tests.oracle.structure import difference
from tests.runs.recorded import RecordedRun, drive

if TYPE_CHECKING:
    from distributed import Client

    from dask_hpsearch.journal.events import Event

X, y = flowers()
SPACE = {"number": list(range(9)), "seconds": [0.0, 0.001]}


def make(kind: str, log: str) -> Any:
    """Make a search that draws at random."""
    deed = Deed(log=log, client=os.getpid())
    if kind == "halving":
        return HalvingRandomSearchCV(
            deed,
            SPACE,
            n_candidates=4,
            cv=2,
            factor=2,
            min_resources=20,
            random_state=0,
        )
    options: dict[str, Any] = {"n_iter": 5, "cv": ShuffleSplit(2, test_size=0.5)}
    if kind == "multimetric":
        options |= {
            "scoring": {"hits": "accuracy", "balance": "balanced_accuracy"},
            "refit": "balance",
            "return_train_score": True,
            "random_state": 3,
        }
    return RandomizedSearchCV(deed, SPACE, **options)


@pytest.fixture(scope="module", params=["randomized", "halving", "multimetric"])
def recorded(
    request: pytest.FixtureRequest,
    client: Client,
    tmp_path_factory: pytest.TempPathFactory,
) -> RecordedRun:
    """A run of each kind; neither randomized one has seeded splits."""
    log = tmp_path_factory.mktemp("fits") / "fits.log"
    return RecordedRun.of(make(request.param, str(log)), X, y, client)


def assert_completed(
    recorded: RecordedRun, events: list[Event], client: Client
) -> None:
    """Assert that a copy with these events runs what they lack, and ends the same."""
    log = recorded.fitted.estimator.log
    before = len(seen(log, "start"))

    fitted = drive(recorded.copy(events), X, y, client)

    assert difference(recorded.fitted, fitted.search) is None
    known = sum(isinstance(one, FitEvent) for one in events)
    assert len(seen(log, "start")) - before == recorded.n_fits - known


def test_a_run_goes_on_after_any_of_its_fits(
    recorded: RecordedRun, client: Client
) -> None:
    """For every prefix of the journal: the same result, and only what was missing runs."""
    for number in range(recorded.n_fits + 1):
        assert_completed(recorded, recorded.before_fit(number), client)


def test_a_run_goes_on_whose_call_was_stored_and_not_noted(
    recorded: RecordedRun, client: Client
) -> None:
    """Its driver was killed between the two; progress shows all of it later."""
    folder = recorded.copy(recorded.before_fit(0))
    for segment in folder.store.list("journal/"):
        folder.store.delete(segment.name)

    fitted = drive(folder, X, y, client)

    assert difference(recorded.fitted, fitted.search) is None
    run = SearchRun(folder)
    assert run.progress().fits_done == recorded.n_fits
    assert len(run.trials()) == len(recorded.fitted.cv_results_["params"])


@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_fits_that_the_journal_has_may_be_any(
    recorded: RecordedRun, client: Client, data: st.DataObject
) -> None:
    """Segments of several drivers come in any order, some twice, and some are lost."""
    prefix = recorded.before_fit(data.draw(st.integers(1, recorded.n_fits)))
    last = prefix[-1]
    assert isinstance(last, FitEvent)
    # A call was begun only after those before it were complete.
    fits = [
        one for one in prefix if isinstance(one, FitEvent) and one.call == last.call
    ]
    kept = data.draw(st.lists(st.sampled_from(fits), unique_by=id))
    rest = [
        one
        for one in prefix
        if isinstance(one, CallEvent)
        or (isinstance(one, FitEvent) and one.call != last.call)
    ]

    assert_completed(recorded, data.draw(st.permutations(rest)) + kept, client)


def test_results_of_other_candidates_are_refused(
    recorded: RecordedRun, client: Client
) -> None:
    """A digest that does not fit tells both what was stored and what was expected."""
    *events, fit = recorded.before_fit(1)
    assert isinstance(fit, FitEvent)
    events.append(replace(fit, digest="0123456789abcdef"))

    with pytest.raises(JournalMismatchError, match="0123456789abcdef") as told:
        drive(recorded.copy(events), X, y, client)

    assert "'number'" in str(told.value)
