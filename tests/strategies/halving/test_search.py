"""`AsyncHalvingSearchCV` alone, compared with scikit-learn's halving and with the paper."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from scipy.stats import loguniform, randint
from sklearn.base import clone
from sklearn.ensemble import (
    BaggingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.exceptions import ConvergenceWarning, FitFailedWarning
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import (
    GroupKFold,
    HalvingRandomSearchCV,
    KFold,
    StratifiedKFold,
)
from sklearn.model_selection._search_successive_halving import _SubsampleMetaSplitter
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from dask_hpsearch import AsyncHalvingSearchCV
from tests.estimators import flowers
from tests.oracle.structure import difference
from tests.strategies.halving.learners import Learner
from tests.strategies.halving.test_ladder import Paper

X, y = flowers(150)
TREE = DecisionTreeClassifier(random_state=0)
LEAVES = {"max_depth": randint(1, 6), "min_samples_leaf": randint(1, 12)}
NUMBERS = {"number": list(range(40))}

pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning", "ignore:.*non-finite"
)


def halving(estimator: Any = TREE, space: Any = LEAVES, **options: Any) -> Any:
    """Make a search of nine candidates on three rungs."""
    options = {
        "n_candidates": 9,
        "min_resources": 16,
        "cv": 3,
        "random_state": 0,
        **options,
    }
    return AsyncHalvingSearchCV(estimator, space, **options)


def iterations(estimator: Any, space: Any, **options: Any) -> Any:
    """Make such a search with 1, 3 and 9 iterations."""
    return halving(
        estimator,
        space,
        **{
            "resource": "max_iter",
            "max_resources": 9,
            "min_resources": "exhaust",
            **options,
        },
    )


def rows(search: Any, rung: int) -> np.ndarray:
    """Return which rows of the results are of a rung."""
    return np.flatnonzero(search.cv_results_["iter"] == rung)


def test_a_seed_gives_one_result() -> None:
    """However often it is fitted."""
    search = halving()

    assert difference(clone(search).fit(X, y), search.fit(X, y)) is None


def test_candidates_and_the_lowest_rung_are_those_of_scikit_learn() -> None:
    """For a seed: parameters, resources, subsamples and so scores."""
    options = {"n_candidates": 9, "min_resources": 16, "cv": 3}
    theirs = HalvingRandomSearchCV(TREE, LEAVES, random_state=0, **options).fit(X, y)

    ours = halving().fit(X, y)

    assert ours.n_resources_ == theirs.n_resources_
    assert (ours.min_resources_, ours.max_resources_) == (16, 150)
    lowest = theirs.cv_results_["iter"] == 0
    for name, column in theirs.cv_results_.items():
        if "time" not in name and "rank" not in name:
            expected = np.asarray(column)[lowest]
            found = np.asarray(ours.cv_results_[name])[rows(ours, 0)]
            np.testing.assert_array_equal(found, expected, err_msg=name)
    assert ours.cv_results_.keys() == theirs.cv_results_.keys()


def test_it_promotes_as_the_paper_says() -> None:
    """Compared with fits made one by one in a loop, on scikit-learn's own subsamples."""
    search = halving().fit(X, y)
    candidates = [search.cv_results_["params"][row] for row in rows(search, 0)]
    paper = Paper(9, 3, factor=3)
    expected: list[tuple[int, dict[str, Any], float]] = []
    while (job := paper.get_job()) is not None:
        splitter = _SubsampleMetaSplitter(
            base_cv=StratifiedKFold(3),
            fraction=search.n_resources_[job.rung] / len(X),
            subsample_test=True,
            random_state=0,
        )
        params = candidates[job.candidate]
        scores = [
            clone(TREE)
            .set_params(**params)
            .fit(X[train], y[train])
            .score(X[test], y[test])
            for train, test in splitter.split(X, y)
        ]
        paper.scores[job.rung][job.candidate] = float(np.mean(scores))
        expected.append((job.rung, params, paper.scores[job.rung][job.candidate]))

    expected.sort(key=lambda one: one[0])
    results = search.cv_results_
    found = zip(
        results["iter"], results["params"], results["mean_test_score"], strict=True
    )
    assert list(found) == expected


def test_its_attributes_describe_the_rungs() -> None:
    """As those of scikit-learn's halving."""
    search = iterations(Learner(), NUMBERS, factor=3).fit(X, y)

    results = search.cv_results_
    assert search.n_resources_ == [1, 3, 9]
    assert search.n_iterations_ == 3
    assert search.n_candidates_ == [len(rows(search, rung)) for rung in range(3)]
    assert search.n_remaining_candidates_ == 1
    assert results["n_resources"].tolist() == [
        search.n_resources_[rung] for rung in results["iter"]
    ]
    assert [one["max_iter"] for one in results["params"]] == results[
        "n_resources"
    ].tolist()


def test_the_best_is_one_of_the_highest_rung() -> None:
    """Though a lower rung has a higher score: of a learner that gets worse."""
    search = iterations(Learner(), NUMBERS).fit(X, y)
    results = search.cv_results_
    results["mean_test_score"][0] = 1000

    assert search._select_best_index("score", "score", results) in rows(search, 2)
    assert search.best_index_ in rows(search, 2)
    assert search.best_params_["max_iter"] == 9
    assert search.best_estimator_.n_done_ == 9
    assert search.best_score_ == max(results["mean_test_score"][rows(search, 2)])


def test_failed_candidates_stay_below() -> None:
    """They have their row and scikit-learn's warning, and are not promoted."""
    drawn = [
        one["number"]
        for one in iterations(Learner(), NUMBERS).fit(X, y).cv_results_["params"][:9]
    ]
    *_, second, best = sorted(drawn)
    search = iterations(Learner(fails=(best,)), NUMBERS)

    with pytest.warns(FitFailedWarning, match="3 fits failed"):
        search.fit(X, y)

    assert search.best_params_["number"] == second
    failed = [one["number"] == best for one in search.cv_results_["params"]]
    assert np.flatnonzero(failed).size == 1
    assert np.isnan(search.cv_results_["mean_test_score"][failed]).all()


def test_if_all_fits_fail_so_does_the_search() -> None:
    """With scikit-learn's own error."""
    search = iterations(Learner(fails=tuple(range(40))), NUMBERS)

    with pytest.raises(ValueError, match="All the 27 fits failed"):
        search.fit(X, y)


def test_an_error_can_be_raised() -> None:
    """That of the first fit that fails."""
    search = iterations(Learner(fails=tuple(range(40))), NUMBERS, error_score="raise")

    with pytest.raises(ValueError, match="fails"):
        search.fit(X, y)


def two_scores(estimator: Any, X: Any, y: Any) -> dict[str, float]:
    """Score in two ways, the second the reverse of the first."""
    score = estimator.score(X, y)
    return {"good": score, "bad": -score}


@pytest.mark.parametrize(("refit", "extreme"), [("good", max), ("bad", min)])
def test_one_of_several_scores_leads(refit: str, extreme: Any) -> None:
    """``refit`` names the score by which candidates are promoted."""
    search = iterations(Learner(), NUMBERS, scoring=two_scores, refit=refit).fit(X, y)

    drawn = [one["number"] for one in search.cv_results_["params"][:9]]
    assert search.best_params_["number"] == extreme(drawn)
    highest = search.cv_results_[f"mean_test_{refit}"][rows(search, 2)]
    assert search.best_score_ == highest.max()


def test_several_scores_want_a_leader() -> None:
    """Otherwise it is not known which candidates are better."""
    search = iterations(Learner(), NUMBERS, scoring=two_scores, refit=False)

    with pytest.raises(ValueError, match="name one of them, refit="):
        search.fit(X, y)


def test_groups_and_weights_reach_splits_and_fits() -> None:
    """As in scikit-learn's searches: compared with its lowest rung."""
    groups = np.arange(len(X)) % 5
    weights = np.random.default_rng(0).random(len(X))
    options = {"n_candidates": 9, "min_resources": 16, "cv": GroupKFold(5)}
    theirs = HalvingRandomSearchCV(TREE, LEAVES, random_state=0, **options)
    theirs.fit(X, y, groups=groups, sample_weight=weights)

    ours = halving(cv=GroupKFold(5)).fit(X, y, groups=groups, sample_weight=weights)

    np.testing.assert_array_equal(
        ours.cv_results_["mean_test_score"][:9],
        theirs.cv_results_["mean_test_score"][:9],
    )


def test_a_random_state_advances_as_with_any_search() -> None:
    """Two fits draw different candidates; the object stays the search's own."""
    state = np.random.RandomState(0)
    search = halving(random_state=state)

    first = search.fit(X, y).cv_results_["params"]
    second = search.fit(X, y).cv_results_["params"]

    assert search.random_state is state
    assert first[:9] != second[:9]


def test_unseeded_subsamples_of_higher_rungs_have_those_of_lower_ones() -> None:
    """So that scores of one candidate differ by what was added."""
    seen: list[set[bytes]] = []

    def note(estimator: Any, X: Any, y: Any) -> float:
        seen.append({row.tobytes() for row in X})
        return float(len(X))

    halving(
        random_state=None,
        scoring=note,
        return_train_score=False,
        n_candidates=3,
        refit=False,
    ).fit(X, y)

    assert len(seen) == 12
    assert all(low <= high for low, high in zip(seen[6:9], seen[9:], strict=True))


@pytest.mark.parametrize("warm_start", [True, False])
def test_models_of_iterations_go_on(*, warm_start: bool) -> None:
    """Each split's own model: scores equal those of warm-started fits in a loop."""
    network = MLPClassifier(random_state=0)
    space = {"alpha": loguniform(1e-5, 1e-1)}
    search = iterations(network, space, warm_start=warm_start).fit(X, y)
    (row,) = rows(search, 2)
    alpha = search.cv_results_["params"][row]["alpha"]

    scores = []
    for train, test in StratifiedKFold(3).split(X, y):
        model = clone(network).set_params(alpha=alpha, warm_start=True)
        for max_iter in (1, 2, 6) if warm_start else (9,):
            model.set_params(max_iter=max_iter).fit(X[train], y[train])
        scores.append(model.score(X[test], y[test]))

    found = [search.cv_results_[f"split{split}_test_score"][row] for split in range(3)]
    assert found == scores
    again = clone(network).set_params(**search.best_params_).fit(X, y)
    np.testing.assert_array_equal(search.predict(X), again.predict(X))
    assert search.best_estimator_.warm_start is False


@pytest.mark.parametrize(
    ("estimator", "resource"),
    [
        (RandomForestClassifier(random_state=0), "n_estimators"),
        (HistGradientBoostingClassifier(random_state=0), "max_iter"),
    ],
    ids=["forest", "boosting"],
)
def test_ensembles_go_on_to_a_number_of_trees(estimator: Any, resource: str) -> None:
    """Where the parameter counts all trees, results equal those of new ensembles."""
    name = "max_depth" if resource == "n_estimators" else "max_leaf_nodes"
    options = {
        "resource": resource,
        "max_resources": 9,
        "min_resources": 3,
        "n_candidates": 3,
    }
    space = {name: randint(2, 6)}

    ours = halving(estimator, space, **options).fit(X, y)
    anew = halving(estimator, space, warm_start=False, **options).fit(X, y)

    for column in ("iter", "mean_test_score", "mean_train_score"):
        np.testing.assert_array_equal(
            ours.cv_results_[column], anew.cv_results_[column]
        )


def test_the_last_step_of_a_pipeline_goes_on() -> None:
    """The steps before it are fitted again, to the same rows."""
    inner = iterations(
        MLPClassifier(random_state=0), {"alpha": [1e-3, 1e-2, 1e-1]}, n_candidates=3
    )
    scaled = make_pipeline(StandardScaler(), MLPClassifier(random_state=0))
    outer = iterations(
        scaled,
        {"mlpclassifier__alpha": [1e-3, 1e-2, 1e-1]},
        n_candidates=3,
        resource="mlpclassifier__max_iter",
        cv=KFold(2, shuffle=True, random_state=0),
    )
    (train, test), _ = outer.cv.split(X, y)

    outer.fit(X, y)
    inner.fit(X, y)

    (row,) = rows(outer, 1)
    model = clone(scaled).set_params(
        mlpclassifier__alpha=outer.cv_results_["params"][row]["mlpclassifier__alpha"],
        mlpclassifier__warm_start=True,
    )
    for max_iter in (3, 6):
        model.set_params(mlpclassifier__max_iter=max_iter).fit(X[train], y[train])
    assert outer.cv_results_["split0_test_score"][row] == model.score(X[test], y[test])


def test_parts_that_a_fit_copies_train_anew() -> None:
    """Bagging fits copies of its estimator, which know nothing of an earlier fit."""
    bagged = BaggingClassifier(LogisticRegression(), n_estimators=2, random_state=0)
    options = {"resource": "estimator__max_iter", "n_candidates": 3}
    space = {"estimator__C": [0.1, 1.0, 10.0]}

    ours = iterations(bagged, space, **options).fit(X, y)
    anew = iterations(bagged, space, warm_start=False, **options).fit(X, y)

    np.testing.assert_array_equal(
        ours.cv_results_["mean_test_score"], anew.cv_results_["mean_test_score"]
    )


def test_passes_of_partial_fit_go_on() -> None:
    """Scores and the refitted model equal those of passes made in a loop."""
    linear = SGDClassifier(random_state=0)
    search = halving(
        linear,
        {"alpha": loguniform(1e-6, 1e-1)},
        resource="partial_fit",
        max_resources=9,
        min_resources=1,
    ).fit(X, y)

    def passes(train: Any, alpha: float) -> Any:
        model = clone(linear).set_params(alpha=alpha)
        for _ in range(9):
            model.partial_fit(X[train], y[train], classes=np.unique(y))
        return model

    row = search.best_index_
    alpha = search.cv_results_["params"][row]["alpha"]
    scores = [
        passes(train, alpha).score(X[test], y[test])
        for train, test in StratifiedKFold(3).split(X, y)
    ]
    assert [
        search.cv_results_[f"split{one}_test_score"][row] for one in range(3)
    ] == scores
    assert search.best_params_ == {"alpha": alpha}
    assert search.best_score_ == search.cv_results_["mean_test_score"][row]
    np.testing.assert_array_equal(
        search.best_estimator_.coef_, passes(np.arange(len(X)), alpha).coef_
    )
    assert search.refit_time_ > 0
    assert search.refit is True


@pytest.mark.parametrize("resource", ["max_iter", "partial_fit"])
def test_rungs_of_equal_resources_keep_their_models(resource: str) -> None:
    """A small factor repeats resources: a model that has them all is scored again."""
    linear = SGDClassifier(random_state=0, tol=None)
    space = {"alpha": loguniform(1e-6, 1e-1)}
    options = {"factor": 1.5, "min_resources": 1, "resource": resource}

    search = iterations(linear, space, **options).fit(X, y)

    assert search.n_resources_ == [1, 1, 2, 3, 5, 7]
    results = search.cv_results_
    assert np.isfinite(results["mean_test_score"]).all()
    alphas = [params["alpha"] for params in results["params"]]
    scores = dict(zip(alphas[:9], results["mean_test_score"], strict=False))
    for row in rows(search, 1):
        assert results["mean_test_score"][row] == scores[alphas[row]]
        if resource == "max_iter":
            assert results["params"][row]["max_iter"] == 1


@pytest.mark.parametrize("names", [np.array([0, 1]), np.array(["no", "yes"])])
def test_passes_of_several_outputs_know_the_classes_of_each(names: Any) -> None:
    """A MultiOutputClassifier takes a list of them."""
    outputs = names[np.column_stack([X[:, 0] > X[0, 0], X[:, 1] > X[0, 1]]).astype(int)]
    several = MultiOutputClassifier(SGDClassifier(random_state=0))
    space = {"estimator__alpha": loguniform(1e-6, 1e-1)}
    options = {"resource": "partial_fit", "cv": KFold(3), "scoring": exact_matches}

    search = iterations(several, space, **options).fit(X, outputs)

    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.predict(X).shape == outputs.shape
    for found in search.best_estimator_.estimators_:
        np.testing.assert_array_equal(found.classes_, names)


def exact_matches(estimator: Any, X: Any, y: Any) -> float:
    """Return the share of rows whose outputs are all right."""
    return float((estimator.predict(X) == y).all(axis=1).mean())


def lowest_of_top(results: dict[str, Any]) -> int:
    """Choose the last row, as a callable ``refit`` may."""
    return len(results["params"]) - 1


@pytest.mark.parametrize("resource", ["partial_fit", "max_iter"])
@pytest.mark.parametrize(
    ("options", "attributes"),
    [
        ({"refit": False}, {"best_index_", "best_params_", "best_score_"}),
        ({"refit": lowest_of_top}, {"best_index_", "best_params_", "best_estimator_"}),
        (
            {"refit": "good", "scoring": two_scores},
            {"best_index_", "best_params_", "best_score_", "best_estimator_"},
        ),
    ],
    ids=["no", "callable", "name"],
)
def test_kinds_of_refit(resource: str, options: Any, attributes: set[str]) -> None:
    """Which attributes there are is as in scikit-learn, with any resource."""
    search = iterations(Learner(), NUMBERS, resource=resource, **options).fit(X, y)

    assert {name for name in vars(search) if name.startswith("best_")} == attributes
    assert search.best_params_ == search.cv_results_["params"][search.best_index_]
    if options["refit"]:
        assert search.best_estimator_.n_done_ == 9


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"resource": "trees"}, "resource must be 'n_samples', 'partial_fit'"),
        ({"resource": "partial_fit", "max_resources": 9}, "has none"),
        ({"resource": "max_depth", "max_resources": 90}, "one of the searched"),
        ({"resource": "max_leaf_nodes"}, "max_resources must be a number"),
        (
            {"n_candidates": "exhaust", "min_resources": "exhaust"},
            "cannot both be 'exhaust'",
        ),
        ({"min_resources": 200}, "at most max_resources, got 200 and 150"),
        ({"cv": KFold(3, shuffle=True)}, "same splits each time"),
        ({"factor": 1}, "'factor' parameter"),
    ],
)
def test_errors_name_the_parameter(options: Any, text: str) -> None:
    """And what to give instead."""
    with pytest.raises(ValueError, match=text):
        halving(**options).fit(X, y)


def test_exhausting_candidates_fill_the_resources() -> None:
    """As many candidates as the lowest rung goes into the highest."""
    search = halving(n_candidates="exhaust", min_resources=30).fit(X, y)

    assert search.n_candidates_[0] == 5
    assert search.n_resources_ == [30, 90]


def test_splits_of_a_candidate_run_at_the_same_time() -> None:
    """With ``n_jobs``, in joblib's processes; the result is the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        one, two = (
            iterations(Learner(), NUMBERS, n_jobs=n_jobs).fit(X, y)
            for n_jobs in (None, 2)
        )

    assert difference(one, two.set_params(n_jobs=None)) is None
