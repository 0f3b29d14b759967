"""Fixtures shared by all tests: a cluster in processes, and its client."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING

import pytest
from distributed import Client, LocalCluster
from hypothesis import settings
from threadpoolctl import threadpool_limits

from dask_hpsearch import local_cluster
from tests.gcs.emulator import emulator
from tests.gcs.held import new_bucket
from tests.gcs.proxy import Proxy, proxy
from tests.runs.deployment import Deployment, deployed

if TYPE_CHECKING:
    from collections.abc import Iterator


def pytest_configure(config: pytest.Config) -> None:
    """Keep what tests write out of the user's home, and let them be interrupted."""
    settings.register_profile("shared-machine", deadline=None)
    settings.load_profile("shared-machine")
    home = tempfile.mkdtemp(prefix="dask-hpsearch-tests-")
    os.environ["DASK_HPSEARCH_HOME"] = home
    config.add_cleanup(lambda: shutil.rmtree(home, ignore_errors=True))
    # A shell's background jobs ignore Ctrl-C, and so would all that tests start and interrupt.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Give this process the one BLAS thread of a slot: sums have the same order.

    More of them than free cores spin, and a fit of a tenth of a second takes seconds.
    """
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="session")
def one_thread_process() -> Iterator[ProcessPoolExecutor]:
    """A process like a slot's: no other threads draw random numbers there meanwhile."""
    with ProcessPoolExecutor(1, get_context("spawn"), threadpool_limits, (1,)) as pool:
        yield pool


@pytest.fixture(scope="session")
def gcs() -> Iterator[Proxy]:
    """What ``gs://`` means from now on, here and in processes that are started."""
    with emulator() as port, proxy(port) as before:
        os.environ["STORAGE_EMULATOR_HOST"] = before.url
        yield before
        del os.environ["STORAGE_EMULATOR_HOST"]


@pytest.fixture(scope="session")
def gcs_bucket(gcs: Proxy) -> str:
    """A bucket that tests share; each takes a folder of its own."""
    return new_bucket(gcs.port)


@pytest.fixture
def faulty(gcs: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy of one test alone, which ``gs://`` means in this process meanwhile."""
    with proxy(gcs.port) as own:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", own.url)
        yield own


@pytest.fixture(scope="session")
def cluster(gcs: Proxy) -> Iterator[LocalCluster]:
    """One worker with two slots, which knows what ``gs://`` means."""
    with local_cluster(1, 2, dashboard_address=":0") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def client(cluster: LocalCluster) -> Iterator[Client]:
    """A client of `cluster`, not the default one."""
    with Client(cluster, set_as_default=False) as client:
        yield client


@pytest.fixture(scope="module")
def where(gcs: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A cluster whose slots and worker may be killed: they come again."""
    with deployed(tmp_path_factory.mktemp("dask")) as deployment:
        yield deployment
