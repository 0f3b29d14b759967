"""From nothing to a fitted search, on Kubernetes, with all of it encrypted."""

from __future__ import annotations

import sys

from sklearn.datasets import load_digits
from sklearn.model_selection import RandomizedSearchCV
from sklearn.naive_bayes import GaussianNB

from dask_hpsearch import DaskSearchCV, kube_cluster

spec, image, namespace = sys.argv[1:]
search = RandomizedSearchCV(
    GaussianNB(), {"var_smoothing": [1e-9, 1e-6, 1e-3]}, n_iter=3, random_state=0
)
with kube_cluster(spec, image=image, namespace=namespace, n_workers=2) as cluster:
    client = cluster.get_client()
    found = DaskSearchCV(search, client=client).fit(*load_digits(return_X_y=True))
sys.stdout.write(f"{found.best_params_} {found.best_score_:.6f}\n")
