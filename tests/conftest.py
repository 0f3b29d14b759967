"""Fixtures shared by all tests: a cluster in processes, and its client."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from distributed import Client, LocalCluster

from dask_hpsearch import local_cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalCluster]:
    """One worker with two slots."""
    with local_cluster(1, 2, dashboard_address=":0") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def client(cluster: LocalCluster) -> Iterator[Client]:
    """A client of `cluster`, not the default one."""
    with Client(cluster, set_as_default=False) as client:
        yield client
