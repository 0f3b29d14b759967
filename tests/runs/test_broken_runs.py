"""Runs that were damaged, tampered with, or written by other versions or users."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import DaskSearchCV, SearchRun, trust
from dask_hpsearch.data import DataHome
from dask_hpsearch.errors import (
    DataUnavailableError,
    StoreError,
    StoreFullError,
    StorePermissionError,
    UntrustedObjectError,
    VersionSkewError,
    VersionSkewWarning,
)
from dask_hpsearch.journal.folder import RunFolder
from dask_hpsearch.journal.segments import JournalReader, JournalWriter
from dask_hpsearch.runs.beginning import load
from dask_hpsearch.stores import open_store
from tests.estimators import Deed, flowers, seen
from tests.oracle.structure import difference
from tests.processes import wait_until
from tests.runs.recorded import drive, events_of, new_store, rewrite_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from distributed import Client

X, y = flowers()
N_CANDIDATES, N_SPLITS = 9, 2
RESULT, SLIM = "result-0.pkl", "result-without-estimator-0.pkl"
CALL = "calls/00000-0.pkl"


def grid(log: str, **options: Any) -> GridSearchCV:
    """Make a search whose fits note themselves."""
    deed = Deed(log=log, client=os.getpid(), **options)
    return GridSearchCV(deed, {"number": list(range(N_CANDIDATES))}, cv=N_SPLITS)


@pytest.fixture(scope="module")
def finished(
    client: Client, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Any]:
    """A store with one finished run, and its search."""
    folder = tmp_path_factory.mktemp("finished")
    own = grid(str(folder / "fits.log"))
    found = DaskSearchCV(own, client=client, store=folder / "store").fit(X, y)
    return folder / "store", found.search_


@pytest.fixture
def place(finished: tuple[Path, Any], tmp_path: Path) -> Path:
    """The folder of a copy of that run."""
    store = shutil.copytree(finished[0], tmp_path / "store")
    (run,) = (store / "runs").iterdir()
    return run


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[bytes]:
    """A pickle that leaves a trace if it is loaded; it must not."""
    trace = tmp_path / "canary-ran"

    class Canary:
        def __reduce__(self) -> Any:
            return Path.touch, (trace,)

    yield pickle.dumps((Canary(), None))
    assert not trace.exists()


def cut(path: Path) -> None:
    """Lose the second half."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def cut_within_the_head(path: Path) -> None:
    """Lose nearly everything."""
    path.write_bytes(path.read_bytes()[:20])


def empty(path: Path) -> None:
    """Lose everything."""
    path.write_bytes(b"")


def alter(path: Path) -> None:
    """Change one bit."""
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(bytes(content))


damaged = pytest.mark.parametrize("damage", [cut, cut_within_the_head, empty, alter])


def remove_result(place: Path) -> None:
    """Let a run look as if its driver was killed before the end."""
    for name in (RESULT, SLIM):
        (place / name).unlink()


@damaged
def test_a_damaged_segment_is_left_out_and_its_fits_run_again(
    damage: Callable[[Path], None],
    place: Path,
    client: Client,
    finished: tuple[Path, Any],
) -> None:
    """It is named; everything else of the run is usable."""
    run = SearchRun.attach(str(place))
    segments = sorted((place / "journal").iterdir(), key=lambda one: one.stat().st_size)
    damage(segments[-1])

    done = run.progress().fits_done

    assert done < N_CANDIDATES * N_SPLITS
    assert list(run._reader.refused) == [f"journal/{segments[-1].name}"]
    assert difference(finished[1], run.result()) is None
    remove_result(place)
    before = len(seen(finished[1].estimator.log, "start"))
    again = drive(run._folder, X, y, client).search
    assert difference(finished[1], again) is None
    begun = len(seen(finished[1].estimator.log, "start")) - before
    assert begun == N_CANDIDATES * N_SPLITS - done


@damaged
def test_a_damaged_call_is_refused_by_name(
    damage: Callable[[Path], None], place: Path, client: Client
) -> None:
    """Its candidates are not drawn anew: they would be others. Progress can be seen."""
    remove_result(place)
    damage(place / CALL)
    run = SearchRun.attach(str(place))

    with pytest.raises(UntrustedObjectError, match=CALL):
        drive(run._folder, X, y, client)

    assert run.progress().fits_done == N_CANDIDATES * N_SPLITS
    assert len(run.trials()) == N_CANDIDATES


@damaged
def test_a_damaged_result_is_refused_by_name(
    damage: Callable[[Path], None], place: Path, finished: tuple[Path, Any]
) -> None:
    """The one without the estimator is another object."""
    damage(place / RESULT)
    run = SearchRun.attach(str(place))

    with pytest.raises(UntrustedObjectError, match=RESULT):
        run.result()

    slim = run.result(estimator=False)
    assert slim.best_params_ == finished[1].best_params_


@damaged
def test_a_damaged_manifest_is_refused(
    damage: Callable[[Path], None], place: Path
) -> None:
    """There is no run without it; others in the store are found."""
    damage(place / "manifest.json")

    with pytest.raises(UntrustedObjectError, match=r"manifest\.json"):
        SearchRun.attach(str(place))

    assert SearchRun.list(place.parents[1]) == []


@damaged
def test_damaged_data_is_told_and_never_used(
    damage: Callable[[Path], None],
    place: Path,
    client: Client,
    finished: tuple[Path, Any],
) -> None:
    """A run does not go on with it; a search on the same data writes it anew."""
    store = place.parents[1]
    folder = RunFolder.open(open_store(place))
    damage(store / "data" / folder.manifest.data["X"]["digest"])

    with (
        DataHome(store) as home,
        pytest.raises(DataUnavailableError, match="'X' is gone or was altered"),
    ):
        load(folder, home)

    own = grid(finished[1].estimator.log)
    found = DaskSearchCV(own, client=client, store=store).fit(X, y)
    assert difference(finished[1], found.search_) is None


def test_a_damaged_snapshot_costs_nothing() -> None:
    """The segments that it covers are there."""
    store, key = new_store(), trust.SigningKey.generate()
    writer = JournalWriter(store, "run", key, on_error=pytest.fail)
    for number in range(30):
        writer.append({"e": "fit", "i": number})
        writer.flush()
    writer.compact_if_due()
    writer.append({"e": "fit", "i": 30})
    writer.close()
    (snapshot,) = store.list("snapshots/")
    whole = JournalReader(store, "run", key.public)
    assert [one["i"] for one in whole.events()] == list(range(31))
    assert len(whole._known) == 2

    content = store.read(snapshot.name)
    store.delete(snapshot.name)
    store.create(snapshot.name, content[:-1])

    reader = JournalReader(store, "run", key.public)
    assert sorted(one["i"] for one in reader.events()) == list(range(31))
    assert list(reader.refused) == [snapshot.name]


# --- pickles that may not be loaded ---------------------------------------------------


def unsigned(_place: Path, _name: str, content: bytes) -> bytes:
    """Leave the pickle as it is."""
    return content


def foreign(place: Path, name: str, content: bytes) -> bytes:
    """Seal as somebody would who does not have the run's key."""
    return trust.seal(trust.SigningKey.generate(), place.name, name, content)


def of_another_run(place: Path, name: str, content: bytes) -> bytes:
    """Seal with the run's own key, but for another run."""
    return trust.seal(key_of(place), "20260101-000000-00000000", name, content)


def of_another_name(place: Path, _name: str, content: bytes) -> bytes:
    """Seal with the run's own key, but for another name."""
    return trust.seal(key_of(place), place.name, "other.pkl", content)


def key_of(place: Path) -> trust.SigningKey:
    """Return the run's private key."""
    return RunFolder.open(open_store(place)).signing_key()


@pytest.mark.parametrize("name", [RESULT, SLIM, CALL, "search.pkl"])
@pytest.mark.parametrize(
    "forge",
    [unsigned, foreign, of_another_run, of_another_name],
    ids=lambda f: f.__name__,
)
def test_a_pickle_that_the_run_did_not_write_is_never_loaded(
    forge: Callable[[Path, str, bytes], bytes],
    name: str,
    place: Path,
    canary: bytes,
    client: Client,
) -> None:
    """Whoever wrote it."""
    forged = forge(place, name, canary)
    (place / name).write_bytes(forged)
    run = SearchRun.attach(str(place))
    loads: dict[str, Callable[[], Any]] = {
        RESULT: run.result,
        SLIM: lambda: run.result(estimator=False),
    }

    with pytest.raises(UntrustedObjectError, match=name):
        loads.get(name, lambda: drive(run._folder, X, y, client))()


def test_a_pickle_within_a_foreign_segment_is_never_loaded(
    place: Path, canary: bytes, client: Client, finished: tuple[Path, Any]
) -> None:
    """Results that JSON cannot hold are pickles too."""
    run = SearchRun.attach(str(place))
    (fit,) = [one for one in events_of(run._folder) if one["e"] == "fit"][:1]
    fit["r"] = {"pickle": base64.b64encode(canary).decode()}
    name = "journal/0123456789ab-000000"
    line = json.dumps(fit).encode()
    (place / name).write_bytes(foreign(place, name, line))
    remove_result(place)

    again = drive(run._folder, X, y, client).search

    assert difference(finished[1], again) is None
    run.progress()
    assert list(run._reader.refused) == [name]


def test_a_run_of_another_user_is_refused_unless_trusted(
    place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, client: Client
) -> None:
    """Trusted, it can be read, but not driven: its private key is elsewhere."""
    monkeypatch.setenv("DASK_HPSEARCH_HOME", str(tmp_path / "somebody-else"))

    with pytest.raises(UntrustedObjectError, match="trust=True"):
        SearchRun.attach(str(place))
    assert SearchRun.list(place.parents[1]) == []

    run = SearchRun.attach(str(place), trust=True)
    assert run.result().predict(X).shape == y.shape
    with pytest.raises(UntrustedObjectError, match="private key"):
        drive(run._folder, X, y, client)


def test_a_manifest_leads_to_no_file_elsewhere(place: Path) -> None:
    """A run's id is part of a file's name."""
    rewrite_manifest(place, run_id="../../elsewhere")

    with pytest.raises(UntrustedObjectError, match="no run's id"):
        SearchRun.attach(str(place), trust=True)


# --- other versions -------------------------------------------------------------------


def test_other_versions_are_told_before_anything_is_loaded(
    place: Path, canary: bytes
) -> None:
    """In one sentence that names both; how far the run is can be seen all the same."""
    sealed = trust.seal(key_of(place), place.name, RESULT, canary)
    (place / RESULT).write_bytes(sealed)
    versions = RunFolder.open(open_store(place)).manifest.versions
    old = versions | {"scikit-learn": "1.2.3", "python": "3.9"}
    rewrite_manifest(place, versions=old)
    told = (
        rf"made with python 3\.9, scikit-learn 1\.2\.3, here is "
        rf"python {versions['python']}, scikit-learn {versions['scikit-learn']}"
    )

    with pytest.warns(VersionSkewWarning, match=told):
        run = SearchRun.attach(str(place))

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
@pytest.mark.filterwarnings("ignore::dask_hpsearch.errors.SearchStoppedWarning")
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
        fail(disk)
        gate.touch()

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
