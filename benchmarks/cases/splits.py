"""Cheap fits of large data: much of their time and all of their memory is rows of splits.

One pass of SGDClassifier reads the rows as they are, without copies of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.linear_model import SGDClassifier

from benchmarks.case import Case, Entry
from benchmarks.cases.large import data

_N_SLOTS_OF_A_NODE = 16


def search(module: Any, quick: bool, inner_n_jobs: int) -> Any:  # noqa: FBT001
    """Return 12 candidates on 5 splits."""
    del quick, inner_n_jobs
    grid = {"alpha": np.logspace(-6, -2, 12)}
    one_pass = SGDClassifier(max_iter=1, tol=None, random_state=0)
    return module.GridSearchCV(one_pass, grid, cv=5, refit=False)


_ENTRIES = (Entry("dask_hpsearch"), Entry("loky"))
CASES = (
    Case(
        name="splits",
        title="60 SGDClassifier fits of one pass over 400 MB of X, 5 splits",
        data=data,
        search=search,
        entries=(*_ENTRIES, Entry("dask-ml", rare=True)),
    ),
    Case(
        name="splits-16",
        title="the same with 16 slots, on the same cores",
        data=data,
        search=search,
        entries=_ENTRIES,
        n_slots=_N_SLOTS_OF_A_NODE,
    ),
)
