"""
Which parameters matter
=======================

A random forest with numbers, categories and switches: all parameters of a candidate in one line,
two of them as a map, and how much of the scores' variance each explains.
"""

from __future__ import annotations

from scipy.stats import randint
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import RandomizedSearchCV

from dask_hpsearch import DaskSearchCV
from dask_hpsearch.plots import (
    ContourDisplay,
    ParallelCoordinatesDisplay,
    ParameterImportanceDisplay,
)

X, y = load_digits(return_X_y=True)
space = {
    "n_estimators": randint(5, 40),
    "max_features": randint(1, 33),
    "max_depth": [4, 8, 16, None],
    "criterion": ["gini", "entropy"],
}
search = RandomizedSearchCV(
    RandomForestClassifier(random_state=0), space, n_iter=30, cv=3, random_state=0
)
found = DaskSearchCV(search).fit(X, y)

# %%
# One line for each candidate; its colour is its score.

lines = ParallelCoordinatesDisplay.from_search(found).plot()

# %%
# Two parameters, with the scores between the candidates estimated.

contour = ContourDisplay.from_search(found, params=["n_estimators", "max_features"])
contour.plot()

# %%
# The share of the scores' variance that each parameter explains, with intervals.

importance = ParameterImportanceDisplay.from_search(found).plot()
