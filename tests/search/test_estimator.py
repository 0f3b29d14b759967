"""DaskSearchCV as a scikit-learn meta-estimator."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.cluster import KMeans
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV, cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from dask_hpsearch import DaskSearchCV

if TYPE_CHECKING:
    from distributed import Client

X, y = load_iris(return_X_y=True)


def grid() -> GridSearchCV:
    """Make a small search."""
    return GridSearchCV(LogisticRegression(max_iter=500), {"C": [0.1, 1.0]}, cv=3)


def test_parameters_are_read_and_set_at_any_depth() -> None:
    """Nested parameters have scikit-learn's names."""
    search = DaskSearchCV(grid())

    search.set_params(search__estimator__max_iter=7, max_time=3)

    assert search.get_params()["search__estimator__max_iter"] == 7
    assert search.max_time == 3


def test_a_clone_shares_the_client_and_nothing_else(client: Client) -> None:
    """A connection cannot be copied; the search is."""
    search = DaskSearchCV(grid(), client=client, fit_timeout=9).fit(X, y)

    copy = clone(search)

    assert copy.client is client
    assert copy.fit_timeout == 9
    assert copy.search is not search.search
    assert not hasattr(copy, "search_")


def test_a_pickle_leaves_the_client_behind(client: Client) -> None:
    """A fitted search predicts elsewhere; it has no connection there."""
    search = DaskSearchCV(grid(), client=client).fit(X, y)

    copy = pickle.loads(pickle.dumps(search))

    assert copy.client is None
    np.testing.assert_array_equal(copy.predict(X), search.predict(X))


def test_it_says_what_the_search_is() -> None:
    """Tags, and so is_classifier, are the wrapped search's."""
    classifier, regressor = (
        DaskSearchCV(grid()),
        DaskSearchCV(GridSearchCV(Ridge(), {})),
    )

    assert is_classifier(classifier)
    assert is_regressor(regressor)
    assert get_tags(classifier) == get_tags(grid())


def test_fitted_attributes_are_those_of_the_search(client: Client) -> None:
    """Whatever the fitted search has can be read here."""
    search = DaskSearchCV(grid(), client=client).fit(X, y)
    fitted = search.search_

    assert search.best_params_ == fitted.best_params_
    assert search.cv_results_ is fitted.cv_results_
    assert search.n_features_in_ == 4
    assert search.backend_ == "trials"
    assert search.stopped_ is None
    assert search.score(X, y) == fitted.score(X, y)
    np.testing.assert_array_equal(search.classes_, fitted.classes_)
    np.testing.assert_array_equal(search.predict_proba(X), fitted.predict_proba(X))
    np.testing.assert_array_equal(
        search.predict_log_proba(X), fitted.predict_log_proba(X)
    )
    np.testing.assert_array_equal(
        search.decision_function(X), fitted.decision_function(X)
    )


def test_it_transforms_where_the_estimator_does(client: Client) -> None:
    """transform, inverse_transform and score_samples are delegated."""
    search = DaskSearchCV(GridSearchCV(PCA(), {"n_components": [2, 3]}), client=client)

    search.fit(X)

    back = search.inverse_transform(search.transform(X))
    assert back.shape == X.shape
    assert search.score_samples(X).shape == (150,)


def test_methods_are_there_only_if_the_estimator_has_them() -> None:
    """hasattr tells the truth, before and after fit."""
    search = DaskSearchCV(GridSearchCV(LinearSVC(), {"C": [1]}))

    assert hasattr(search, "decision_function")
    assert not hasattr(search, "predict_proba")
    assert not hasattr(DaskSearchCV(GridSearchCV(KMeans(), {})), "predict_proba")


def test_before_fit_it_says_so() -> None:
    """Predicting unfitted is scikit-learn's own error."""
    search = DaskSearchCV(grid())

    with pytest.raises(NotFittedError, match="not fitted yet"):
        search.predict(X)
    with pytest.raises(NotFittedError):
        check_is_fitted(search)
    with pytest.raises(AttributeError, match="no attribute 'best_params_'"):
        _ = search.best_params_


def test_it_works_inside_scikit_learn(client: Client) -> None:
    """As a step of a pipeline, and cross-validated."""
    search = DaskSearchCV(grid(), client=client)

    pipeline = make_pipeline(StandardScaler(), search).fit(X, y)
    scores = cross_val_score(search, X, y, cv=2)

    assert pipeline.score(X, y) > 0.9
    assert scores.min() > 0.8


def test_metadata_is_routed_to_the_search(client: Client) -> None:
    """With routing on, a pipeline around it hands sample weights through."""
    weights = np.linspace(0, 1, 150)
    with config_context(enable_metadata_routing=True):
        estimator = LogisticRegression(max_iter=500).set_fit_request(sample_weight=True)
        estimator.set_score_request(sample_weight=False)
        plain = GridSearchCV(estimator, {"C": [0.1, 1.0]}, cv=3)
        ours = make_pipeline(
            StandardScaler().set_fit_request(sample_weight=False),
            DaskSearchCV(plain, client=client),
        )

        ours.fit(X, y, sample_weight=weights)
        plain.fit(StandardScaler().fit_transform(X), y, sample_weight=weights)

    np.testing.assert_array_equal(
        ours[-1].cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"]
    )


def test_successive_fits_draw_on(client: Client) -> None:
    """A RandomState is the caller's: two fits advance it as two plain fits would."""
    space = {"var_smoothing": np.logspace(-9, 0, 50)}
    ours, plain = (
        RandomizedSearchCV(
            GaussianNB(),
            space,
            n_iter=2,
            cv=2,
            random_state=np.random.RandomState(0),
            refit=False,
        )
        for _ in range(2)
    )
    search = DaskSearchCV(ours, client=client)

    seen = [search.fit(X, y).cv_results_["params"] for _ in range(2)]

    assert seen == [plain.fit(X, y).cv_results_["params"] for _ in range(2)]


def test_importing_costs_little() -> None:
    """The package imports neither Dask nor scikit-learn, nor anything heavier."""
    code = (
        "import sys, dask_hpsearch; "
        "print([m for m in ('dask', 'distributed', 'sklearn', 'pandas', 'matplotlib', "
        "'dask_ml', 'skopt', 'rich', 'google') if m in sys.modules])"
    )

    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert shown.stdout.strip() == "[]"


def test_the_class_imports_no_more_than_scikit_learn_and_dask() -> None:
    """What fits a search is imported with the first fit; of this package, too."""
    show = "; import sys; print(*sys.modules)"
    codes = (
        "import sklearn.model_selection, distributed",
        "import dask_hpsearch; dask_hpsearch.DaskSearchCV",
    )

    theirs, ours = (
        set(
            subprocess.run(
                [sys.executable, "-c", code + show],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.split()
        )
        for code in codes
    )

    more = {name for name in ours - theirs if name != "__mp_main__"}
    assert {name.split(".")[0] for name in more} == {"dask_hpsearch"}
    assert len(more) < 12


def test_using_it_imports_nothing_optional() -> None:
    """Extras are imported when a search needs them."""
    code = (
        "import sys; from dask_hpsearch import DaskSearchCV, SearchRun, local_cluster; "
        "print([m for m in ('matplotlib', 'dask_ml', 'skopt', 'google', 'kr8s', "
        "'bokeh', 'IPython') if m in sys.modules])"
    )

    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert shown.stdout.strip() == "[]"
