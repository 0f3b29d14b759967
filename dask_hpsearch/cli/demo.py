"""The tutorial's search: a random forest on handwritten digits."""

from __future__ import annotations

import pickle
import textwrap
from typing import TYPE_CHECKING

from scipy.stats import randint
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import RandomizedSearchCV, train_test_split

from dask_hpsearch.clusters.local import local_cluster
from dask_hpsearch.search.estimator import DaskSearchCV

if TYPE_CHECKING:
    from pathlib import Path

#: About a minute on two cores.
N_ITER = 25
N_SPLITS = 5

SPACE = {
    "n_estimators": randint(20, 300),
    "max_features": randint(1, 33),
    "max_depth": [4, 8, 16, None],
    "min_samples_split": randint(2, 12),
    "bootstrap": [True, False],
    "criterion": ["gini", "entropy"],
}

HOW_TO_GO_ON = """
To go on:

  The file holds scikit-learn's own object; this package is not needed to load it:

      import pickle
      with open({path!r}, "rb") as file:
          search = pickle.load(file)
      search.best_estimator_.predict(X)

  In a notebook, wrap any search of yours:

      from dask_hpsearch import DaskSearchCV
      found = DaskSearchCV(search, progress=True).fit(X, y)

  On a cluster that you keep, and scale while the search runs:

      from dask_hpsearch import local_cluster
      cluster = local_cluster(n_workers=1, slots_per_worker=2)
      client = cluster.get_client()
      found = DaskSearchCV(search, client=client, progress=True).fit(X, y)

  On a Dask cluster that runs already:

      from dask.distributed import Client
      client = Client("tcp://scheduler:8786")
"""


def run(output: Path, *, n_iter: int = N_ITER, slots: int | None = None) -> str | None:
    """Search, print the result, and save the fitted search.

    Parameters
    ----------
    output
        File for the fitted search, a pickle.
    n_iter
        Candidates to try.
    slots
        Fits that run at a time; one per core by default.

    Returns
    -------
    str or None
        Why the search was stopped early, as ``DaskSearchCV.stopped_`` says.
    """
    X, y = load_digits(return_X_y=True)
    X, X_held_out, y, y_held_out = train_test_split(
        X, y, test_size=0.25, stratify=y, random_state=0
    )
    print(
        f"Data: {len(X):,} images of handwritten digits, 8 x 8 pixels; "
        f"{len(X_held_out):,} more are held out.\n"
        f"Search: a random forest, {n_iter} random candidates on {N_SPLITS} splits, "
        f"{n_iter * N_SPLITS} fits.",
        flush=True,
    )
    search = RandomizedSearchCV(
        RandomForestClassifier(random_state=0),
        SPACE,
        n_iter=n_iter,
        cv=N_SPLITS,
        random_state=0,
    )
    with (
        local_cluster(n_workers=1, slots_per_worker=slots) as cluster,
        cluster.get_client() as client,
    ):
        found = DaskSearchCV(search, client=client, progress=True).fit(X, y)
    with output.open("wb") as file:
        pickle.dump(found.search_, file)
    _tell(found, held_out_accuracy=found.score(X_held_out, y_held_out), output=output)
    stopped: str | None = found.stopped_
    return stopped


def _tell(found: DaskSearchCV, *, held_out_accuracy: float, output: Path) -> None:
    n_candidates = len(found.cv_results_["params"])
    best = "\n".join(
        f"{name} = {value!r}" for name, value in found.best_params_.items()
    )
    if found.stopped_ is not None:
        print(f"Stopped early: the best of the {n_candidates} candidates tried so far.")
    print("Best parameters:")
    print(textwrap.indent(best, "    "))
    print(f"Cross-validated accuracy: {found.best_score_:.4f}")
    print(f"Accuracy on held-out images: {held_out_accuracy:.4f}")
    print(f"Saved the fitted search: {output.resolve()}")
    print(HOW_TO_GO_ON.format(path=str(output)), end="")
