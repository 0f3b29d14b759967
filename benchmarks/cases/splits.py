"""Cheap fits of large data: much of their time and all of their memory is rows of splits."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.naive_bayes import GaussianNB

from benchmarks.case import Case, Entry
from benchmarks.cases.large import data

_N_SLOTS_OF_A_NODE = 16


def search(module: Any, quick: bool, inner_n_jobs: int) -> Any:  # noqa: FBT001
    """Return 12 candidates on 5 splits."""
    del quick, inner_n_jobs
    grid = {"var_smoothing": np.logspace(-12, -6, 12)}
    return module.GridSearchCV(GaussianNB(), grid, cv=5, refit=False)


_ENTRIES = (Entry("dask_hpsearch"), Entry("loky"))
CASES = (
    Case(
        name="splits",
        title="60 GaussianNB fits of about a second on 400 MB of X, 5 splits",
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
