"""Warning filters travel with fits, to processes that may lack their categories."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import warnings
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import DaskSearchCV
from dask_hpsearch.sklearn_adapter import warning_filters
from tests.processes import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from distributed import Client

# What a process that finds it first cannot import.
FORBIDS = """
import sys


class Forbids:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Forbids())
"""
SEARCHES = """
import sys
import warnings
from pathlib import Path

import joblib
from sklearn.datasets import load_iris
from sklearn.ensemble import BaggingClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.naive_bayes import GaussianNB

import {module}
from dask_hpsearch import DaskSearchCV, local_cluster

if __name__ == "__main__":
    warnings.filterwarnings("error", category={module}.{category})
    X, y = load_iris(return_X_y=True)
    search = GridSearchCV(GaussianNB(), {{"var_smoothing": [1e-9, 1e-3]}}, cv=2)
    sys.path.insert(0, sys.argv[1])  # workers, slots and drivers get the client's path
    with local_cluster(1, 2, dashboard_address=":0") as cluster:
        with cluster.get_client() as client:
            print(DaskSearchCV(search, client=client).fit(X, y).best_score_)
            run = DaskSearchCV(search, client=client, store=sys.argv[2]).submit(X, y)
            print(run.result(timeout=120).best_score_)
            with joblib.parallel_config("dask_hpsearch", client=client):
                print(search.set_params(n_jobs=2).fit(X, y).best_score_)
                print(cross_val_score(GaussianNB(), X, y, cv=2, n_jobs=2).mean())
                bags = BaggingClassifier(GaussianNB(), 4, n_jobs=2, random_state=0)
                print(bags.fit(X, y).score(X, y))
"""


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("module", "category"),
    [("IPython.core.completer", "ProvisionalCompleterWarning"), ("mine", "Noted")],
)
def test_workers_need_not_have_what_put_a_filter(
    module: str, category: str, tmp_path: Path
) -> None:
    """Neither a notebook's IPython nor a module of the user's; on any way to them."""
    if module != "mine":
        pytest.importorskip(module)
    forbids = tmp_path / "forbids"
    forbids.mkdir()
    top = module.partition(".")[0]
    (forbids / "sitecustomize.py").write_text(FORBIDS.format(names={top}))
    (tmp_path / "mine.py").write_text("class Noted(UserWarning):\n    pass\n")
    script = tmp_path / "searches.py"
    script.write_text(SEARCHES.format(module=module, category=category))

    done = subprocess.run(
        [sys.executable, str(script), str(forbids), str(tmp_path / "store")],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 5


class Warns(ClassifierMixin, BaseEstimator):
    """Warns as it is told."""

    def __init__(self, category: type[Warning] = UserWarning) -> None:
        self.category = category

    def fit(self, X: Any, y: Any) -> Warns:
        warnings.warn("as told", self.category, stacklevel=1)
        self.classes_ = np.unique(y)
        return self

    def predict(self, X: Any) -> Any:
        return np.zeros(len(X))


@pytest.mark.parametrize("backend", ["trials", "joblib"])
def test_filters_hold_in_fits(backend: str, client: Client) -> None:
    """Also one for a class that only the caller has: it is sent along."""

    class Grave(UserWarning):
        pass

    X, y = np.zeros((12, 1)), np.arange(12) % 2
    search: Any = GridSearchCV(
        Warns(), {"category": [Grave]}, cv=2, n_jobs=2, error_score="raise"
    )

    if backend == "trials":
        search = DaskSearchCV(search, client=client)

    with (
        warnings.catch_warnings(),
        joblib.parallel_config("dask_hpsearch", client=client),
    ):
        warnings.filterwarnings("error", category=Grave)
        with pytest.raises(Grave, match="as told"):
            search.fit(X, y)


def test_what_cannot_be_loaded_is_left_out(tmp_path: Path) -> None:
    """One by one; the others stay in their order."""
    (tmp_path / "gone.py").write_text("class Lost(Warning):\n    pass\n")
    sys.path.insert(0, str(tmp_path))
    try:
        from gone import Lost  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(tmp_path))
    filters = [
        ("ignore", None, Lost, None, 0),
        ("error", None, UserWarning, None, 0),
        ("ignore", None, (Lost, UserWarning), None, 0),
        ("always", None, np.exceptions.ComplexWarning, None, 3),
    ]
    encoded = warning_filters.encode(filters)
    assert warning_filters.decode(encoded) == filters

    program = f"""
        from dask_hpsearch.sklearn_adapter import warning_filters

        print(warning_filters.decode({encoded!r}))
        print(warning_filters.decode({warning_filters.encode(filters[:1])!r}))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )

    some, none = done.stdout.splitlines()
    assert some == str(filters[1:2] + filters[3:])
    assert none == str([("default", None, Warning, None, 0)])


def test_no_filters_are_no_filters() -> None:
    """What is empty stays so."""
    assert warning_filters.decode(warning_filters.encode([])) == []
