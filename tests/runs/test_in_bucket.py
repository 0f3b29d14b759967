"""Runs in a bucket: as a user has them, and what a bucket may do to them meanwhile."""

from __future__ import annotations

import base64
import os
import pickle
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV

from dask_hpsearch import DaskSearchCV, SearchRun, cli
from dask_hpsearch.exceptions import (
    BucketNotFoundError,
    RunCancelledError,
    StorePermissionError,
)
from dask_hpsearch.journal.events import FitEvent
from dask_hpsearch.runs.gc import gc
from dask_hpsearch.stores import open_store
from tests.estimators import Deed, flowers, seen, times_begun
from tests.gcs.faults import Fault
from tests.gcs.held import held_by, names_in, new_bucket
from tests.oracle.structure import difference
from tests.processes import script, wait_until
from tests.runs.recorded import drive, events_of

if TYPE_CHECKING:
    from pathlib import Path

    from distributed import Client

    from tests.gcs.proxy import Proxy

X, y = flowers()
N_CANDIDATES, SPLITS = 9, 2
N_FITS = N_CANDIDATES * SPLITS
NOTEBOOK = """
import pickle
from dask_hpsearch import DaskSearchCV

search, X, y = pickle.load(open("search.pkl", "rb"))
print(DaskSearchCV(search, store={store!r}, task_name="far away").submit(X, y).url)
"""
ANOTHER = """
import base64, pickle
from dask_hpsearch import SearchRun

run = SearchRun.attach({url!r})
print(base64.b64encode(pickle.dumps(run.result(60))).decode())
"""


def grid(log: Path, **options: Any) -> GridSearchCV:
    """Make a search whose fits note themselves."""
    deed = Deed(log=str(log), client=os.getpid(), **options)
    return GridSearchCV(deed, {"number": list(range(N_CANDIDATES))}, cv=SPLITS)


@pytest.fixture
def bucket(gcs: Proxy) -> str:
    """A bucket of this test alone."""
    return new_bucket(gcs.port)


def test_a_run_in_a_bucket_outlives_its_notebook(
    bucket: str, gcs: Proxy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its driver is a process of its own; another one finds the result, and the CLI all."""
    own = grid(tmp_path / "fits.log")
    (tmp_path / "search.pkl").write_bytes(pickle.dumps((own, X, y)))
    store = f"gs://{bucket}/my searches"
    notebook = script(NOTEBOOK.format(store=store), tmp_path)
    printed, errors = notebook.communicate(timeout=60)
    assert notebook.returncode == 0, errors
    url = printed.strip()

    assert cli.main(["attach", url]) == 0
    assert f"{N_FITS}/{N_FITS} fits" in capsys.readouterr().out
    another = script(ANOTHER.format(url=url), tmp_path)
    pickled, errors = another.communicate(timeout=60)
    assert another.returncode == 0, errors

    result = pickle.loads(base64.b64decode(pickled))
    assert difference(own.fit(X, y), result) is None
    assert cli.main(["runs", store]) == 0
    assert "far away" in capsys.readouterr().out
    assert all(name.startswith("my searches/") for name in names_in(gcs.port, bucket))
    run = SearchRun.attach(url)
    wait_until(lambda: any("/logs/" in one for one in names_in(gcs.port, bucket)))
    assert "== logs/driver-000.log" in run.logs()
    assert cli.main(["delete", url]) == 0
    assert not any("/runs/" in name for name in names_in(gcs.port, bucket))


def test_a_run_in_a_bucket_is_cancelled_resumed_and_extended(
    bucket: str, client: Client, tmp_path: Path
) -> None:
    """By handles that know its URL alone; no fit runs twice."""
    log, gate = tmp_path / "fits.log", tmp_path / "gate"
    space = {"number": list(range(18))}

    def draws(n_iter: int) -> RandomizedSearchCV:
        deed = Deed(log=str(log), client=os.getpid(), gate=str(gate))
        options: dict[str, Any] = {"n_iter": n_iter, "cv": SPLITS, "random_state": 0}
        return RandomizedSearchCV(deed, space, **options)

    own = DaskSearchCV(draws(4), client=client, store=f"gs://{bucket}")
    url = own.submit(X, y).url
    wait_until(lambda: len(seen(str(log), "wait")) == 2)

    SearchRun.attach(url).cancel()
    with pytest.raises(RunCancelledError):
        SearchRun.attach(url).result(60)
    gate.touch()
    log.write_text("")
    SearchRun.attach(url).resume(client).result(60)
    more = SearchRun.attach(url).extend(3, client).result(60)

    # The driver refits in its own process, which notes that too.
    assert len(seen(str(log), "start")) == 7 * SPLITS + 2
    assert difference(draws(7).fit(X, y), more) is None


def test_a_run_in_a_bucket_is_stopped(
    bucket: str, client: Client, tmp_path: Path
) -> None:
    """By a handle that knows its URL alone; it goes on with what it has."""
    log = tmp_path / "fits.log"
    # Without a refit, which would hold too: the driver is no process of this test's.
    own = grid(log, hold_after=N_FITS // 2 + 1).set_params(refit=False)
    url = DaskSearchCV(own, client=client, store=f"gs://{bucket}").submit(X, y).url
    run = SearchRun.attach(url)
    wait_until(lambda: len(seen(str(log), "wait")) == 2)
    wait_until(lambda: run.progress().fits_done == len(seen(str(log), "end")))

    SearchRun.attach(url).stop()
    partial = run.result(60)

    assert run.state == "stopped"
    assert 0 < len(partial.cv_results_["params"]) < N_CANDIDATES
    known = run.progress().fits_done
    log.write_text("")  # nothing holds any more
    whole = SearchRun.attach(url).resume(client).result(60)
    assert difference(own.fit(X, y), whole) is None
    assert len(seen(str(log), "start")) == N_FITS - known


def test_data_of_no_run_is_removed_from_a_bucket(
    bucket: str, gcs: Proxy, client: Client, tmp_path: Path
) -> None:
    """When it is old, and not before; what a run refers to stays."""
    store = open_store(f"gs://{bucket}")
    ours = DaskSearchCV(grid(tmp_path / "fits.log"), client=client, store=store.url)
    ours.fit(X, y)
    before = names_in(gcs.port, bucket)
    stray = f"data/{uuid.uuid4().hex}"
    store.create(stray, b"nobody's")

    assert gc(store).n_data == 0
    assert cli.main(["gc", store.url]) == 0
    assert names_in(gcs.port, bucket) == sorted([*before, stray])

    removed = gc(store, older_than_days=-1)
    assert len(removed.runs) == 1
    assert not any(name.startswith("runs/") for name in names_in(gcs.port, bucket))


@pytest.mark.parametrize(
    "faults",
    [
        [Fault("status", times=None, lasts_s=3.0)],
        [Fault("status", status=429, message="Slow down.", times=4)],
        [Fault("lose", kinds=("upload",), times=6)],
        [Fault("flip", kinds=("download",), times=1)],
        pytest.param(
            [Fault("status", times=None, lasts_s=20.0)], marks=pytest.mark.slow
        ),
    ],
    ids=["outage", "rate", "lost", "flipped", "long outage"],
)
def test_a_bucket_that_fails_for_a_while_changes_nothing(
    faults: list[Fault], bucket: str, faulty: Proxy, client: Client, tmp_path: Path
) -> None:
    """No fit is lost or runs twice; the journal has each once."""
    log, gate = tmp_path / "fits.log", tmp_path / "gate"
    own = grid(log, gate=str(gate))
    ours = DaskSearchCV(own, client=client, store=f"gs://{bucket}")
    with ThreadPoolExecutor(1) as threads:
        found = threads.submit(ours.fit, X, y)
        wait_until(lambda: len(seen(str(log), "wait")) == 2)
        faulty.faults.set(*faults)
        gate.touch()
        result = found.result(100).search_

    assert difference(own.fit(X, y), result) is None
    assert set(times_begun(str(log)).values()) == {1}
    (run,) = SearchRun.list(f"gs://{bucket}")
    fits = [one for one in events_of(run._folder) if isinstance(one, FitEvent)]
    assert len({(one.candidate, one.split) for one in fits}) == len(fits) == N_FITS
    assert difference(result, run.result()) is None
    if faults[0].action != "flip":
        assert faulty.faults.n_taken() > 0


@pytest.mark.filterwarnings("ignore::dask_hpsearch.exceptions.SearchStoppedWarning")
def test_a_bucket_that_is_closed_midway_costs_no_finished_fit(
    bucket: str, faulty: Proxy, client: Client, tmp_path: Path
) -> None:
    """What had finished by then is handed over, fitted; opened again, the run goes on."""
    log, gate = tmp_path / "fits.log", tmp_path / "gate"
    own = grid(log, gate=str(gate), seconds=0.3)
    ours = DaskSearchCV(own, client=client, store=f"gs://{bucket}")
    with ThreadPoolExecutor(1) as threads:
        found = threads.submit(ours.fit, X, y)
        wait_until(lambda: len(seen(str(log), "wait")) == 2)
        gate.touch()
        wait_until(lambda: len(seen(str(log), "end")) >= 4)
        said = "me@here.org does not have storage.objects.create access."
        faulty.faults.set(
            Fault("status", kinds=("upload",), status=403, message=said, times=None)
        )
        raised = found.exception(60)

    assert isinstance(raised, StorePermissionError), raised
    assert f"storage.objects.create on gs://{bucket} is missing" in str(raised)
    assert raised.partial is ours.search_
    assert 0 < len(ours.search_.cv_results_["params"]) < N_CANDIDATES
    assert not any("result" in name for name in held_by(faulty.port, bucket))

    faulty.faults.set()
    (run,) = SearchRun.list(f"gs://{bucket}")
    known = run.progress().fits_done
    before = len(seen(str(log), "start"))
    assert difference(own.fit(X, y), drive(run._folder, X, y, client).search) is None
    assert len(seen(str(log), "start")) - before == N_FITS - known


def test_a_bucket_that_is_not_there_is_told_before_the_first_fit(
    gcs: Proxy, client: Client, tmp_path: Path
) -> None:
    """By `fit` and by `submit`."""
    ours = DaskSearchCV(
        grid(tmp_path / "fits.log"), client=client, store="gs://no-such-bucket/runs"
    )

    for begin in (ours.fit, ours.submit):
        with pytest.raises(BucketNotFoundError, match="no bucket 'no-such-bucket'"):
            begin(X, y)

    assert seen(str(tmp_path / "fits.log"), "start") == []
