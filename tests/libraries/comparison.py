"""Compare a fitted search with a plain one whose best estimator is a library's."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import cloudpickle
import numpy as np

from tests.oracle.comparison import assert_same
from tests.oracle.reader import answers

if TYPE_CHECKING:
    from tests.libraries.case import Case


def assert_equal(plain: Any, found: Any, case: Case) -> None:
    """Compare all that two fitted searches have, and what they predict.

    Best estimators are compared by what they say: inside, libraries keep times,
    identifiers and caches of a fit, which differ from one plain fit to the next.
    """
    assert type(found) is type(plain)
    assert_same(_without_estimators(plain), _without_estimators(found))
    assert_same(_said(plain, case), _said(found, case))
    if case.fitted_name is not None:
        one, other = (
            getattr(search.best_estimator_, case.fitted_name)
            for search in (plain, found)
        )
        assert one == other
    assert np.isfinite(plain.cv_results_["mean_test_score"]).all()


def _said(search: Any, case: Case) -> dict[str, object]:
    # A pickle lacks some of what a fit left; functions of a script travel by value.
    stored = pickle.loads(cloudpickle.dumps(search))
    said = answers(stored, *case.data())
    del said["scorer_"]  # compared before
    return said


def _without_estimators(search: Any) -> dict[str, Any]:
    left_out = {"best_estimator_", "estimator"}
    return {key: value for key, value in vars(search).items() if key not in left_out}
