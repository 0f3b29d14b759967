"""Searches of other libraries, driven by a Job beside the cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.linear_model import SGDClassifier

from dask_hpsearch import AsyncHalvingSearchCV, DaskSearchCV

if TYPE_CHECKING:
    from collections.abc import Callable

    from dask_hpsearch.clusters.kubernetes.cluster import SearchKubeCluster
    from tests.kubernetes.bucket import FarBucket

PATIENT_S = 300.0
X, y = make_classification(600, 8, random_state=0)
SGD = SGDClassifier(random_state=0)


def hyperband() -> Any:
    """Return one of dask-ml's adaptive searches."""
    from dask_ml.model_selection import HyperbandSearchCV

    alphas = {"alpha": np.logspace(-5, 0, 50)}
    return HyperbandSearchCV(SGD, alphas, max_iter=9, random_state=0)


def optuna() -> Any:
    """Return a search of Optuna."""
    from optuna.distributions import FloatDistribution
    from optuna_integration.sklearn import OptunaSearchCV

    alphas = {"alpha": FloatDistribution(1e-5, 1.0, log=True)}
    return OptunaSearchCV(SGD, alphas, cv=3, n_trials=10, random_state=0)


def sampled_by_optuna() -> Any:
    """Return a Bayesian search."""
    from skopt import BayesSearchCV

    return BayesSearchCV(
        SGD, {"alpha": (1e-5, 1.0, "log-uniform")}, n_iter=10, cv=3, random_state=0
    )


def async_halving() -> Any:
    """Return asynchronous halving that continues models."""
    return AsyncHalvingSearchCV(
        SGD,
        {"alpha": np.logspace(-5, 0, 50)},
        n_candidates=9,
        resource="partial_fit",
        max_resources=9,
        cv=3,
        random_state=0,
    )


@pytest.mark.timeout(400)
@pytest.mark.filterwarnings("ignore:OptunaSearchCV is experimental")
@pytest.mark.parametrize(
    ("search", "sampler"),
    [
        (hyperband, None),
        (optuna, None),
        (sampled_by_optuna, "tpe"),
        (async_halving, None),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_a_job_drives_every_kind_of_search(
    search: Callable[[], Any],
    sampler: str | None,
    cluster: SearchKubeCluster,
    bucket: FarBucket,
) -> None:
    """Its result is a fitted object of the user's class, and its journal is in the bucket."""
    options: dict[str, Any] = {} if sampler is None else {"sampler": sampler}
    with cluster.get_client() as client:
        own = DaskSearchCV(search(), client=client, store=bucket.url, **options)
        classes = {"classes": np.unique(y)} if search is hyperband else {}
        run = own.submit(X, y, **classes)
        found = run.result(PATIENT_S)

    assert type(found) is type(search())
    assert found.best_score_ > 0.7
    assert found.predict(X).shape == y.shape
    progress = run.progress()
    assert progress.fits_done == progress.fits_total > 0
    assert "== driver run-" in run.logs()
