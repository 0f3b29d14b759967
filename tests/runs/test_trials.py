"""The table of a run is ``cv_results_``, once the run has finished."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV
from sklearn.tree import DecisionTreeClassifier

from dask_hpsearch import DaskSearchCV, SearchRun
from dask_hpsearch.journal.events import CallEvent, Event, FitEvent
from dask_hpsearch.runs import views
from tests.estimators import Deed, flowers

if TYPE_CHECKING:
    from pathlib import Path

    from distributed import Client

X, y = flowers()
ORDINALS = ["call", "candidate", "n_fits"]


def searches() -> dict[str, Any]:
    """Make searches with every kind of column."""
    tree = DecisionTreeClassifier(random_state=0)
    deed = Deed(client=os.getpid())
    depths = {"max_depth": [None, 1, 2], "splitter": ["best", "random"]}
    two = ["accuracy", "balanced_accuracy"]
    numbers = {"number": list(range(6))}
    failing = {"number": [0, 1], "deed": ["raise", "fit"]}
    return {
        "None and integers": GridSearchCV(tree, depths, cv=3),
        "integers and floats": GridSearchCV(tree, {"min_samples_leaf": [1, 0.1, 2]}),
        "many splits": GridSearchCV(deed, numbers, cv=11),
        "several scores": GridSearchCV(tree, depths, scoring=two, refit=two[1]),
        "train scores": GridSearchCV(
            tree, depths, scoring=two, refit=False, return_train_score=True
        ),
        "one train score": GridSearchCV(tree, depths, return_train_score=True),
        "several grids": GridSearchCV(
            tree, [{"max_depth": [1, 2]}, {"min_samples_leaf": [3], "max_depth": [3]}]
        ),
        "other parameters": GridSearchCV(
            tree, [{"max_depth": [1]}, {"min_samples_leaf": [3, 4]}]
        ),
        "failing": GridSearchCV(deed, failing, cv=2),
        "failing, several scores": GridSearchCV(
            deed, failing, cv=2, scoring=two, refit=False
        ),
        "ties": GridSearchCV(deed, {"number": [0, 0, 9, 0]}, cv=2),
        "halving": HalvingGridSearchCV(
            deed, numbers, cv=2, factor=2, min_resources=10, random_state=0
        ),
    }


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning")
@pytest.mark.filterwarnings("ignore:One or more of the test scores:UserWarning")
@pytest.mark.parametrize("kind", list(searches()))
def test_the_table_of_a_finished_run_is_cv_results(
    kind: str, client: Client, tmp_path: Path
) -> None:
    """Column by column, in its order, whatever the values."""
    found = DaskSearchCV(searches()[kind], client=client, store=tmp_path).fit(X, y)

    table = SearchRun.attach(found.run_url_).trials()

    expected = pd.DataFrame(found.cv_results_)
    assert list(table) == [*expected, *ORDINALS]
    pd.testing.assert_frame_equal(
        table[list(expected)], expected, check_dtype=False, check_exact=True
    )
    for name in [one for one in expected if one.startswith("param_")]:
        own, plain = list(table[name]), list(found.cv_results_[name])
        kept = [
            one for one in zip(own, plain, strict=True) if one[1] is not np.ma.masked
        ]
        assert all((one is None) == (other is None) for one, other in kept)
    assert set(table["n_fits"]) == {found.n_splits_}


def test_a_table_of_a_part_ranks_what_is_complete() -> None:
    """In the order of candidates, whichever came first."""
    call = CallEvent(
        generation=0,
        time=0.0,
        call=0,
        n_splits=2,
        params=[{"depth": None}, {"depth": 2}, {"depth": 3}],
        extra={},
    )
    fits = [(2, 0, 0.5), (2, 1, 0.7), (1, 1, 0.9), (0, 1, 0.1), (0, 0, 0.3)]
    events: list[Event] = [call]
    for at, (candidate, split, score) in enumerate(fits):
        fit = FitEvent(
            generation=0,
            time=float(at),
            call=0,
            candidate=candidate,
            split=split,
            digest="",
            result={"test_scores": score, "fit_time": 1.0, "score_time": 0.1},
        )
        events.append(fit)

    table = views.trials(events)

    assert list(table["param_depth"]) == [None, 2, 3]
    assert list(table["n_fits"]) == [2, 1, 2]
    np.testing.assert_array_equal(table["rank_test_score"], [2, np.nan, 1])
    np.testing.assert_array_equal(table["split0_test_score"], [0.3, np.nan, 0.5])


def test_a_run_without_finished_fits_has_an_empty_table() -> None:
    """Not an error: its fits are still to come."""
    assert views.trials([]).empty


def test_without_pandas_one_sentence_says_what_to_install() -> None:
    """With the command, quoted."""
    code = (
        "import sys; sys.modules['pandas'] = None\n"
        "from dask_hpsearch.exceptions import MissingExtraError\n"
        "from dask_hpsearch.runs import views\n"
        "try: views.trials([])\n"
        "except MissingExtraError as error: print(error)"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True
    )

    assert 'pip install "dask-hpsearch[tables]"' in done.stdout
    assert done.stdout.count("\n") == 1
