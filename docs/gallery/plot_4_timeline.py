"""
A run's fits over time
======================

A run's journal has the times of all fits, and the slots that ran them. Here a second worker joins
while the search runs.
"""

from __future__ import annotations

from threading import Timer

from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import DaskSearchCV, SearchRun, local_cluster
from dask_hpsearch.plots import TimelineDisplay

X, y = load_digits(return_X_y=True)
space = {"n_estimators": [20, 40, 60, 80], "max_features": [4, 16]}
search = GridSearchCV(RandomForestClassifier(random_state=0), space, cv=5)

with (
    local_cluster(n_workers=1, slots_per_worker=1) as cluster,
    cluster.get_client() as client,
):
    Timer(2, cluster.scale, [2]).start()
    found = DaskSearchCV(search, client=client).fit(X, y)

# %%
# A row for each slot, a bar for each fit.

timeline = TimelineDisplay.from_search(SearchRun.attach(found.run_url_)).plot()
