"""Cases of mlxtend."""

from __future__ import annotations

from mlxtend.classifier import EnsembleVoteClassifier, StackingCVClassifier
from mlxtend.feature_selection import SequentialFeatureSelector
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.tree import DecisionTreeClassifier

from tests.libraries.case import Case, flowers


def _stacked() -> StackingCVClassifier:
    members = [
        KNeighborsClassifier(3),
        GaussianNB(),
        DecisionTreeClassifier(random_state=0),
    ]
    return StackingCVClassifier(
        members, LogisticRegression(max_iter=300), cv=2, random_state=0
    )


def _voting() -> EnsembleVoteClassifier:
    members = [LogisticRegression(max_iter=300), GaussianNB(), KNeighborsClassifier(3)]
    return EnsembleVoteClassifier(members, voting="soft")


def _selected() -> Pipeline:
    selector = SequentialFeatureSelector(
        LogisticRegression(max_iter=300), k_features=2, cv=2
    )
    return Pipeline([("selector", selector), ("model", KNeighborsClassifier(3))])


CASES = (
    Case(
        name="mlxtend",
        estimator=_voting,
        space={"weights": [(1, 1, 1), (1, 2, 3), (3, 2, 1)]},
        data=flowers,
        kinds=("grid", "random", "halving-grid"),
    ),
    Case(
        name="mlxtend-stacking",
        estimator=_stacked,
        space={"kneighborsclassifier__n_neighbors": [1, 3, 5]},
        data=flowers,
        kinds=("grid", "bayes"),
    ),
    Case(
        name="mlxtend-selector",
        estimator=_selected,
        space={"selector__k_features": [1, 2, 3]},
        data=flowers,
        kinds=("grid", "bayes"),
    ),
)
