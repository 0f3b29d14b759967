"""Runs that were damaged, tampered with, or written by other versions or users."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pickle
import subprocess
import sys
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import DaskSearchCV, SearchRun
from dask_hpsearch.data import DataStore
from dask_hpsearch.exceptions import (
    DataUnavailableError,
    RunFailedError,
    StoreError,
    StoreFullError,
    StorePermissionError,
    UntrustedObjectError,
    VersionSkewError,
    VersionSkewWarning,
)
from dask_hpsearch.journal.events import FitEvent
from dask_hpsearch.journal.folder import RunFolder
from dask_hpsearch.journal.segments import JournalReader, JournalWriter
from dask_hpsearch.runs.create import load_work
from dask_hpsearch.security import signing
from dask_hpsearch.stores import Store, open_store
from tests.estimators import Deed, flowers, seen
from tests.oracle.structure import difference
from tests.processes import wait_until
from tests.runs.recorded import (
    copied,
    drive,
    events_of,
    new_store,
    rewrite,
    rewrite_manifest,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client

X, y = flowers()
N_CANDIDATES, N_SPLITS = 9, 2
RESULT, SLIM = "result-0.pkl", "result-without-estimator-0.pkl"
CALL = "calls/00000-0.pkl"


def grid(log: str, **options: Any) -> GridSearchCV:
    """Make a search whose fits note themselves."""
    deed = Deed(log=log, client=os.getpid(), **options)
    return GridSearchCV(deed, {"number": list(range(N_CANDIDATES))}, cv=N_SPLITS)


Finished = tuple[Store, Any]


def new_store_in(kind: str, folder: Path, request: pytest.FixtureRequest) -> Store:
    """Return an empty store of a kind."""
    if kind == "file":
        return open_store(folder / "store")
    bucket = request.getfixturevalue("gcs_bucket")
    return open_store(f"gs://{bucket}/{uuid.uuid4().hex}")


@pytest.fixture(scope="module", params=["file", "gs"])
def finished(
    request: pytest.FixtureRequest,
    client: Client,
    tmp_path_factory: pytest.TempPathFactory,
) -> Finished:
    """A store of each kind with one finished run, and its search."""
    folder = tmp_path_factory.mktemp("finished")
    store = new_store_in(request.param, folder, request)
    own = grid(str(folder / "fits.log"))
    found = DaskSearchCV(own, client=client, store=store.url).fit(X, y)
    return store, found.search_


@pytest.fixture
def place(finished: Finished, tmp_path: Path, request: pytest.FixtureRequest) -> Store:
    """The folder of a copy of that run."""
    kind = finished[0].url.partition(":")[0]
    return copied(finished[0], new_store_in(kind, tmp_path, request))


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[bytes]:
    """A pickle that leaves a trace if it is loaded; it must not."""
    trace = tmp_path / "canary-ran"

    class Canary:
        def __reduce__(self) -> Any:
            return Path.touch, (trace,)

    yield pickle.dumps((Canary(), None))
    assert not trace.exists()


def cut(content: bytes) -> bytes:
    """Lose the second half."""
    return content[: len(content) // 2]


def cut_within_the_head(content: bytes) -> bytes:
    """Lose nearly everything."""
    return content[:20]


def empty(_: bytes) -> bytes:
    """Lose everything."""
    return b""


def alter(content: bytes) -> bytes:
    """Change one bit."""
    changed = bytearray(content)
    changed[-20] ^= 1
    return bytes(changed)


damaged = pytest.mark.parametrize("change", [cut, cut_within_the_head, empty, alter])
Change = Callable[[bytes], bytes]


def damage(store: Store, name: str, change: Change) -> None:
    """Change an object."""
    rewrite(store, name, change(store.read(name)))


def store_of(place: Store) -> Store:
    """Return the store that a run is in."""
    return open_store(place.url.partition("/runs/")[0])


def run_id_of(place: Store) -> str:
    """Return a run's name."""
    return place.url.rpartition("/")[2]


def fits_in(run: SearchRun) -> set[tuple[int, int]]:
    """Return the fits whose results the journal has."""
    events = run._reader.events()
    return {(one.candidate, one.split) for one in events if isinstance(one, FitEvent)}


def remove_result(place: Store) -> None:
    """Let a run look as if its driver was killed before the end."""
    for name in (RESULT, SLIM):
        place.delete(name)


@damaged
def test_a_damaged_segment_is_left_out_and_its_fits_run_again(
    change: Change,
    place: Store,
    client: Client,
    finished: Finished,
) -> None:
    """It is named; everything else of the run is usable."""
    run = SearchRun.attach(place.url)
    longest = max(place.list("journal/"), key=lambda one: one.nbytes).name
    damage(place, longest, change)

    done = len(fits_in(run))

    assert run.progress().fits_done <= done < N_CANDIDATES * N_SPLITS
    assert list(run._reader.refused) == [longest]
    assert difference(finished[1], run.result()) is None
    remove_result(place)
    before = len(seen(finished[1].estimator.log, "start"))
    again = drive(run._folder, X, y, client).search
    assert difference(finished[1], again) is None
    begun = len(seen(finished[1].estimator.log, "start")) - before
    assert begun == N_CANDIDATES * N_SPLITS - done


@damaged
def test_a_damaged_call_is_refused_by_name(
    change: Change, place: Store, client: Client
) -> None:
    """Its candidates are not drawn anew: they would be others. Progress can be seen."""
    remove_result(place)
    damage(place, CALL, change)
    run = SearchRun.attach(place.url)

    with pytest.raises(UntrustedObjectError, match=CALL):
        drive(run._folder, X, y, client)

    assert run.progress().fits_done == N_CANDIDATES * N_SPLITS
    assert len(run.trials()) == N_CANDIDATES


@damaged
def test_a_damaged_result_is_refused_by_name(
    change: Change, place: Store, finished: Finished
) -> None:
    """The one without the estimator is another object."""
    damage(place, RESULT, change)
    run = SearchRun.attach(place.url)

    with pytest.raises(UntrustedObjectError, match=RESULT):
        run.result()

    slim = run.result(estimator=False)
    assert slim.best_params_ == finished[1].best_params_


@damaged
def test_a_damaged_manifest_is_refused(change: Change, place: Store) -> None:
    """There is no run without it; others in the store are found."""
    damage(place, "manifest.json", change)

    with pytest.raises(UntrustedObjectError, match=r"manifest\.json"):
        SearchRun.attach(place.url)

    assert SearchRun.list(store_of(place).url) == []


@damaged
def test_damaged_data_is_told_and_never_used(
    change: Change,
    place: Store,
    client: Client,
    finished: Finished,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A run does not go on with it; a search on the same data writes it anew.

    In a bucket, whoever altered it must delete it: nothing there is overwritten.
    """
    monkeypatch.setenv("DASK_HPSEARCH_CACHE", str(tmp_path / "cache"))  # an empty one
    store, folder = store_of(place), RunFolder.open(place)
    name = f"data/{folder.manifest.data['X']['digest']}"
    damage(store, name, change)

    with (
        DataStore.of(store) as data_store,
        pytest.raises((DataUnavailableError, UntrustedObjectError), match="altered"),
    ):
        load_work(folder, data_store)

    if store.local_path() is None:
        store.delete(name)
    own = grid(finished[1].estimator.log)
    found = DaskSearchCV(own, client=client, store=store.url).fit(X, y)
    assert difference(finished[1], found.search_) is None


def fit(number: int) -> FitEvent:
    """Return the event of a fit."""
    return FitEvent(
        generation=0,
        time=0.0,
        call=0,
        candidate=number,
        split=0,
        digest="",
        result={},
    )


def test_a_damaged_snapshot_costs_nothing() -> None:
    """The segments that it covers are there."""
    store, key = new_store(), signing.SigningKey.generate()
    writer = JournalWriter(store, "run", key, on_error=pytest.fail)
    for number in range(30):
        writer.append(fit(number))
        writer.flush()
    writer.compact_if_due()
    writer.append(fit(30))
    writer.close()
    (snapshot,) = store.list("snapshots/")
    whole = JournalReader(store, "run", key.public)
    assert whole.events() == [fit(number) for number in range(31)]
    assert len(whole._known) == 2

    content = store.read(snapshot.name)
    store.delete(snapshot.name)
    store.create(snapshot.name, content[:-1])

    reader = JournalReader(store, "run", key.public)
    found = {one.candidate for one in reader.events() if isinstance(one, FitEvent)}
    assert found == set(range(31))
    assert len(reader.events()) == 31
    assert list(reader.refused) == [snapshot.name]


# --- pickles that may not be loaded ---------------------------------------------------


def unsigned(_place: Store, _name: str, content: bytes) -> bytes:
    """Leave the pickle as it is."""
    return content


def foreign(place: Store, name: str, content: bytes) -> bytes:
    """Seal as somebody would who does not have the run's key."""
    return signing.seal(signing.SigningKey.generate(), run_id_of(place), name, content)


def of_another_run(place: Store, name: str, content: bytes) -> bytes:
    """Seal with the run's own key, but for another run."""
    return signing.seal(key_of(place), "20260101-000000-00000000", name, content)


def of_another_name(place: Store, _name: str, content: bytes) -> bytes:
    """Seal with the run's own key, but for another name."""
    return signing.seal(key_of(place), run_id_of(place), "other.pkl", content)


def key_of(place: Store) -> signing.SigningKey:
    """Return the run's private key."""
    return RunFolder.open(place).signing_key()


@pytest.mark.parametrize("name", [RESULT, SLIM, CALL, "search.pkl"])
@pytest.mark.parametrize(
    "forge",
    [unsigned, foreign, of_another_run, of_another_name],
    ids=lambda f: f.__name__,
)
def test_a_pickle_that_the_run_did_not_write_is_never_loaded(
    forge: Callable[[Path, str, bytes], bytes],
    name: str,
    place: Store,
    canary: bytes,
    client: Client,
) -> None:
    """Whoever wrote it."""
    forged = forge(place, name, canary)
    rewrite(place, name, forged)
    run = SearchRun.attach(place.url)
    loads: dict[str, Callable[[], Any]] = {
        RESULT: run.result,
        SLIM: lambda: run.result(estimator=False),
    }

    with pytest.raises(UntrustedObjectError, match=name):
        loads.get(name, lambda: drive(run._folder, X, y, client))()


def test_a_pickle_within_a_foreign_segment_is_never_loaded(
    place: Store, canary: bytes, client: Client, finished: Finished
) -> None:
    """Results that JSON cannot hold are pickles too."""
    run = SearchRun.attach(place.url)
    own = next(one for one in events_of(run._folder) if isinstance(one, FitEvent))
    planted = replace(own, result={"pickle": base64.b64encode(canary).decode()})
    name = "journal/0123456789ab-000000"
    line = json.dumps(planted.to_json()).encode()
    place.create(name, foreign(place, name, line))
    remove_result(place)

    again = drive(run._folder, X, y, client).search

    assert difference(finished[1], again) is None
    run.progress()
    assert list(run._reader.refused) == [name]


def test_a_run_of_another_user_is_refused_unless_trusted(
    place: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, client: Client
) -> None:
    """Trusted, it can be read, but not driven: its private key is elsewhere."""
    monkeypatch.setenv("DASK_HPSEARCH_HOME", str(tmp_path / "somebody-else"))

    with pytest.raises(UntrustedObjectError, match="trust=True"):
        SearchRun.attach(place.url)
    assert SearchRun.list(store_of(place).url) == []

    run = SearchRun.attach(place.url, trust=True)
    assert run.result().predict(X).shape == y.shape
    with pytest.raises(UntrustedObjectError, match="private key"):
        drive(run._folder, X, y, client)


def test_a_manifest_leads_to_no_file_elsewhere(place: Store) -> None:
    """A run's id is part of a file's name."""
    rewrite_manifest(place, run_id="../../elsewhere")

    with pytest.raises(UntrustedObjectError, match="invalid run id"):
        SearchRun.attach(place.url, trust=True)


# --- other versions -------------------------------------------------------------------


def test_other_versions_are_told_before_anything_is_loaded(
    place: Store, canary: bytes
) -> None:
    """In one sentence that names both; how far the run is can be seen all the same."""
    sealed = signing.seal(key_of(place), run_id_of(place), RESULT, canary)
    rewrite(place, RESULT, sealed)
    versions = RunFolder.open(place).manifest.versions
    old = versions | {"scikit-learn": "1.2.3", "python": "3.9"}
    rewrite_manifest(place, versions=old)
    told = (
        rf"made with python 3\.9, scikit-learn 1\.2\.3, here is "
        rf"python {versions['python']}, scikit-learn {versions['scikit-learn']}"
    )

    with pytest.warns(VersionSkewWarning, match=told):
        run = SearchRun.attach(place.url)

    for loads in (run.result, lambda: run.result(estimator=False), run.resume):
        with pytest.raises(VersionSkewError, match=told):
            loads()
    assert run.progress().fits_done == N_CANDIDATES * N_SPLITS


# --- stores that fail midway ----------------------------------------------------------


@contextlib.contextmanager
def small_disk(folder: Path, *, mib: int) -> Iterator[Path]:
    """Mount a disk of some MiB in memory."""
    folder.mkdir()
    size = f"size={mib}m"
    command = ["/bin/mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root can mount a disk")
    try:
        yield folder
    finally:
        subprocess.run(["/bin/umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> None:
    """Use all space that is left."""
    with contextlib.suppress(OSError), (disk / "filling").open("wb", 0) as file:
        while True:
            file.write(bytes(4096))


def lock(disk: Path) -> None:
    """Let nobody write any more, not even root."""
    subprocess.run(["/bin/mount", "-o", "remount,ro", str(disk)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a disk in memory")
@pytest.mark.filterwarnings("ignore::dask_hpsearch.exceptions.SearchStoppedWarning")
@pytest.mark.parametrize(
    ("fail", "error", "told"),
    [
        (fill, StoreFullError, "no space left to write"),
        (lock, StorePermissionError, "not allowed to write"),
    ],
)
def test_a_store_that_fails_midway_costs_no_finished_fit(
    fail: Callable[[Path], None],
    error: type[StoreError],
    told: str,
    client: Client,
    tmp_path: Path,
) -> None:
    """What had finished by then is handed over, fitted."""
    log, gate = str(tmp_path / "fits.log"), tmp_path / "gate"
    own = grid(log, gate=str(gate), seconds=0.3)
    with small_disk(tmp_path / "disk", mib=2) as disk, ThreadPoolExecutor(1) as threads:
        ours = DaskSearchCV(own, client=client, store=disk)
        found = threads.submit(ours.fit, X, y)
        wait_until(lambda: len(seen(log, "wait")) == 2)
        gate.touch()
        wait_until(lambda: len(seen(log, "end")) >= 4)
        fail(disk)

        raised = found.exception(60)

    assert isinstance(raised, error), raised
    assert told in str(raised)
    assert "store=" in str(raised)
    assert raised.partial is ours.search_
    plain = own.fit(X, y)
    known = raised.partial.cv_results_
    assert 0 < len(known["params"]) < N_CANDIDATES
    scores = dict(
        zip(
            map(str, plain.cv_results_["params"]),
            plain.cv_results_["mean_test_score"],
            strict=True,
        )
    )
    for params, score in zip(known["params"], known["mean_test_score"], strict=True):
        assert scores[str(params)] == score
    assert ours.predict(X).shape == y.shape


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a disk in memory")
def test_a_submitted_run_tells_of_a_full_disk(client: Client, tmp_path: Path) -> None:
    """Its folder cannot; once there is space again, it goes on."""
    log, gate = str(tmp_path / "fits.log"), tmp_path / "gate"
    own = grid(log, gate=str(gate))
    with small_disk(tmp_path / "disk", mib=2) as disk:
        run = DaskSearchCV(own, client=client, store=disk).submit(X, y)
        wait_until(lambda: len(seen(log, "wait")) == 2)
        fill(disk)
        gate.touch()

        with pytest.raises(RunFailedError, match="no space left to write"):
            run.result(60)

        assert run.state == "interrupted"
        (disk / "filling").unlink()
        assert difference(own.fit(X, y), run.resume(client).result(60)) is None
