from __future__ import annotations

import io
import os
import pickle
import secrets
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import pandas as pd
import pytest
from distributed import Client
from sklearn.model_selection import GridSearchCV
from sklearn.tree import DecisionTreeClassifier

import dask_hpsearch
from dask_hpsearch import DaskSearchCV, SearchRun, local_cluster
from dask_hpsearch.data import DataStore
from dask_hpsearch.data.inputs import refer
from dask_hpsearch.engine.engine import Engine
from dask_hpsearch.exceptions import (
    BucketNotFoundError,
    CorruptObjectError,
    DataChangedError,
    DataFormatError,
    ObjectNotFoundError,
    RunFailedError,
    StorePermissionError,
    UntrustedObjectError,
)
from dask_hpsearch.joblib_backend.backend import EvaluationBackend
from dask_hpsearch.joblib_backend.session import Session
from dask_hpsearch.stores import open_store
from tests.estimators import Deed, flowers, seen
from tests.gcs.faults import Fault
from tests.gcs.held import names_in, new_bucket, put, remove
from tests.gcs.proxy import Proxy, proxy
from tests.nodes import Nodes
from tests.oracle.structure import difference
from tests.processes import script, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

X, y = flowers()
SPLITS = 2


def npy(array: Any) -> bytes:
    """Return an array as a file of numpy's."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def search(numbers: int, **options: Any) -> GridSearchCV:
    """Make a search over numbers."""
    return GridSearchCV(
        Deed(client=os.getpid(), **options), {"number": range(numbers)}, cv=SPLITS
    )


@pytest.fixture(scope="module")
def watched(gcs: Proxy) -> Iterator[Proxy]:
    """A proxy of this module's, which all ``gs://`` URLs mean; it counts."""
    before = os.environ["STORAGE_EMULATOR_HOST"]
    with proxy(gcs.port) as own:
        os.environ["STORAGE_EMULATOR_HOST"] = own.url
        yield own
        own.faults.set()
    os.environ["STORAGE_EMULATOR_HOST"] = before


@pytest.fixture(scope="module")
def bucket(watched: Proxy) -> str:
    """A bucket of this module's."""
    return new_bucket(watched.port)


@pytest.fixture(scope="module")
def nodes(watched: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Workers that are like nodes of their own: each with its own folder."""
    with (
        local_cluster(0, 2, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        own = Nodes(cluster, client, tmp_path_factory.mktemp("nodes"))
        yield own
        own.close()


def reads(watched: Proxy, since: int) -> Counter[str]:
    """Count the downloads of each object, by the last part of its name."""
    return Counter(
        name.rpartition("/")[2]
        for kind, name in watched.seen[since:]
        if kind == "download"
    )


def writes(watched: Proxy, since: int) -> list[str]:
    """Names of objects of data that were written."""
    return [
        name
        for kind, name in watched.seen[since:]
        if kind in ("upload", "begin") and "/data/" in name
    ]


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        pytest.param(100, 30, id="8 MiB"),
        pytest.param(
            1000, 140, id="400 MB", marks=[pytest.mark.slow, pytest.mark.timeout(600)]
        ),
    ],
)
def test_data_go_to_the_bucket_once_and_to_each_worker_once(
    watched: Proxy, bucket: str, nodes: Nodes, tmp_path: Path, rows: int, columns: int
) -> None:
    """Two searches, a worker that comes late and one that is lost: none reads twice."""
    large = np.tile(X, (rows, columns)), np.tile(y, rows)
    store = f"gs://{bucket}/searches"
    log, gate = tmp_path / "fits.log", tmp_path / "gate"
    nodes.have("one", "two")
    since = len(watched.seen)

    def disturb() -> None:
        wait_until(lambda: len({one["pid"] for one in seen(log, "wait")}) == 4)
        nodes.start("late")
        wait_until(lambda: len({one["pid"] for one in seen(log, "wait")}) >= 6)
        nodes.kill("one")
        gate.touch()

    thread = threading.Thread(target=disturb, daemon=True)
    thread.start()
    own = search(12, log=str(log), gate=str(gate))
    found = DaskSearchCV(own, client=nodes.client, store=store).fit(*large)
    thread.join()
    first_writes, first_reads = writes(watched, since), reads(watched, since)
    middle = len(watched.seen)
    again = DaskSearchCV(search(12), client=nodes.client, store=store).fit(*large)

    expected = search(12).fit(*large)
    assert difference(expected.cv_results_, found.cv_results_) is None
    assert difference(expected.cv_results_, again.cv_results_) is None
    manifest = SearchRun.attach(found.run_url_)._folder.manifest.data
    X_name = manifest["X"]["digest"]
    assert Counter(one.rpartition("/")[2] for one in first_writes)[X_name] == 1
    assert max(Counter(first_writes).values()) == 1
    assert first_reads[X_name] == 3  # one, two, late
    assert not {X_name, manifest["y"]["digest"]} & {
        one.rpartition("/")[2] for one in writes(watched, middle)
    }
    assert reads(watched, middle)[X_name] == 0  # "two" and "late" have it


def test_the_workers_of_a_node_read_once_together(watched: Proxy, bucket: str) -> None:
    """Two processes of two slots each ask at the same moment, and share one file."""
    mine = X + secrets.randbelow(1000)
    since = len(watched.seen)
    with (
        local_cluster(2, 2, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        found = DaskSearchCV(
            search(8), client=client, store=f"gs://{bucket}/one-node"
        ).fit(mine, y)

    digest = SearchRun.attach(found.run_url_)._folder.manifest.data["X"]["digest"]
    assert reads(watched, since)[digest] == 1


@pytest.mark.parametrize("way", ["fit", "submit"])
def test_data_by_url_are_read_once_by_each_node(
    watched: Proxy, bucket: str, nodes: Nodes, tmp_path: Path, way: str
) -> None:
    """By the driver, and by each worker; nothing of X goes through Dask or the store."""
    name = f"{secrets.token_hex(4)}-X.npy"
    put(watched.port, bucket, name, npy(X))
    put(watched.port, bucket, "y.npy", npy(y))
    nodes.have("two", "three")
    since = len(watched.seen)
    gate = tmp_path / "gate"
    own = DaskSearchCV(
        search(6, gate=str(gate)), client=nodes.client, store=f"gs://{bucket}/by-url"
    )

    def open_gate() -> None:
        wait_until(nodes.all_have_tasks)
        gate.touch()

    opener = threading.Thread(target=open_gate)
    opener.start()
    found = getattr(own, way)(f"gs://{bucket}/{name}", f"gs://{bucket}/y.npy")
    result = found.result(60) if way == "submit" else found.search_
    opener.join()

    assert difference(search(6).fit(X, y).cv_results_, result.cv_results_) is None
    # A few bytes for a look at the array's shape; the driver; each of two workers.
    assert reads(watched, since)[name] == 1 + 1 + 2
    assert not any("X" in one for one in writes(watched, since))


def test_a_task_is_small_wherever_its_data_are(
    watched: Proxy, bucket: str, nodes: Nodes
) -> None:
    """References and parameters: under 2 kB for a fit that goes alone, too."""
    put(watched.port, bucket, "X.npy", npy(X))
    nodes.have("two")
    source = refer(f"gs://{bucket}/X.npy", None, {}).X
    store = open_store(f"gs://{bucket}/{'a-long-name/' * 8}store")
    for by_url in (False, True):
        with (
            DataStore.of(store) as data_store,
            Engine(nodes.client, data_store) as engine,
        ):
            own = search(2).set_params(n_jobs=-1, pre_dispatch="all")
            data = data_store.open(source, what="X") if by_url else X
            with joblib.parallel_config(backend=EvaluationBackend(Session(engine))):
                own.fit(data, y)
            assert all(
                data_store.find(one).place == store.url + "/data"
                for one in data_store.digests()
                if one != source.key
            )
        assert engine.tasks_sent == 4
        assert engine.task_bytes / engine.tasks_sent < 2048


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_data_are_read_after_an_outage(
    watched: Proxy, bucket: str, nodes: Nodes
) -> None:
    """20 s without an answer but 503: the search waits, and is right."""
    name = f"{secrets.token_hex(4)}-X.npy"
    put(watched.port, bucket, name, npy(X))
    nodes.have("two")
    watched.faults.set(Fault("status", (), name, times=None, lasts_s=20.0))

    found = DaskSearchCV(search(3), client=nodes.client).fit(f"gs://{bucket}/{name}", y)

    watched.faults.set()
    assert difference(search(3).fit(X, y).cv_results_, found.cv_results_) is None


def test_tables_in_the_bucket(watched: Proxy, bucket: str, nodes: Nodes) -> None:
    """A folder of parquet with the target as a column; each part is pinned."""
    table = pd.DataFrame(X, columns=list("abcd")).assign(label=y)
    for number, part in enumerate((table[:40], table[40:])):
        file = io.BytesIO()
        part.to_parquet(file)
        put(watched.port, bucket, f"table/part-{number}.parquet", file.getvalue())
    put(watched.port, bucket, "table/_SUCCESS", b"")
    nodes.have("two", "three")

    data = refer(f"gs://{bucket}/table", "label", {})
    tree = GridSearchCV(DecisionTreeClassifier(random_state=0), {"max_depth": [1, 2]})
    found = DaskSearchCV(tree, client=nodes.client).fit(
        f"gs://{bucket}/table/*.parquet", "label"
    )

    assert [one.url for one in data.X.objects] == [
        f"gs://{bucket}/table/part-{number}.parquet" for number in (0, 1)
    ]
    expected = tree.fit(table[list("abcd")], table["label"])
    assert difference(expected, found.search_) is None


def test_a_worker_that_meets_another_version_ends_the_search(
    watched: Proxy, bucket: str, nodes: Nodes, tmp_path: Path
) -> None:
    """The error names the object and both versions; what had finished is kept."""
    name = f"{secrets.token_hex(4)}-X.npy"
    put(watched.port, bucket, name, npy(X))
    nodes.have("two")
    log, gate = tmp_path / "fits.log", tmp_path / "gate"

    def disturb() -> None:
        wait_until(lambda: len(seen(log, "wait")) == 2)
        put(watched.port, bucket, name, npy(X + 1))
        nodes.start("newcomer")

    thread = threading.Thread(target=disturb, daemon=True)
    thread.start()
    own = search(12, log=str(log), gate=str(gate))
    pinned = refer(f"gs://{bucket}/{name}", None, {}).X.objects[0]
    with pytest.raises(DataChangedError, match=name) as caught:
        DaskSearchCV(own, client=nodes.client).fit(f"gs://{bucket}/{name}", y)
    thread.join()

    now = refer(f"gs://{bucket}/{name}", None, {}).X.objects[0]
    for one in (pinned, now):
        assert one.generation in str(caught.value)
        assert one.checksum in str(caught.value)


def test_what_arrives_altered_is_read_again(
    watched: Proxy, bucket: str, nodes: Nodes
) -> None:
    """A flipped byte, a cut or shortened answer, an outage: the data are right."""
    nodes.have("two")
    expected = search(3).fit(X, y)
    for fault in (
        Fault("flip", ("download",), "X.npy", times=2),
        Fault("shorten", ("download",), "X.npy", times=2),
        Fault("cut", ("download",), "X.npy", times=2),
        Fault("status", (), "X.npy", times=3),
        Fault("slow", ("download",), "X.npy"),
        Fault("status", (), "X.npy", times=2, status=429),
    ):
        name = f"{secrets.token_hex(4)}-X.npy"
        put(watched.port, bucket, name, npy(X))
        watched.faults.set(fault)
        found = DaskSearchCV(search(3), client=nodes.client).fit(
            f"gs://{bucket}/{name}", y
        )
        watched.faults.set()
        assert difference(expected.cv_results_, found.cv_results_) is None, fault


def test_what_always_arrives_altered_is_never_used(watched: Proxy, bucket: str) -> None:
    """After some attempts, an error says so."""
    name = f"{secrets.token_hex(4)}-X.npy"
    put(watched.port, bucket, name, npy(X))
    data = refer(f"gs://{bucket}/{name}", y, {})
    watched.faults.set(Fault("flip", ("download",), name, times=None))
    with DataStore() as data_store, pytest.raises(CorruptObjectError, match=name):
        data_store.open(data.X, what="X")
    watched.faults.set()


@pytest.mark.parametrize("method", ["fit", "submit"])
@pytest.mark.parametrize(
    ("X_name", "y_name", "error", "words"),
    [
        ("{bucket}/missing.npy", None, ObjectNotFoundError, "no object gs://"),
        ("no-such-bucket-1/X.npy", None, BucketNotFoundError, "no bucket"),
        ("{bucket}/none/*.csv", None, ObjectNotFoundError, "no object"),
        ("{bucket}/X.npy", "short.npy", DataFormatError, "90.*80"),
        ("{bucket}/X.joblib", None, UntrustedObjectError, "sign"),
        ("{bucket}/X.dat", None, DataFormatError, r"\.npy"),
    ],
)
def test_what_cannot_work_is_told_before_a_fit(
    watched: Proxy,
    bucket: str,
    tmp_path: Path,
    method: str,
    X_name: str,
    y_name: str | None,
    error: type[Exception],
    words: str,
) -> None:
    """By name, and without a cluster or a run."""
    put(watched.port, bucket, "X.npy", npy(X))
    put(watched.port, bucket, "short.npy", npy(y[:80]))
    put(watched.port, bucket, "X.joblib", b"whatever")
    target = y if y_name is None else f"gs://{bucket}/{y_name}"

    with pytest.raises(error, match=words):
        getattr(DaskSearchCV(search(3), store=tmp_path / "store"), method)(
            f"gs://{X_name.format(bucket=bucket)}", target
        )
    assert not (tmp_path / "store" / "runs").exists()


@pytest.mark.parametrize("way", ["fit", "submit"])
@pytest.mark.parametrize("kinds", [("list",), ("download",), ()])
def test_a_missing_permission_is_named(
    watched: Proxy, bucket: str, tmp_path: Path, kinds: Any, way: str
) -> None:
    """And the bucket that it is missing on, before there is a run."""
    put(watched.port, bucket, "secret.npy", npy(X))
    said = "tester does not have storage.objects.get access"
    watched.faults.set(Fault("status", kinds, times=None, status=403, message=said))
    url = f"gs://{bucket}/" + ("*.csv" if kinds == ("list",) else "secret.npy")

    with pytest.raises(StorePermissionError, match=rf"storage\.objects.*{bucket}"):
        getattr(DaskSearchCV(search(3), store=tmp_path), way)(url, y)
    watched.faults.set()
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("what", ["upload", "submit", "attach"])
def test_a_permission_that_a_store_lacks_is_named(
    watched: Proxy, bucket: str, what: str
) -> None:
    """To whoever writes data or a run there, or reads one."""
    store = f"gs://{bucket}/closed"
    ways = {
        "upload": lambda: dask_hpsearch.upload(X + 1, y, store=store),
        "submit": lambda: DaskSearchCV(search(3), store=store).submit(X + 2, y),
        "attach": lambda: SearchRun.attach(f"{store}/runs/20261101-000000-abcdef"),
    }
    said = f"tester does not have storage.objects access to {bucket}"
    watched.faults.set(Fault("status", times=None, status=403, message=said))

    with pytest.raises(StorePermissionError, match=rf"storage\.objects.*{bucket}"):
        ways[what]()
    watched.faults.set()


def test_uploaded_data_serve_many_searches(
    watched: Proxy, bucket: str, nodes: Nodes
) -> None:
    """Whatever store the searches use, X is written once and read by workers."""
    nodes.have("two")
    mine = X + secrets.randbelow(1000)
    references = dask_hpsearch.upload(mine, y, store=f"gs://{bucket}/uploaded")
    since = len(watched.seen)

    dask_hpsearch.upload(mine, y, store=f"gs://{bucket}/uploaded")
    for store in ("uploaded", "elsewhere"):
        found = DaskSearchCV(
            search(3), client=nodes.client, store=f"gs://{bucket}/{store}"
        ).fit(*references)
        expected = search(3).fit(mine, y)
        assert difference(expected.cv_results_, found.cv_results_) is None

    digests = {one.digest for one in references}
    assert not [
        one for one in writes(watched, since) if one.rpartition("/")[2] in digests
    ]


@pytest.mark.parametrize("way", ["fit", "submit"])
def test_uploaded_data_that_are_gone_or_altered_are_not_used(
    watched: Proxy, bucket: str, tmp_path: Path, way: str
) -> None:
    """A pickle that is not the one that was uploaded is never loaded."""
    mine = X + secrets.randbelow(10_000)
    store = f"gs://{bucket}/altered"
    (reference,) = dask_hpsearch.upload(mine, store=store)
    name = reference.name.removeprefix(f"gs://{bucket}/")
    begin = getattr(DaskSearchCV(search(2), store=store), way)

    evil = pickle.dumps(tmp_path / "loaded").ljust(reference.nbytes, b".")
    put(watched.port, bucket, name, evil)
    with pytest.raises((UntrustedObjectError, RunFailedError), match="altered"):
        begin(reference, y).result(60)
    put(watched.port, bucket, name, evil + b".")
    with pytest.raises(UntrustedObjectError, match="altered"):
        begin(reference, y)
    remove(watched.port, bucket, name)
    with pytest.raises(ObjectNotFoundError, match="upload it again"):
        begin(reference, y)


CLOSED_NOTEBOOK = """
import warnings
from sklearn.model_selection import RandomizedSearchCV
from sklearn.tree import DecisionTreeClassifier
from dask_hpsearch import DaskSearchCV

if __name__ == "__main__":
    search = RandomizedSearchCV(
        DecisionTreeClassifier(random_state=0), {{"max_depth": range(1, 9)}},
        n_iter=5, random_state=0,
    )
    run = DaskSearchCV(search, store="gs://{bucket}/searches").submit(
        "gs://{bucket}/table.parquet", "label"
    )
    print(run.url)
"""

ANOTHER_NOTEBOOK = """
from dask_hpsearch import SearchRun

run = SearchRun.attach("{url}")
print(run.result(90).best_score_, len(run.trials()))
"""


def test_a_search_on_bucket_data_outlives_its_notebook(
    watched: Proxy, bucket: str, tmp_path: Path
) -> None:
    """Search on ``gs://`` data, close the notebook, attach from another."""
    table = pd.DataFrame(X, columns=list("abcd")).assign(label=y)
    file = io.BytesIO()
    table.to_parquet(file)
    put(watched.port, bucket, "table.parquet", file.getvalue())

    first = script(CLOSED_NOTEBOOK.format(bucket=bucket), tmp_path)
    url, errors = first.communicate()
    assert (first.returncode, errors) == (0, "")
    second = script(ANOTHER_NOTEBOOK.format(url=url.strip()), tmp_path)
    said, errors = second.communicate()

    assert (second.returncode, errors) == (0, "")
    score, candidates = said.split()
    assert float(score) > 0.9
    assert int(candidates) == 5
    assert any(
        name.endswith("manifest.json") for name in names_in(watched.port, bucket)
    )
