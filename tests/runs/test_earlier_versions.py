"""Runs that an earlier version has left: looked at, and continued.

`earlier/` has an archive for each version: a store with runs, and the folder with their keys.
All of them search the regularization of the same pipeline on iris.
"""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy.stats import loguniform
from sklearn.datasets import load_iris
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dask_hpsearch import SearchRun
from dask_hpsearch.journal.folder import versions

if TYPE_CHECKING:
    from distributed import Client

ARCHIVES = sorted((Path(__file__).parent / "earlier").glob("*.tar.gz"))
FINISHED = ("grid", "halving")
INTERRUPTED = ("killed randomized", "killed bayes")
ALPHA = "sgdclassifier__alpha"


@pytest.fixture(params=ARCHIVES, ids=lambda path: path.name.removesuffix(".tar.gz"))
def runs(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, SearchRun]:
    """Runs of one version, by the names of their tasks."""
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.setenv("DASK_HPSEARCH_HOME", str(tmp_path / "home"))
    found = {one.task_name: one for one in SearchRun.list(tmp_path / "store")}
    return {str(name): run for name, run in found.items()}


def search_of(name: str) -> Any:
    """Make the search of a run anew."""
    estimator = make_pipeline(
        StandardScaler(), SGDClassifier(random_state=0, max_iter=50, tol=None)
    )
    if name == "grid":
        alphas = [10 ** (-6 + 7 * i / 11) for i in range(12)]
        return GridSearchCV(estimator, {ALPHA: alphas}, cv=3)
    if name == "halving":
        alphas = [10 ** (-6 + 7 * i / 8) for i in range(9)]
        return HalvingGridSearchCV(estimator, {ALPHA: alphas}, cv=3, random_state=0)
    estimator.set_params(sgdclassifier__max_iter=6000)
    return RandomizedSearchCV(
        estimator,
        {ALPHA: loguniform(1e-6, 1e1)},
        n_iter=30,
        cv=3,
        random_state=0,
        scoring=["accuracy", "balanced_accuracy"],
        refit="accuracy",
    )


def test_all_of_them_are_found(runs: dict[str, SearchRun]) -> None:
    """Their progress is read without unpickling anything."""
    states = {name: run.state for name, run in runs.items()}

    assert states == dict.fromkeys(FINISHED, "finished") | dict.fromkeys(
        INTERRUPTED, "interrupted"
    )
    assert [runs[name].progress().fits_done for name in INTERRUPTED] == [8, 8]


@pytest.mark.parametrize("name", FINISHED)
def test_a_finished_run_has_its_result(name: str, runs: dict[str, SearchRun]) -> None:
    """It is the search that a plain fit gives."""
    run = runs[name]
    if not _same_versions(run):
        assert len(run.trials()) > 0
        return

    found = run.result()

    X, y = load_iris(return_X_y=True)
    plain = search_of(name).fit(X, y)
    assert found.best_score_ == pytest.approx(plain.best_score_)
    assert len(run.trials()) == len(plain.cv_results_["params"])


@pytest.mark.timeout(400)  # some seconds of fits; a busy machine takes minutes
@pytest.mark.parametrize("name", INTERRUPTED)
def test_an_interrupted_run_goes_on(
    name: str, runs: dict[str, SearchRun], client: Client
) -> None:
    """What its journal has is not run again, and the result is that of a plain fit."""
    run = runs[name]
    if not _same_versions(run):
        assert run.progress().fits_done == 8
        return

    run.resume(client=client)
    found = run.result(timeout=300)

    if name == "killed bayes":
        assert len(found.cv_results_["params"]) == 16
        return
    assert_same_but_for_another_processor(found, search_of(name))


def assert_same_but_for_another_processor(found: Any, search: Any) -> None:
    """The run was begun elsewhere, where a draw or a score may have another last digit."""
    plain = search.fit(*load_iris(return_X_y=True))
    assert type(found) is type(plain)
    assert set(found.cv_results_) == set(plain.cv_results_)
    for key, expected in plain.cv_results_.items():
        if key == f"param_{ALPHA}":
            np.testing.assert_allclose(found.cv_results_[key], expected, rtol=1e-12)
        elif "_test_" in key and not key.startswith("rank"):
            np.testing.assert_allclose(found.cv_results_[key], expected, atol=0.03)


def _same_versions(run: SearchRun) -> bool:
    """Whether the run's pickles may be loaded here."""
    return run._folder.manifest.versions == versions()
