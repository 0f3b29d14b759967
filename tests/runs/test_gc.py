from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import DaskSearchCV, SearchRun, paths
from dask_hpsearch.data import DataStore
from dask_hpsearch.exceptions import UntrustedObjectError
from dask_hpsearch.runs.gc import gc, tidy
from dask_hpsearch.stores import open_store
from tests.estimators import Deed, flowers
from tests.runs.recorded import begun, note_state, rewrite_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from distributed import Client

    from dask_hpsearch.journal.folder import RunFolder

X, y = flowers()
HOUR_S = 3600.0
DAY_S = 24 * HOUR_S


def grid() -> GridSearchCV:
    """Make a small search."""
    return GridSearchCV(Deed(client=os.getpid()), {"number": [1, 2]}, cv=2)


def new_run(place: Path, X: Any = X) -> RunFolder:
    """Begin a run in a folder; nothing drives it."""
    with DataStore(place) as data_store:
        return begun(grid(), X, y, open_store(place), data_store)


def age(path: Path, seconds: float) -> None:
    """Make a file older."""
    then = time.time() - seconds
    os.utime(path, (then, then))


def data_of(place: Path) -> set[str]:
    """Names of the data files in a store."""
    return {path.name for path in (place / "data").iterdir()}


def test_data_that_no_run_refers_to_is_removed(client: Client, tmp_path: Path) -> None:
    """Splits and the like of ended searches, and data of deleted ones."""
    DaskSearchCV(grid(), client=client, store=tmp_path).fit(X, y)
    (run,) = SearchRun.list(tmp_path)
    pinned = {pin["digest"] for pin in run._folder.manifest.data.values()}
    rest = data_of(tmp_path) - pinned
    assert rest
    for name in data_of(tmp_path):
        age(tmp_path / "data" / name, 2 * HOUR_S)

    removed = gc(open_store(tmp_path))

    assert data_of(tmp_path) == pinned
    assert removed.n_data == len(rest)
    assert removed.nbytes > 0
    assert removed.runs == []
    run.delete()
    gc(open_store(tmp_path))
    assert data_of(tmp_path) == set()


def test_young_data_is_never_removed(tmp_path: Path) -> None:
    """It may be of a run that is just being made."""
    with DataStore(tmp_path) as data_store:
        young, old = data_store.put("young", what="X"), data_store.put("old", what="X")
    age(tmp_path / "data" / young.digest, 0.9 * HOUR_S)
    age(tmp_path / "data" / old.digest, 1.1 * HOUR_S)

    assert gc(open_store(tmp_path)).n_data == 1

    assert young.digest in data_of(tmp_path)


def test_what_a_run_under_way_may_use_is_kept(tmp_path: Path) -> None:
    """However long ago it was written."""
    folder = new_run(tmp_path)
    with DataStore(tmp_path) as data_store:
        splits = data_store.put("splits", what="splits")
    note_state(folder, "running", os.getpid())
    rewrite_manifest(folder.store, created=time.time() - 3 * HOUR_S)
    age(tmp_path / "data" / splits.digest, 2.5 * HOUR_S)
    assert SearchRun(folder).state == "running"

    assert gc(open_store(tmp_path)).n_data == 0

    note_state(folder, "finished", os.getpid())
    assert gc(open_store(tmp_path)).n_data == 1


def test_data_that_is_put_again_is_young_again(tmp_path: Path) -> None:
    """A later search on the same data writes nothing, but uses it."""
    with DataStore(tmp_path) as data_store:
        ref = data_store.put(X, what="X")
    age(tmp_path / "data" / ref.digest, 2 * HOUR_S)
    with DataStore(tmp_path) as data_store:
        data_store.put(X.copy(), what="X")

    assert gc(open_store(tmp_path)).n_data == 0


def test_only_runs_that_are_over_grow_old(tmp_path: Path) -> None:
    """Interrupted and failed ones can go on."""
    states = ["finished", "stopped", "cancelled", "failed", "interrupted", "running"]
    folders = {state: new_run(tmp_path) for state in states}
    for state, folder in folders.items():
        note_state(folder, state, os.getpid())
    store = open_store(tmp_path)
    assert gc(store, older_than_days=1).runs == []

    removed = gc(store, older_than_days=-1)

    over = {folders[state].run_id for state in states[:3]}
    assert set(removed.runs) == over
    left = {run.state for run in SearchRun.list(tmp_path)}
    assert left == {"failed", "interrupted", "running"}


def test_what_is_left_of_a_run_that_was_never_whole_goes(tmp_path: Path) -> None:
    """Its process was killed before the manifest was there."""
    old, young = (
        "20200101-000000-00000000",
        time.strftime("%Y%m%d-%H%M%S", time.gmtime()),
    )
    store = open_store(tmp_path)
    store.create(f"runs/{old}/search.pkl", b"")
    store.create(f"runs/{young}-00000000/search.pkl", b"")

    assert gc(store).runs == [old]

    assert [one.name for one in store.list("runs/")] == [
        f"runs/{young}-00000000/search.pkl"
    ]


def test_nothing_is_removed_while_a_manifest_cannot_be_read(tmp_path: Path) -> None:
    """Which data its run refers to is not known."""
    folder = new_run(tmp_path)
    path = folder.store.local_path()
    assert path is not None
    (path / "manifest.json").write_text("{}")
    for name in data_of(tmp_path):
        age(tmp_path / "data" / name, 2 * HOUR_S)
    before = data_of(tmp_path)

    with pytest.raises(UntrustedObjectError, match=folder.run_id):
        gc(open_store(tmp_path))

    assert data_of(tmp_path) == before


def test_runs_of_other_users_keep_their_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store may be shared."""
    store = tmp_path / "store"
    with monkeypatch.context() as other:
        other.setenv("DASK_HPSEARCH_HOME", str(tmp_path / "somebody-else"))
        note_state(new_run(store), "finished", os.getpid())
    for name in data_of(store):
        age(store / "data" / name, 2 * HOUR_S)

    removed = gc(open_store(store), older_than_days=-1)

    assert removed.n_data == 0
    assert removed.runs == []


def test_a_fit_tidies_the_default_store_once_a_day(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data of no run goes; what a fit writes stays for a month."""
    monkeypatch.setenv("DASK_HPSEARCH_HOME", str(tmp_path))
    place = paths.data_folder() / "store"
    DaskSearchCV(grid(), client=client).fit(X, y)
    with DataStore(place) as data_store:
        old = data_store.put("old", what="X").digest
    age(place / "data" / old, 2 * HOUR_S)

    DaskSearchCV(grid(), client=client).fit(X, y)
    assert old not in data_of(place)
    assert len(SearchRun.list()) == 2

    with DataStore(place) as data_store:
        data_store.put("old", what="X")
    age(place / "data" / old, 2 * HOUR_S)
    tidy(open_store(place))
    assert old in data_of(place)
    age(place / ".tidied", 1.1 * DAY_S)
    tidy(open_store(place))
    assert old not in data_of(place)
