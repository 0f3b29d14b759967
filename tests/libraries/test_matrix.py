"""Searches over estimators of other libraries equal plain ones, by every way."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from mlxtend.feature_selection import SequentialFeatureSelector
from sklearn.linear_model import LogisticRegression

from dask_hpsearch import DaskSearchCV
from tests.libraries import (
    balancing,
    boosting,
    embedding,
    frames,
    kernels,
    networks,
    stacking,
)
from tests.libraries.case import flowers
from tests.libraries.comparison import assert_equal

if TYPE_CHECKING:
    from distributed import Client

    from tests.libraries.case import Case

MODULES = (boosting, networks, balancing, frames, embedding, kernels, stacking)
CASES = {case.name: case for module in MODULES for case in module.CASES}
every_case = pytest.mark.parametrize(
    ("name", "kind"),
    [(case.name, kind) for case in CASES.values() for kind in case.kinds],
)


@cache
def plain(name: str, kind: str) -> Any:
    """Fit a case's search plainly, once for all ways."""
    case = CASES[name]
    return _fit(case.search(kind), case)


@every_case
def test_fit(name: str, kind: str, client: Client) -> None:
    """`fit` on a cluster leaves what a plain fit leaves."""
    case = CASES[name]

    # Bayes without a barrier has candidates of its own; skopt's loop has skopt's.
    search = DaskSearchCV(case.search(kind), client=client, bayes_async=False)
    found = _fit(search, case)

    assert found.backend_ == "trials"
    assert_equal(plain(name, kind), found.search_, case)


@every_case
def test_submit(name: str, kind: str, client: Client) -> None:
    """A submitted search comes back as a plain fit leaves it."""
    case = CASES[name]
    X, y = case.data()

    search = DaskSearchCV(case.search(kind), client=client, bayes_async=False)
    found = search.submit(X, y, **case.fit_params()).result()

    assert_equal(plain(name, kind), found, case)


@pytest.mark.parametrize(
    "case", [balancing.UNSEEDED, embedding.UNSEEDED, networks.UNSEEDED]
)
def test_unseeded(case: Case, client: Client) -> None:
    """What draws its own numbers, or computes in threads, is fitted and comes back."""
    found = _fit(DaskSearchCV(case.search("grid"), client=client), case)

    assert np.isfinite(found.cv_results_["mean_test_score"]).all()
    assert len(found.predict(case.data()[0])) == len(case.data()[1])


def test_selector_by_itself(client: Client) -> None:
    """mlxtend's selector, which is no search, is fitted by way of joblib."""
    X, y = flowers()

    def selector() -> SequentialFeatureSelector:
        model = LogisticRegression(max_iter=300)
        return SequentialFeatureSelector(model, k_features=2, cv=2, n_jobs=-1)

    found = DaskSearchCV(selector(), client=client).fit(X, y)

    assert found.backend_ == "joblib"
    assert found.k_feature_idx_ == selector().fit(X, y).k_feature_idx_


def _fit(search: Any, case: Case) -> Any:
    X, y = case.data()
    return search.fit(X, y, **case.fit_params())
