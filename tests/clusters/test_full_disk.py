"""Fits that fill the disk of their worker's pod: known by name before Kubernetes evicts it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from distributed import Client
from distributed.core import Status
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import DaskSearchCV
from dask_hpsearch.clusters import tls
from dask_hpsearch.clusters.kubernetes.diagnosis import Problem
from dask_hpsearch.engine.cluster_features import ClusterFeatures
from dask_hpsearch.engine.tasks import crash_outcome
from dask_hpsearch.slots.disk_watch import DiskWatch, WriteCounts, empty, used_bytes
from tests.clusters.test_draining import NOTICE_S
from tests.clusters.test_tls import scheduler
from tests.processes import ROOT, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

MIB = 2**20
LIMIT = 64 * MIB
X, y = np.arange(40.0).reshape(20, 2), np.arange(20) % 2


class Writer(ClassifierMixin, BaseEstimator):
    """Writes to its disk, in the way that ``how`` names, and stays until it is ended."""

    def __init__(self, number: int = 0, how: str = "") -> None:
        self.number = number
        self.how = how

    def fit(self, X: Any, y: Any) -> Self:
        del X
        if self.how:
            self._write()
            time.sleep(600)
        self.classes_ = np.unique(y)
        return self

    def predict(self, X: Any) -> Any:
        return np.zeros(len(X))

    def _write(self) -> None:
        folder = Path(tempfile.mkdtemp())
        if self.how == "home":
            folder = Path.home()
        if self.how == "child":
            code = f"import sys; open(sys.argv[1], 'wb').write(bytes({2 * LIMIT}))"
            subprocess.run([sys.executable, "-c", code, folder / "a"], check=True)
        elif self.how == "reserved":
            with (folder / "a").open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, 2 * LIMIT)
        else:
            for number in range(2 * LIMIT // MIB):
                (folder / f"written-{number}").write_bytes(bytes(MIB))


@contextlib.contextmanager
def limited_worker(
    client: Client, certificates: Path, scratch: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the program that pods run, with a limit to its disk, anew whenever it ends."""
    environment = os.environ | tls.pod_environment("worker", str(certificates))
    environment |= {
        "DASK_SCHEDULER_ADDRESS": client.scheduler.address,  # type: ignore[union-attr]
        "PYTHONPATH": str(ROOT),
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
    }
    program = [
        *(sys.executable, "-m", "dask_hpsearch.clusters.kubernetes.worker_pod"),
        *("--slots", "1", "--memory", "2000000000", "--notice", str(NOTICE_S)),
        *("--http-port", "0", "--scratch", str(scratch), "--disk", str(LIMIT)),
    ]
    quoted = " ".join(program)
    process = subprocess.Popen(
        [
            "/bin/sh",
            "-c",
            f"trap 'kill $p; exit' TERM; while :; do {quoted} & p=$!; wait $p; done",
        ],
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Connect to a scheduler whose one worker may write little."""
    folder = tmp_path_factory.mktemp("cluster")
    certificates, scratch = folder / "certificates", folder / "scratch"
    tls.issue("own").save(certificates)
    scratch.mkdir()
    with (
        scheduler(certificates) as address,
        Client(address, security=tls.client_security(certificates)) as client,
        limited_worker(client, certificates, scratch),
    ):
        yield client
        wait_until(lambda: used_bytes(scratch) < LIMIT)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("how", ["files", "home", "child", "reserved"])
def test_the_fit_that_fills_the_disk_is_named(client: Client, how: str) -> None:
    """It fails at the second time; the others have their scores."""
    space = [{"number": [0, 1]}, {"number": [2], "how": [how]}, {"number": [3]}]
    search = GridSearchCV(
        Writer(), space, cv=[(np.arange(10), np.arange(10, 20))], error_score=-1.0
    )

    with pytest.warns(FitFailedWarning) as caught:
        found = DaskSearchCV(search, client=client).fit(X, y)

    scores = found.cv_results_["split0_test_score"]
    assert [score == -1.0 for score in scores] == [False, False, True, False]
    said = "".join(str(one.message) for one in caught)
    assert "FitDiskError" in said
    assert "'number': 2} on split 0" in said
    assert "it filled the disk of its worker" in said
    assert "workers.cache" in said
    assert "it was tried twice" in said


def test_what_a_slot_wrote_for_earlier_fits_does_not_count() -> None:
    """Short fits follow each other between two looks."""
    counts = WriteCounts()

    assert counts.update(1, ("t", 1), 100) == 100
    assert counts.update(1, ("t", 1), 300) == 300
    assert counts.update(1, ("t", 2), 350) == 50
    assert (
        counts.update(1, ("t", 2), 340) == 50
    )  # a child that ended took its count along
    assert counts.update(2, ("t", 3), 7) == 7
    counts.forget_all_but([2])
    assert counts.update(1, ("t", 2), 10) == 10


class Writes:
    """A slot whose fit has written to its folder for temporary files."""

    pid = 2**22 + 1  # no process has it
    task = ("topic", 1)
    cause = ""

    def __init__(self) -> None:
        self.ended: list[str] = []

    def end(self, reason: str) -> None:
        self.ended.append(reason)


@pytest.mark.parametrize(("left", "ended"), [(0, ["disk"] * 4), (2 * MIB, [])])
def test_a_fit_is_not_blamed_for_what_earlier_ones_left(
    left: int, ended: list[str], tmp_path: Path
) -> None:
    """It ends if there would be room without it; else the worker goes."""
    slot: Any = Writes()
    own = tmp_path / "slots" / str(slot.pid)
    own.mkdir(parents=True)
    (own / "written").write_bytes(bytes(MIB))
    (tmp_path / "left").write_bytes(bytes(left))
    gone: list[None] = []
    watch = DiskWatch(tmp_path, MIB, leave=lambda: gone.append(None))

    for _ in range(4):
        watch.look([slot], [], lambda _: None)

    assert slot.ended == ended
    assert bool(gone) == bool(left)


def test_what_is_kept_of_a_disk_is_named(tmp_path: Path) -> None:
    """A container begins with an empty disk, but for what its predecessor has to say."""
    (tmp_path / "kept").write_text("a")
    (tmp_path / "file").write_text("a")
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "folder")

    empty(tmp_path, but=["kept"])

    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_files_are_counted_once_and_as_the_disk_has_them(tmp_path: Path) -> None:
    """Links and holes take no room."""
    (tmp_path / "a").write_bytes(bytes(MIB))
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(100 * MIB)

    assert MIB <= used_bytes(tmp_path) < 2 * MIB
    assert used_bytes(tmp_path / "nowhere") == 0


def test_an_eviction_is_the_fits_that_wrote_most() -> None:
    """In Kubernetes' own words, with what the fit had written."""
    report = {"crashed": 3, "nbytes": 2**30, "evicted": "pod p was evicted: no room"}

    outcome = crash_outcome(report)

    assert outcome.number == 3
    assert outcome.status == "disk"
    assert "pod p was evicted: no room; the fit had written 1.00 GiB" in outcome.message


class Evicting(ClusterFeatures):
    """Says, as a cluster on Kubernetes does, that the worker's pod was evicted."""

    on_kubernetes = True
    status = Status.running  # Dask's client asks for it

    def __init__(self, told: Path) -> None:
        self._told = told
        self._asked = 0

    def problems(self) -> list[Problem]:
        """Tell it once the fit has written."""
        if not self._told.exists():
            return []
        self._asked += 1
        if self._asked > 2:
            self._told.unlink()  # the fit may end
        said = "was evicted: Usage of EmptyDir volume exceeds the limit"
        return [Problem("wait", said, socket.gethostname(), reason="Evicted")]


class Quarter(Writer):
    """Writes less than it may, and ends when a file is gone."""

    def _write(self) -> None:
        path = Path(self.how)
        with tempfile.NamedTemporaryFile() as file:
            file.write(bytes(LIMIT // 2))
            file.flush()
            path.write_text("")
            wait_until(lambda: not path.exists())
        self.how = ""

    def fit(self, X: Any, y: Any) -> Self:
        if self.how:
            self._write()
        return super().fit(X, y)


@pytest.mark.timeout(240)
def test_an_eviction_for_a_full_disk_counts_against_who_wrote(
    client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Kubernetes was quicker than the worker: the fit is known all the same."""
    told = tmp_path / "told"
    search = GridSearchCV(Quarter(how=str(told)), {"number": [7]}, cv=2, refit=False)
    search.set_params(cv=[(np.arange(10), np.arange(10, 20))])
    before = client.cluster
    client.cluster = Evicting(told)  # type: ignore[assignment]
    try:
        DaskSearchCV(search, client=client).fit(X, y)
    finally:
        client.cluster = before

    assert (
        "exceeds the limit; the fit had written 0.03 GiB there, more than any"
        in caplog.text
    )
    assert "the fit is tried once more" in caplog.text
