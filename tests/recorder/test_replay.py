"""A run's journal gives back the calls of a search."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB

from dask_hpsearch.data import DataStore
from dask_hpsearch.journal.run_journal import RunJournal
from dask_hpsearch.recorder.call import BegunElsewhereError, RecordedCall
from dask_hpsearch.recorder.replay import Replay
from tests.estimators import flowers
from tests.runs.recorded import begun, new_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dask_hpsearch.journal.folder import RunFolder

X, y = flowers()
SPLITS = [(np.arange(5), np.arange(5, 10)), (np.arange(5, 10), np.arange(5))]
RESULT = {
    "test_scores": 0.5,
    "fit_error": None,
    "fit_time": 0.1,
    "score_time": 0.1,
    "n_test_samples": 5,
}


@pytest.fixture
def folder() -> Iterator[RunFolder]:
    """Begin a run whose search nobody drives."""
    search = GridSearchCV(GaussianNB(), {"var_smoothing": [1e-9, 1e-3]}, cv=2)
    with DataStore() as data_store:
        yield begun(search, X, y, new_store(), data_store)


def new_call(first: float = 1e-9) -> RecordedCall:
    """Return a call as a search begins it, with its splits."""
    candidates = [{"var_smoothing": first}, {"var_smoothing": 1e-3}]
    return RecordedCall(0, candidates, None, splits=SPLITS)


def test_a_stored_call_is_recalled_with_its_results(folder: RunFolder) -> None:
    """Candidates and splits are read: another machine may draw others."""
    call = new_call()
    call.results[0, 1] = RESULT
    journal = RunJournal(folder)
    Replay(journal, unseeded=False).store(call)
    journal.close()

    again = RunJournal(folder)
    recalled = RecordedCall(0, [{"var_smoothing": 7.0}], None)
    found = Replay(again, unseeded=False).recall(recalled)
    again.close()

    assert found
    assert recalled.candidates == call.candidates
    np.testing.assert_array_equal(recalled.splits, SPLITS)
    assert recalled.results == {(0, 1): RESULT}


def test_a_new_call_has_nothing_to_recall(folder: RunFolder) -> None:
    """It stays as the search has begun it."""
    journal = RunJournal(folder)
    call = new_call()

    assert not Replay(journal, unseeded=False).recall(call)
    journal.close()

    assert call.results == {}
    assert len(call.candidates) == 2


def test_of_two_drivers_the_first_begins_a_call(folder: RunFolder) -> None:
    """The second one gives up its splits, and recalls those of the first."""
    first, second = RunJournal(folder), RunJournal(folder)
    Replay(first, unseeded=False).store(new_call())
    call = new_call(first=2.0)
    replay = Replay(second, unseeded=False)

    with pytest.raises(BegunElsewhereError):
        replay.store(call)
    assert call.splits == []

    assert replay.recall(call)
    assert call.candidates[0] == {"var_smoothing": 1e-9}
    first.close()
    second.close()


def test_a_run_knows_whether_it_has_begun_as_an_exploration(
    folder: RunFolder,
) -> None:
    """A resumed search goes on in the same way."""
    journal = RunJournal(folder)
    replay = Replay(journal, unseeded=False)
    before = replay.explores()

    call = RecordedCall(0, [], None, splits=SPLITS)
    replay.recall_exploration(call, n_candidates=2)
    replay.note_ask(call, 0, 0, {"var_smoothing": 0.5})
    journal.close()
    again = RunJournal(folder)
    recalled = RecordedCall(0, [], None, splits=SPLITS)
    Replay(again, unseeded=False).recall_exploration(recalled, n_candidates=2)
    after = Replay(again, unseeded=False).explores()
    again.close()

    assert before is None
    assert after is True
    assert recalled.asks == {0: (0, {"var_smoothing": 0.5})}
