"""dask-ml's documented searches with SGDClassifier on 100,000 rows.

``python -m benchmarks.incremental [--rows 100000] [--max-iter 81] [--slots 2]`` prints the best
score and the number of ``partial_fit`` calls of each class beside those that its ``metadata``
promises, and beside those of dask-ml's own code, whose tasks are run one after the other in this
process, since it fails on current versions of Dask. ``--no-oracle`` leaves that out.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from typing import Any

import dask.array as da
import numpy as np
from dask_ml.model_selection import (
    HyperbandSearchCV,
    IncrementalSearchCV,
    InverseDecaySearchCV,
    SuccessiveHalvingSearchCV,
)
from distributed import Client
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.linear_model import SGDClassifier

from dask_hpsearch import DaskSearchCV, local_cluster
from tests.strategies.incremental.oracle import fitted_by_dask_ml

BLOCKS = 10
SPACE = {
    "alpha": np.logspace(-5, 1, num=1000),
    "l1_ratio": np.linspace(0, 1, num=1000),
    "average": [True, False],
}


def main() -> None:
    """Fit each search with this package, and with dask-ml's own code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--max-iter", type=int, default=81)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--no-oracle", action="store_true")
    options = parser.parse_args()
    X, y = make_classification(
        options.rows, 20, n_informative=8, flip_y=0.1, random_state=0
    )
    rows = options.rows // BLOCKS
    data = da.from_array(X, chunks=(rows, 20)), da.from_array(y, chunks=rows)
    with (
        tempfile.TemporaryDirectory() as store,
        local_cluster(1, options.slots, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        warm = IncrementalSearchCV(
            model(), SPACE, 2, decay_rate=None, max_iter=1, random_state=0
        )
        DaskSearchCV(warm, client=client, store=store).fit(*data, classes=[0, 1])
        print("| search | code | score | calls of partial_fit | promised | wall s |")
        print("|---|---|---|---|---|---|")
        for search in searches(options.max_iter):
            ours = DaskSearchCV(clone(search), client=client, store=store)
            show(search, "dask_hpsearch", ours, data)
            if not options.no_oracle:
                show(search, "dask-ml, one by one", clone(search), data)


def model() -> Any:
    """Return the estimator of dask-ml's documentation."""
    return SGDClassifier(tol=1e-3, penalty="elasticnet", random_state=0)


def searches(max_iter: int) -> list[Any]:
    """Return a search of each class."""
    own: list[tuple[Any, dict[str, Any]]] = [
        (HyperbandSearchCV, {"max_iter": max_iter}),
        (
            SuccessiveHalvingSearchCV,
            {"n_initial_parameters": max_iter, "n_initial_iter": 1},
        ),
        (InverseDecaySearchCV, {"n_initial_parameters": max_iter}),
        (
            IncrementalSearchCV,
            {"decay_rate": None, "max_iter": max_iter // 4, "patience": 5},
        ),
    ]
    return [kind(model(), SPACE, random_state=0, **more) for kind, more in own]


def show(search: Any, code: str, fitting: Any, data: tuple[Any, Any]) -> None:
    """Fit a search, and print a row of the table."""
    began = time.perf_counter()
    if isinstance(fitting, DaskSearchCV):
        found = fitting.fit(*data, classes=[0, 1]).search_
    else:
        found = fitted_by_dask_ml(fitting, *data, classes=[0, 1])
    seconds = time.perf_counter() - began
    calls = sum(one[-1]["partial_fit_calls"] for one in found.model_history_.values())
    metadata = getattr(search, "metadata", None)
    promised = "none" if metadata is None else metadata["partial_fit_calls"]
    name = type(search).__name__
    print(
        f"| {name} | {code} | {found.best_score_:.5f} | {calls} | {promised} | {seconds:.1f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
