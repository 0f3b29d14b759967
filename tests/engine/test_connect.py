"""What a search takes as its client, and what it makes of ``n_jobs`` without one."""

from __future__ import annotations

import copy
import gc
import pickle
from typing import TYPE_CHECKING, Any

import dask
import joblib
import numpy as np
import pytest
from distributed import Client, LocalCluster
from distributed.security import Security
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score

from dask_hpsearch import DaskSearchCV
from dask_hpsearch.exceptions import ClientClosedError
from dask_hpsearch.execution.client import slots_of_its_own
from tests.estimators import flowers, most_at_once, read_log
from tests.processes import WAIT_S, script

if TYPE_CHECKING:
    from pathlib import Path

X, y = flowers()
WITHOUT_A_CLIENT = """
import sys
from dask_hpsearch import DaskSearchCV
from sklearn.model_selection import GridSearchCV
from tests.estimators import Deed, flowers

search = GridSearchCV(Deed(log=sys.argv[0] + ".log", deed="none"), {{"number": range(8)}},
                      cv=2, refit=False, n_jobs={n_jobs})
try:
    print(len(DaskSearchCV(search).fit(*flowers()).cv_results_["params"]))
except ValueError as error:
    print(error)
"""


def grid(**options: Any) -> GridSearchCV:
    """Make a small search."""
    logistic = LogisticRegression(max_iter=500)
    return GridSearchCV(logistic, {"C": [0.1, 1.0]}, cv=2, **options)


def fits(search: DaskSearchCV) -> bool:
    """Whether a search is fitted, and its client is as it was."""
    before = search.client
    return set(search.fit(X, y).best_params_) == {"C"} and search.client is before


def given(kind: str, cluster: LocalCluster) -> Any:
    """Return a cluster as a user may name it."""
    return cluster if kind == "cluster" else cluster.scheduler_address


@pytest.mark.parametrize("kind", ["address", "cluster"])
@pytest.mark.parametrize("backend", ["trials", "joblib", "dask-ml"])
def test_an_address_or_a_cluster_is_a_client_too(
    kind: str, backend: Any, cluster: LocalCluster
) -> None:
    """A client is made for the fit, is nobody's default, and is closed afterwards."""
    if backend == "dask-ml":
        pytest.importorskip("dask_ml")
    gc.collect()
    before = {one for one in gc.get_objects() if isinstance(one, Client)}

    assert fits(DaskSearchCV(grid(), client=given(kind, cluster), backend=backend))

    made = [one for one in gc.get_objects() if isinstance(one, Client)]
    assert all(one.status == "closed" for one in made if one not in before)


@pytest.mark.parametrize("kind", ["address", "cluster"])
def test_a_run_is_submitted_to_an_address_or_a_cluster(
    kind: str, cluster: LocalCluster
) -> None:
    """Its driver has a client of its own."""
    run = DaskSearchCV(grid(), client=given(kind, cluster)).submit(X, y)

    assert set(run.result(WAIT_S).best_params_) == {"C"}


@pytest.mark.parametrize("kind", ["address", "cluster"])
def test_the_joblib_backend_takes_an_address_or_a_cluster(
    kind: str, cluster: LocalCluster
) -> None:
    """Its client goes with the backend."""
    with joblib.parallel_config("dask_hpsearch", client=given(kind, cluster)):
        scores = cross_val_score(LogisticRegression(max_iter=500), X, y, cv=2)

    assert len(scores) == 2


def test_an_encrypted_cluster_is_joined_by_its_own_certificates() -> None:
    """They are the cluster's: nothing else needs to be said."""
    security = Security.temporary()
    with LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        dashboard_address=":0",
        protocol="tls://",
        security=security,
    ) as encrypted:
        assert encrypted.scheduler_address.startswith("tls://")
        assert fits(DaskSearchCV(grid(), client=encrypted))


@pytest.mark.parametrize("wrong", [3, "", object(), Client, {"address": "tcp://a:1"}])
def test_anything_else_is_a_type_error_that_names_it(wrong: Any) -> None:
    """So it is for fit, for submit and for the joblib backend."""
    search = DaskSearchCV(grid(), client=wrong)

    for call in (search.fit, search.submit):
        with pytest.raises(TypeError, match="client must be a") as e:
            call(X, y)
        assert repr(wrong) in str(e.value)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "carrier-pigeon://coop"])
def test_where_no_scheduler_answers_is_said(address: str) -> None:
    """With the address."""
    shortly = dask.config.set({"distributed.comm.timeouts.connect": "1s"})
    with shortly, pytest.raises(ClientClosedError, match=address):
        DaskSearchCV(grid(), client=address).fit(X, y)


def test_a_closed_cluster_is_named() -> None:
    """It cannot come back."""
    with LocalCluster(n_workers=0, dashboard_address=":0") as closed:
        pass

    with pytest.raises(ClientClosedError, match="is closed: make a new one"):
        DaskSearchCV(grid(), client=closed).fit(X, y)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_keeps_the_client_and_what_was_fitted(
    copied: Any, client: Client
) -> None:
    """A client is a connection: copies use the same one."""
    found = DaskSearchCV(grid(), client=client, max_time=99).fit(X, y)

    again = copied(found)

    assert type(again) is DaskSearchCV
    assert again.client is client
    assert again.max_time == 99
    assert (again.search is found.search) == (copied is copy.copy)
    assert (again.search_ is found.search_) == (copied is copy.copy)
    np.testing.assert_array_equal(again.predict(X), found.predict(X))
    assert fits(again)
    assert pickle.loads(pickle.dumps(again)).client is None


def test_dir_has_what_was_fitted(client: Client) -> None:
    """A prompt completes what can be read, once there is something."""
    search = DaskSearchCV(grid(), client=client)
    before = dir(search)

    found = search.fit(X, y)

    assert not [name for name in before if name.endswith("_") and name[0] != "_"]
    new = set(dir(found)) - set(before)
    assert {"best_params_", "cv_results_", "classes_", "search_"} <= new
    assert all(hasattr(found, name) for name in new)
    assert "fit" in dir(found)
    without_refit = DaskSearchCV(grid(refit=False), client=client).fit(X, y)
    assert "classes_" not in dir(without_refit)


@pytest.mark.parametrize(("n_jobs", "slots"), [(None, None), ("two", None), (1, 1)])
def test_slots_of_its_own_are_as_many_as_n_jobs(n_jobs: Any, slots: int | None) -> None:
    """What says nothing is left to the number of cores."""
    assert slots_of_its_own(grid(n_jobs=n_jobs)) == slots


def test_negative_n_jobs_count_from_the_number_of_cores() -> None:
    """As joblib counts: -1 is all of them."""
    cores = slots_of_its_own(grid(n_jobs=-1))
    assert cores is not None
    assert slots_of_its_own(grid(n_jobs=-2)) == max(1, cores - 1)
    assert slots_of_its_own(grid(n_jobs=cores + 7)) == cores


def test_without_a_client_n_jobs_bounds_the_slots(tmp_path: Path) -> None:
    """One job: one fit at a time."""
    text = WITHOUT_A_CLIENT.format(n_jobs=1)
    with script(text, tmp_path) as process:
        output, errors = process.communicate(timeout=WAIT_S)

    assert (output, errors) == ("8\n", "")
    log = read_log(tmp_path / "script.py.log")
    assert len(log) == 2 * 8 * 2
    assert most_at_once(log) == 1


@pytest.mark.parametrize("backend", ["trials", "joblib"])
def test_no_jobs_is_the_error_of_scikit_learn(backend: Any, client: Client) -> None:
    """With a client too, and by fit and submit."""
    with pytest.raises(ValueError, match="n_jobs == 0") as plain:
        grid(n_jobs=0).fit(X, y)
    search = DaskSearchCV(grid(n_jobs=0), client=client, backend=backend)

    for call in (search.fit, search.submit) if backend == "trials" else (search.fit,):
        with pytest.raises(ValueError, match="n_jobs == 0") as ours:
            call(X, y)
        assert str(ours.value) == str(plain.value)


def test_the_cluster_of_an_address_ends_if_it_is_not_kept() -> None:
    """``keep_cluster=False`` means the cluster that was named."""
    with LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address=":0"
    ) as named:
        DaskSearchCV(grid(), client=named, keep_cluster=False).fit(X, y)

        assert named.status.name in {"closing", "closed"}
