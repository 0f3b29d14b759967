"""In slots, plain arrays are known not to be data frames; everything else is asked for."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import DaskSearchCV
from tests.estimators import AsksNarwhals

if TYPE_CHECKING:
    from distributed import Client

SCRIPT = """
import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd
from dask_hpsearch.sklearn_adapter.array_checks import answer_for_arrays

class Sub(np.ndarray):
    pass

frame = pd.DataFrame({"a": [1.0]})
things = [np.zeros((2, 2)), np.zeros(2).view(Sub), frame, frame["a"], nw.from_native(frame), [1]]
def answers():
    ask = nw.dependencies
    return [(ask.is_into_dataframe(one), ask.is_into_series(one)) for one in things]
before = answers()
answer_for_arrays()
once = nw.dependencies.is_into_dataframe
answer_for_arrays()
assert nw.dependencies.is_into_dataframe is once
assert answers() == before, (before, answers())
assert before[0] == (False, False) and before[2] == (True, False)
"""


def test_answers_are_those_of_narwhals() -> None:
    """For arrays, frames, series and others; done twice, it is done once."""
    subprocess.run([sys.executable, "-c", SCRIPT], check=True)


def test_slots_answer_at_once(client: Client) -> None:
    """A fit on an array does not look for attributes of frames."""
    X, y = np.zeros((30, 2)), np.arange(30) % 2
    search = GridSearchCV(AsksNarwhals(), {"number": [1, 2]}, cv=3, refit=False)

    found = DaskSearchCV(search, client=client).fit(X, y)

    assert found.cv_results_["mean_test_score"].tolist() == [1.0, 1.0]
