"""Fit a search of a script plainly, by fit and by submit; compare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dask_hpsearch import DaskSearchCV, SearchRun, local_cluster
from tests.libraries.comparison import assert_equal

if TYPE_CHECKING:
    from tests.libraries.case import Case


def check(case: Case) -> None:
    """Assert that a case that a script has defined is the same in every way."""
    plain = _fitted(case.search("grid"), case)
    with (
        local_cluster(1, 2, dashboard_address=None) as cluster,
        cluster.get_client() as client,
    ):
        found = _fitted(DaskSearchCV(case.search("grid"), client=client), case)
        assert_equal(plain, found.search_, case)
        attached = SearchRun.attach(found.run_url_)
        assert_equal(plain, attached.result(), case)

        X, y = case.data()
        run = DaskSearchCV(case.search("grid"), client=client).submit(
            X, y, **case.fit_params()
        )
        assert_equal(plain, run.result(), case)
        small = run.result(estimator=False)
        assert small.best_score_ == plain.best_score_
    print(case.name, "is the same in every way")  # noqa: T201 (the test reads it)


def _fitted(search: Any, case: Case) -> Any:
    X, y = case.data()
    return search.fit(X, y, **case.fit_params())
