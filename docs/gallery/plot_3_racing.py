"""
Racing, split by split
======================

With ``racing=True``, candidates that are beaten on their first splits are dropped. The display
of split scores shows how far each candidate came.
"""

from __future__ import annotations

from scipy.stats import loguniform
from sklearn.datasets import load_digits
from sklearn.model_selection import RandomizedSearchCV
from sklearn.svm import SVC

from dask_hpsearch import DaskSearchCV
from dask_hpsearch.plots import SearchHistoryDisplay, SplitScoresDisplay

X, y = load_digits(return_X_y=True)
space = {"C": loguniform(1e-2, 1e3), "gamma": loguniform(1e-5, 1e-1)}
search = RandomizedSearchCV(SVC(), space, n_iter=20, cv=5, random_state=0)
found = DaskSearchCV(search, racing=True).fit(X, y)
n_dropped = len(found.dropped_["params"])
print(f"{n_dropped} of 20 candidates were dropped; best {found.best_score_:.4f}")

# %%
# Dropped candidates are marked: their scores are means of fewer splits.

history = SearchHistoryDisplay.from_search(found).plot()

# %%
# The best candidates, split by split.

splits = SplitScoresDisplay.from_search(found).plot()
