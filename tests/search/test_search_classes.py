from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import GridSearchCV, ParameterGrid
from sklearn.tree import DecisionTreeClassifier

from dask_hpsearch import DaskSearchCV
from tests.estimators import flowers

if TYPE_CHECKING:
    from distributed import Client

DEPTHS = {"max_depth": [1, 2]}


class LooksAtItsClass(GridSearchCV):
    def _run_search(self, evaluate_candidates: Any) -> None:
        if type(self) is not LooksAtItsClass:
            raise TypeError(type(self))
        evaluate_candidates(ParameterGrid(self.param_grid))


class NamesItsClass(GridSearchCV):
    def fit(self, X: Any, y: Any = None, **params: Any) -> Any:
        assert self.__class__.__mro__[1] is GridSearchCV
        return super(self.__class__, self).fit(X, y, **params)


class ForbidsSubclasses(GridSearchCV):
    def __init_subclass__(cls, **options: Any) -> None:
        msg = "no subclasses"
        raise TypeError(msg)


class HasSlots(GridSearchCV):
    __slots__ = ("note",)

    def fit(self, X: Any, y: Any = None, **params: Any) -> Any:
        self.note = "fitted"
        return super().fit(X, y, **params)


class PicklesByItsOwnWay(GridSearchCV):
    def __reduce__(self) -> tuple[Any, ...]:
        return object.__new__, (type(self),), vars(self)


class KeepsItsOwnState(GridSearchCV):
    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return state | {"was_pickled": True}


class CopiesItself(GridSearchCV):
    """Fits copies of itself while it is fitted, which are no part of its own results."""

    def _run_search(self, evaluate_candidates: Any) -> None:
        if self.refit:
            for copied in (copy.copy(self), copy.deepcopy(self), clone(self)):
                copied.set_params(refit=False, param_grid={}).fit(*flowers())
                assert copied.cv_results_["params"] == [{}]
        evaluate_candidates(ParameterGrid(self.param_grid))


class ScoresItself(GridSearchCV):
    """Its scorer is its own method: it goes to the workers while it is fitted."""

    def fit(self, X: Any, y: Any = None, **params: Any) -> Any:
        self.scoring = self._score
        try:
            return super().fit(X, y, **params)
        finally:
            self.scoring = None

    def _score(self, estimator: Any, X: Any, y: Any) -> float:
        return float(estimator.score(X, y)) - (self.cv == 2)


def columns(search: Any) -> dict[str, Any]:
    """What a fit found, times apart."""
    return {
        name: np.asarray(value).tolist()
        for name, value in search.cv_results_.items()
        if not name.endswith("_time")
    }


@pytest.mark.parametrize(
    "kind",
    [
        LooksAtItsClass,
        NamesItsClass,
        ForbidsSubclasses,
        HasSlots,
        CopiesItself,
        PicklesByItsOwnWay,
        KeepsItsOwnState,
        ScoresItself,
    ],
)
def test_a_search_keeps_its_class_while_it_is_fitted(kind: Any, client: Client) -> None:
    """It may look at its class, forbid others to extend it, or pickle in its own way."""
    X, y = flowers()
    search = kind(DecisionTreeClassifier(random_state=0), DEPTHS, cv=2)
    plain = kind(DecisionTreeClassifier(random_state=0), DEPTHS, cv=2).fit(X, y)

    found = DaskSearchCV(search, client=client).fit(X, y)

    assert type(found.search_) is kind
    assert columns(found) == columns(plain)
    assert vars(found.search_).keys() == vars(plain).keys()


def test_a_method_set_on_the_search_itself_is_run(client: Client) -> None:
    """What stands on the instance counts, and stands there afterwards."""
    X, y = flowers()

    def only_the_first(evaluate_candidates: Any) -> None:
        evaluate_candidates([{"max_depth": 1}])

    search = GridSearchCV(DecisionTreeClassifier(), DEPTHS, cv=2)
    search._run_search = only_the_first

    found = DaskSearchCV(search, client=client).fit(X, y)

    assert found.cv_results_["params"] == [{"max_depth": 1}]
    assert found.search_._run_search is only_the_first


class SetsFittedNames(BaseEstimator):
    """Selects with joblib; its constructor sets what is named like a fitted attribute."""

    def __init__(self, estimator: Any = None, n_jobs: int | None = None) -> None:
        self.estimator = estimator
        self.n_jobs = n_jobs
        self.est_ = clone(estimator)
        self.counts_: dict[str, int] = {}

    def fit(self, X: Any, y: Any) -> SetsFittedNames:
        assert not self.counts_, "it holds what an earlier fit has found"
        tree = self.est_
        self.scores_ = Parallel(n_jobs=self.n_jobs)(
            delayed(score_of)(tree, X[:, [column]], y) for column in range(X.shape[1])
        )
        self.counts_["columns"] = X.shape[1]
        return self


class HasNoParameters:
    """Fits with joblib, and is no estimator of scikit-learn's."""

    def __init__(self, tree: Any, /) -> None:
        self.tree_ = tree

    def fit(self, X: Any, y: Any) -> HasNoParameters:
        self.scores_ = Parallel(n_jobs=2)([delayed(score_of)(self.tree_, X, y)])
        return self


def score_of(tree: Any, X: Any, y: Any) -> float:
    """Score a fitted copy of a tree."""
    return float(clone(tree).fit(X, y).score(X, y))


def test_what_a_constructor_sets_is_no_fitted_state(client: Client) -> None:
    """An attribute that ends in an underscore stays, as the constructor sets it."""
    X, y = flowers()
    selector = SetsFittedNames(DecisionTreeClassifier(random_state=0))
    plain = clone(selector).fit(X, y)

    found = DaskSearchCV(selector, client=client).fit(X, y)
    again = DaskSearchCV(found.search_, client=client).fit(X, y)

    assert found.scores_ == again.scores_ == plain.scores_
    assert found.counts_ == again.counts_ == {"columns": X.shape[1]}
    assert not selector.counts_
    assert not hasattr(selector, "scores_")


def test_what_has_no_parameters_keeps_all_its_attributes(client: Client) -> None:
    """Nobody can tell what its constructor set: a second fit finds what it would find."""
    X, y = flowers()
    thing = HasNoParameters(DecisionTreeClassifier(random_state=0))

    found = DaskSearchCV(thing, client=client).fit(X, y)

    assert found.scores_ == [1.0]
    assert found.search_ is not thing


def test_a_search_that_was_fitted_before_begins_anew(client: Client) -> None:
    """Nothing of its earlier fit is in the result."""
    X, y = flowers()
    search = GridSearchCV(DecisionTreeClassifier(random_state=0), DEPTHS, cv=2)
    search.fit(X, y)
    search.set_params(refit=False)

    found = DaskSearchCV(search, client=client).fit(X, y)

    assert not hasattr(found.search_, "best_estimator_")
    assert hasattr(search, "best_estimator_")


def test_a_fitted_search_pickles_as_it_would_without_us(client: Client) -> None:
    """Nothing that stood on it during the fit is left."""
    X, y = flowers()
    search = GridSearchCV(DecisionTreeClassifier(random_state=0), DEPTHS, cv=2)

    found = DaskSearchCV(search, client=client).fit(X, y)

    loaded = pickle.loads(pickle.dumps(found.search_))
    assert vars(loaded).keys() == vars(search.fit(X, y)).keys()
