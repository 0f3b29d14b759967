from __future__ import annotations

import asyncio
import multiprocessing
import os
from typing import TYPE_CHECKING, Any

import dask
import distributed
import joblib
import pytest
from distributed import Client, LocalCluster
from sklearn.base import BaseEstimator
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import DaskSearchCV
from dask_hpsearch.exceptions import OwnClusterError
from dask_hpsearch.slots.own_cluster import own_schedulers, refuse_clients_of
from tests.estimators import flowers

if TYPE_CHECKING:
    from collections.abc import Callable

X, y = flowers()


def _by_address(address: str) -> Any:
    with Client(address, set_as_default=False) as client:
        return client.submit(sum, [1, 2]).result()


def _by_another_name(address: str) -> Any:
    return _by_address(address.replace("127.0.0.1", "localhost"))


def _by_get_client(address: str) -> Any:
    with distributed.get_client(address) as client:
        return client.submit(sum, [1, 2]).result()


def _by_configuration(address: str) -> Any:
    with (
        dask.config.set({"scheduler-address": address}),
        Client(set_as_default=False) as client,
    ):
        return client.submit(sum, [1, 2]).result()


def _asynchronously(address: str) -> Any:
    async def connect() -> Any:
        async with Client(address, asynchronous=True) as client:
            return await client.submit(sum, [1, 2])

    return asyncio.run(connect())


def _in_a_process(address: str) -> Any:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_by_address, [address])


def _twice(address: str) -> Any:
    try:
        return _by_address(address)
    except OwnClusterError:
        return _by_address(address)


WAYS = {
    one.__name__.removeprefix("_"): one
    for one in (
        _by_address,
        _by_another_name,
        _by_get_client,
        _by_configuration,
        _asynchronously,
        _in_a_process,
        _twice,
    )
}


def call(client: Client, function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a slot."""
    with joblib.parallel_config("dask_hpsearch", client=client):
        return joblib.Parallel(n_jobs=2)([joblib.delayed(function)(*args)] * 2)[0]


@pytest.mark.parametrize("way", WAYS)
def test_a_fit_is_no_client_of_the_cluster_that_runs_it(
    way: str, cluster: LocalCluster, client: Client
) -> None:
    """It would wait for itself; the error says so, however the fit connects."""
    with pytest.raises(OwnClusterError, match="cannot be a client of the Dask cluster"):
        call(client, WAYS[way], cluster.scheduler_address)


@pytest.mark.parametrize("way", WAYS)
def test_a_fit_may_be_a_client_of_another_cluster(way: str, client: Client) -> None:
    """That has threads of its own."""
    with LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        protocol="tcp://",
        dashboard_address=":0",
    ) as other:
        assert call(client, WAYS[way], other.scheduler_address) == 3


@pytest.mark.parametrize("name", ["get_client", "worker_client"])
def test_a_fit_has_no_worker(name: str, client: Client) -> None:
    """What Dask offers to tasks that run in a worker says that there is none."""

    def use() -> None:
        with getattr(distributed, name)():
            pass

    with pytest.raises(ValueError, match=r"No (global client|worker) found"):
        call(client, use)


class Connects(BaseEstimator):
    def __init__(self, address: str = "") -> None:
        self.address = address

    def fit(self, X: Any, y: Any) -> Connects:
        if self.address:
            _by_address(self.address)
        return self

    def score(self, X: Any, y: Any) -> float:
        return 1.0


def test_fits_that_connect_fail_and_others_do_not(
    cluster: LocalCluster, client: Client
) -> None:
    """The search goes on, and names the reason."""
    search = GridSearchCV(
        Connects(), {"address": ["", cluster.scheduler_address]}, cv=2, error_score=-1.0
    )

    with pytest.warns(match="OwnClusterError"):
        found = DaskSearchCV(search, client=client).fit(X, y)

    assert found.cv_results_["mean_test_score"].tolist() == [1.0, -1.0]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, ["dask_hpsearch.slots.client_preload"]),
        ("mine", ["mine", "dask_hpsearch.slots.client_preload"]),
        ("['one', 'two']", ["one", "two", "dask_hpsearch.slots.client_preload"]),
    ],
)
def test_preloads_of_the_users_own_stay(
    before: str | None, after: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So do the schedulers of searches around this one."""
    name = "DASK_DISTRIBUTED__CLIENT__PRELOAD"
    monkeypatch.setenv("DASK_HPSEARCH_OWN_SCHEDULERS", "Scheduler-outer")
    monkeypatch.delenv(name, raising=False)
    if before is not None:
        monkeypatch.setenv(name, before)

    refuse_clients_of("Scheduler-inner")
    refuse_clients_of("Scheduler-inner")

    collected = dask.config.collect(paths=[], env=os.environ)
    assert collected["distributed"]["client"]["preload"] == after
    assert own_schedulers() == {"Scheduler-outer", "Scheduler-inner"}
