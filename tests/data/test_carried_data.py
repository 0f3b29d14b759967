from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import pytest
from distributed import Client, LocalCluster
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import DaskSearchCV, local_cluster
from dask_hpsearch.data import DataStore
from dask_hpsearch.data.node_reader import DataReader
from dask_hpsearch.engine.engine import Engine
from dask_hpsearch.joblib_backend.backend import EvaluationBackend
from dask_hpsearch.joblib_backend.session import Session
from dask_hpsearch.messages import DataRef
from dask_hpsearch.slots.node_data import NodeData
from dask_hpsearch.slots.plugin import slot_pids
from tests.estimators import Deed, flowers, seen
from tests.oracle.structure import difference
from tests.processes import ROOT, WAIT_S, bundles_kept, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

X, y = flowers()
SPLITS = 2
NAMES = ("one", "two", "late")


@pytest.fixture(scope="module")
def hidden() -> Iterator[Path]:
    """A folder of the client's that the workers find empty, and where they cannot look."""
    folder = Path(tempfile.mkdtemp(prefix="hidden-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def log() -> Iterator[str]:
    """A file that the workers see: outside of what they have for themselves."""
    folder = Path(tempfile.mkdtemp(prefix="seen-"))
    yield str(folder / "fits.log")
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def start(hidden: Path) -> Iterator[Callable[..., None]]:
    """Start workers with folders of their own where the client has its data."""
    if shutil.which("unshare") is None or os.geteuid() != 0:
        pytest.skip("a worker with file systems of its own needs root and unshare")
    private = [str(hidden), os.environ["DASK_HPSEARCH_HOME"], "/dev/shm"]  # noqa: S108
    Path(private[1]).mkdir(exist_ok=True)
    mounts = " && ".join(f"mount -t tmpfs tmpfs {folder}" for folder in private)
    isolated = ["unshare", "--mount", "sh", "-c", f'{mounts} && exec "$@"', "sh"]
    tried = subprocess.run([*isolated, "true"], check=False, capture_output=True)
    if tried.returncode:
        pytest.skip(f"file systems cannot be mounted here: {tried.stderr.decode()}")
    processes: list[subprocess.Popen[bytes]] = []

    def start(cluster: LocalCluster, name: str) -> None:
        settings = {
            "scheduler": cluster.scheduler_address,
            "log_level": 30,
            "options": {"name": name, "nthreads": 2, "memory_limit": None},
        }
        program = "dask_hpsearch.clusters.local_worker"
        command = [*isolated, sys.executable, "-m", program, json.dumps(settings)]
        path = {"PYTHONPATH": str(ROOT)}
        processes.append(subprocess.Popen(command, env=os.environ | path))

    yield start
    for process in processes:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def client(start: Callable[..., None]) -> Iterator[Client]:
    """Two workers of two slots each that share no folder with the client."""
    with (
        local_cluster(0, 2, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        start(cluster, "one")
        start(cluster, "two")
        client.wait_for_workers(2)
        yield client


def asked_for(client: Client) -> list[tuple[str, str]]:
    """Return the (bundle, worker) pairs that were asked for, on all topics so far."""
    topics = client.cluster.scheduler.get_events()
    return [
        (message["need"], message["worker"])
        for topic, events in topics.items()
        if str(topic).startswith("dask-hpsearch-")
        for _, message in events
        if "need" in message
    ]


def search(numbers: int, **options: Any) -> GridSearchCV:
    """Make a search over numbers."""
    return GridSearchCV(
        Deed(client=os.getpid(), **options), {"number": range(numbers)}, cv=SPLITS
    )


def test_a_search_needs_no_shared_folder(client: Client, hidden: Path) -> None:
    """With the run's own folder or a store that only the client sees: as a plain fit."""
    own = search(12)
    expected = own.fit(X, y)

    for store in (None, hidden / "store"):
        found = DaskSearchCV(own, client=client, store=store).fit(X, y)
        assert difference(expected, found.search_) is None


def test_each_bundle_is_sent_once_to_each_worker_late_ones_too(
    client: Client, start: Callable[..., None], hidden: Path, log: str
) -> None:
    """All slots of a worker share one copy; no copy rides inside a task."""
    large = np.tile(X, (12_000, 1)), np.tile(y, 12_000)  # 33 MiB: several messages
    gate = Path(log).parent / "gate"
    before = len(asked_for(client))

    def join_late() -> None:
        wait_until(lambda: len(pids(log)) == 4)
        start(client.cluster, "late")
        wait_until(lambda: len(pids(log)) == 6)
        gate.touch()

    with DataStore(hidden) as data_store, Engine(client, data_store) as engine:
        thread = threading.Thread(target=join_late, daemon=True)
        thread.start()
        own = search(12, log=log, gate=str(gate)).set_params(
            n_jobs=-1, pre_dispatch="all"
        )
        with joblib.parallel_config(backend=EvaluationBackend(Session(engine))):
            found = own.fit(*large)
        thread.join(WAIT_S)
        bundles = {
            digest: data_store.find(digest).nbytes for digest in data_store.digests()
        }
        sent, per_task = (
            engine._sender.bytes_sent,
            engine.task_bytes / engine.tasks_sent,
        )

    assert sum(bundles.values()) > 32 * 2**20
    asked = asked_for(client)[before:]
    assert len(asked) == len(set(asked))
    workers = {worker for _, worker in asked}
    assert len(workers) == len(NAMES)
    x_and_y = sorted(bundles, key=lambda digest: bundles[digest])[-2:]
    assert {(digest, worker) for digest in x_and_y for worker in workers} <= set(asked)
    assert sent == sum(bundles[digest] for digest, _ in asked)
    assert per_task < 2048
    expected = search(12).fit(*large)
    assert difference(expected.cv_results_, found.cv_results_) is None


def test_a_task_of_a_large_search_is_small(client: Client, hidden: Path) -> None:
    """References and parameters: under 2 kB, however many candidates there are."""
    with DataStore(hidden) as data_store, Engine(client, data_store) as engine:
        own = search(300).set_params(n_jobs=-1, pre_dispatch="all")
        with joblib.parallel_config(backend=EvaluationBackend(Session(engine))):
            own.fit(X, y)

    assert engine.tasks_sent >= 300 * SPLITS  # a busy machine gives some back unrun
    assert engine.task_bytes / engine.tasks_sent < 2048


def test_searches_on_the_same_data_do_not_take_it_from_each_other(
    client: Client, log: str
) -> None:
    """The end of one removes its data from the workers, but not what another uses."""
    long, short = search(60, seconds=0.02), search(4, log=log)
    found: list[DaskSearchCV] = []
    thread = threading.Thread(
        target=lambda: found.append(DaskSearchCV(long, client=client).fit(X, y))
    )
    thread.start()
    for _ in range(3):
        one = DaskSearchCV(short, client=client).fit(X, y)
        assert one.best_params_ == search(4).fit(X, y).best_params_
    thread.join(WAIT_S)

    assert difference(search(60, seconds=0.02).fit(X, y), found[0].search_) is None
    assert len(seen(log, "end")) == 3 * 4 * SPLITS


def test_nothing_stays_on_the_workers(client: Client) -> None:
    """When the searches have ended, so has their data."""
    DaskSearchCV(search(3), client=client).fit(X, y)

    assert client.run(slot_pids)
    wait_until(lambda: not any(client.run(bundles_kept).values()))


def pids(log: str) -> set[int]:
    """Return the processes that have come to the gate."""
    return {entry["pid"] for entry in seen(log, "wait")}


def test_a_bundle_stays_until_its_last_user_forgets_it(tmp_path: Path) -> None:
    """Two searches may send it and use it; the end of one takes nothing away."""
    data = NodeData(tmp_path, DataReader())
    ref = DataRef("0123abcd", nbytes=6, place=str(tmp_path / "elsewhere"))
    content = b"abcdef"

    def send(user: str) -> Callable[[DataRef], None]:
        def answer() -> None:
            for offset in (0, 3):
                chunk = content[offset : offset + 3]
                # Another search's sending begins in the middle of this one.
                data.receive(ref.digest, 0, b"xyz", ref.nbytes, "other")
                data.receive(ref.digest, offset, chunk, ref.nbytes, user)

        return lambda _: threading.Thread(target=answer).start()

    paths = [
        data.path(ref, send(user), user=user, given_up=lambda: False)
        for user in ("one", "two")
    ]
    data.forget("one")

    assert [Path(path).read_bytes() for path in paths] == [content, content]
    data.forget("two")
    assert not Path(paths[0]).exists()
