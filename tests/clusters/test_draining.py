"""Workers as pods have them, told to end in the middle of a search."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from distributed import Client
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import DaskSearchCV
from dask_hpsearch.clusters import tls
from tests.clusters.test_tls import scheduler
from tests.estimators import Deed, flowers, seen, times_begun
from tests.oracle.structure import difference
from tests.processes import ROOT, WAIT_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

X, y = flowers()
NOTICE_S = 5


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the certificates of a cluster."""
    folder = tmp_path_factory.mktemp("cluster") / "certificates"
    tls.issue("own").save(folder)
    return folder


@pytest.fixture(scope="module")
def client(certificates: Path) -> Iterator[Client]:
    """Connect to a scheduler with TLS, still without workers."""
    with (
        scheduler(certificates) as address,
        Client(address, security=tls.client_security(certificates)) as client,
    ):
        yield client


@contextlib.contextmanager
def worker(
    client: Client, certificates: Path, folder: Path, name: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the program that pods run, until the block ends."""
    environment = os.environ | tls.pod_environment("worker", str(certificates))
    environment |= {
        "DASK_SCHEDULER_ADDRESS": client.scheduler.address,  # type: ignore[union-attr]
        "DASK_WORKER_NAME": name,
        "PYTHONPATH": str(ROOT),
    }
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "dask_hpsearch.clusters.kubernetes.worker_pod"),
            *("--slots", "1", "--memory", "2000000000", "--notice", str(NOTICE_S)),
            *("--http-port", "0", "--scratch", str(folder / name)),
        ],
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def search(log: Path, **options: Any) -> GridSearchCV:
    """Make a search whose fits note what they do."""
    deed = Deed(log=str(log), client=os.getpid(), **options)
    return GridSearchCV(deed, {"number": range(10)}, cv=2, error_score="raise")


def test_what_ends_within_the_notice_is_kept(
    client: Client, certificates: Path, tmp_path: Path
) -> None:
    """A running fit ends, what waits goes elsewhere, and none runs twice."""
    log = tmp_path / "log"
    own = search(log, seconds=0.3)
    with (
        worker(client, certificates, tmp_path, "a") as leaving,
        worker(client, certificates, tmp_path, "b"),
    ):
        client.wait_for_workers(2, timeout=WAIT_S)

        def leave() -> None:
            wait_until(lambda: len(seen(log, "end")) >= 4)
            leaving.send_signal(signal.SIGTERM)

        thread = threading.Thread(target=leave)
        thread.start()
        found = DaskSearchCV(own, client=client).fit(X, y)
        thread.join()
        assert leaving.wait(WAIT_S) == 0

    assert difference(own.fit(X, y), found.search_) is None
    assert set(times_begun(log).values()) == {1}


def test_what_takes_longer_is_given_back(
    client: Client, certificates: Path, tmp_path: Path
) -> None:
    """A fit that outlasts the notice runs again elsewhere, and has not failed."""
    log, gate = tmp_path / "log", tmp_path / "gate"
    own = search(log, gate=str(gate))
    with worker(client, certificates, tmp_path, "c") as leaving:
        client.wait_for_workers(1, timeout=WAIT_S)

        def leave() -> None:
            wait_until(lambda: seen(log, "wait"))
            leaving.send_signal(signal.SIGTERM)
            assert leaving.wait(WAIT_S) == 0
            gate.touch()
            with worker(client, certificates, tmp_path, "d"):
                done.wait(WAIT_S)

        done = threading.Event()
        thread = threading.Thread(target=leave)
        thread.start()
        try:
            found = DaskSearchCV(own, client=client).fit(X, y)
        finally:
            done.set()
            thread.join()

    assert difference(own.fit(X, y), found.search_) is None
    assert sorted(times_begun(log).values()) == [1] * 19 + [2]


def test_a_worker_that_waits_for_its_scheduler_ends_when_told(
    certificates: Path, tmp_path: Path, client: Client
) -> None:
    """It need not have joined to leave."""
    environment = os.environ | tls.pod_environment("worker", str(certificates))
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "dask_hpsearch.clusters.kubernetes.worker_pod"),
            *("--slots", "1", "--memory", "2000000000", "--notice", str(NOTICE_S)),
            *("--http-port", "0", "--scratch", str(tmp_path)),
        ],
        env=environment | {"DASK_SCHEDULER_ADDRESS": "tls://127.0.0.1:1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    with process.stderr:
        assert any("nothing responds" in line for line in process.stderr)
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0
