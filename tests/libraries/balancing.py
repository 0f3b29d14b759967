"""Cases of imbalanced-learn."""

from __future__ import annotations

from typing import Any

from imblearn.ensemble import BalancedRandomForestClassifier
from imblearn.over_sampling import SMOTE, RandomOverSampler
from imblearn.pipeline import Pipeline
from imblearn.under_sampling import RandomUnderSampler
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from tests.libraries.case import Case, tumours


def _balanced(sampler: Any = None) -> Pipeline:
    return Pipeline(
        [
            ("scaler", StandardScaler()),
            ("sampler", sampler or SMOTE(random_state=0, k_neighbors=1)),
            ("model", LogisticRegression(max_iter=300)),
        ]
    )


CASES = (
    Case(
        name="imblearn",
        estimator=_balanced,
        space={"model__C": [0.01, 1.0, 100.0]},
        data=tumours,
        # The first rung of the other has too few samples of the minority.
        kinds=("grid", "random", "halving-grid", "bayes"),
    ),
    Case(
        name="imblearn-samplers",
        estimator=_balanced,
        space={
            "sampler": [
                SMOTE(random_state=1),
                RandomOverSampler(random_state=0),
                RandomUnderSampler(random_state=0),
                "passthrough",
            ]
        },
        data=tumours,
    ),
    Case(
        name="imblearn-forest",
        estimator=lambda: BalancedRandomForestClassifier(
            n_estimators=8, random_state=0, sampling_strategy="all", replacement=True
        ),
        space={"max_depth": [1, 2, 3]},
        data=tumours,
        kinds=("grid", "halving-random"),
    ),
)
UNSEEDED = Case(
    name="imblearn-unseeded",
    estimator=lambda: _balanced(SMOTE()),
    space={"model__C": [0.1, 1.0]},
    data=tumours,
)
