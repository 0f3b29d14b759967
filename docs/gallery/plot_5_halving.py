"""
Halving without waiting
=======================

:class:`~dask_hpsearch.AsyncHalvingSearchCV` gives many candidates little training, and the best of
them more. A candidate is promoted as soon as its rung allows it.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
from scipy.stats import loguniform
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier

from dask_hpsearch import AsyncHalvingSearchCV, DaskSearchCV
from dask_hpsearch.plots import SearchHistoryDisplay

X, y = load_digits(return_X_y=True)
halving = AsyncHalvingSearchCV(
    SGDClassifier(random_state=0),
    {"alpha": loguniform(1e-6, 1e1)},
    n_candidates=27,
    resource="partial_fit",
    max_resources=27,
    cv=3,
    random_state=0,
)
found = DaskSearchCV(halving).fit(X, y)
print("candidates on each rung:", found.n_candidates_)
print("passes over the data:", found.n_resources_)

# %%
# With a style of matplotlib of your own choice.

with plt.style.context("dark_background"):
    history = SearchHistoryDisplay.from_search(found).plot()
