"""
Scores over time, and by parameter
==================================

A random search over a support vector machine: which candidates were tried when, how the best
score rose, and which values of the parameters gave it. The axes of parameters that were drawn
from a log-uniform distribution are logarithmic.
"""

from __future__ import annotations

from scipy.stats import loguniform
from sklearn.datasets import load_digits
from sklearn.model_selection import RandomizedSearchCV
from sklearn.svm import SVC

from dask_hpsearch import DaskSearchCV
from dask_hpsearch.plots import ParameterSliceDisplay, SearchHistoryDisplay

X, y = load_digits(return_X_y=True)
space = {"C": loguniform(1e-2, 1e3), "gamma": loguniform(1e-5, 1e-1)}
search = RandomizedSearchCV(SVC(), space, n_iter=25, cv=3, random_state=0)
found = DaskSearchCV(search).fit(X, y)
print(found.best_params_, found.best_score_)

# %%
# The score of each candidate, in the order in which candidates ended, and the best so far.

history = SearchHistoryDisplay.from_search(found).plot()

# %%
# The same candidates by the values of their parameters.

slices = ParameterSliceDisplay.from_search(found).plot()
