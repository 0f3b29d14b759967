from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import pytest

from dask_hpsearch.data import DataStore
from tests.estimators import seen
from tests.processes import WAIT_S, is_alive, marked, script, wait_until

MARK = "DASK_HPSEARCH_TEST_MARK"
SEARCH = """
import os, sys
from pathlib import Path
from dask_hpsearch import DaskSearchCV
from sklearn.model_selection import GridSearchCV
from tests.estimators import Deed, flowers

X, y = flowers()
log = str(Path(sys.argv[0]).parent / "fits.log")
deed = Deed(log=log, client=os.getpid(){options})
search = GridSearchCV(deed, {{"number": range(6)}}, cv=2)
found = DaskSearchCV(search).fit(X, y)
same = (found.predict(X) == search.fit(X, y).predict(X)).all()
print(os.getpid(), found.stopped_, same and found.best_params_ == search.best_params_)
"""


@pytest.fixture
def mark() -> str:
    """A text in the environment of a script and of all that it starts."""
    return f"{MARK}={uuid.uuid4().hex}"


def environment(mark: str, folder: Path) -> dict[str, str]:
    """Environment of a script whose temporary files are below a folder."""
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    name, _, value = mark.partition("=")
    return {name: value, "TMPDIR": str(temporary)}


def data_folders(pid: int, folder: Path) -> list[Path]:
    """Folders in which a client keeps its searches' data."""
    parents = Path("/dev/shm"), folder / "tmp", Path(tempfile.gettempdir())  # noqa: S108
    return [
        path for parent in parents for path in parent.glob(f"dask-hpsearch-{pid}-*")
    ]


def a_fit_waits(folder: Path) -> bool:
    """Whether the search has come to where it will not go on."""
    return bool(seen(folder / "fits.log", "wait"))


def test_a_script_without_a_main_guard_leaves_nothing(
    tmp_path: Path, mark: str
) -> None:
    """It works, says nothing but its own words, and no process or file stays."""
    text = SEARCH.format(options="")
    with script(text, tmp_path, environment=environment(mark, tmp_path)) as process:
        output, errors = process.communicate(timeout=WAIT_S)

    assert not errors
    assert output == f"{process.pid} None True\n"
    assert process.returncode == 0
    wait_until(lambda: not marked(mark))
    assert not data_folders(process.pid, tmp_path)
    files = [path for path in (tmp_path / "tmp").rglob("*") if path.is_file()]
    assert not [path for path in files if "lock" not in path.suffix]
    assert len(seen(tmp_path / "fits.log", "end")) == 12


def test_a_script_that_fails_leaves_nothing(tmp_path: Path, mark: str) -> None:
    """An error of the search ends the workers too."""
    text = SEARCH.format(options=', deed="raise"')
    with script(text, tmp_path, environment=environment(mark, tmp_path)) as process:
        _, errors = process.communicate(timeout=WAIT_S)

    assert "ValueError: \nAll the 12 fits failed" in errors
    assert "a fit like any other that fails" in errors
    assert errors.count("Traceback (most recent call last)") < 12
    assert process.returncode == 1
    wait_until(lambda: not marked(mark))
    assert not data_folders(process.pid, tmp_path)


def test_ctrl_c_in_a_script_leaves_nothing(tmp_path: Path, mark: str) -> None:
    """Its search ends with what it has, which is a warning; the script goes on."""
    text = SEARCH.format(options=", hold_after=5").replace(
        "found = ", 'import warnings; warnings.simplefilter("default")\nfound = '
    )
    with script(text, tmp_path, environment=environment(mark, tmp_path)) as process:
        wait_until(lambda: a_fit_waits(tmp_path) or process.poll() is not None)
        os.killpg(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=WAIT_S)

    if output:
        assert re.fullmatch(rf"{process.pid} interrupted (True|False)\n", output)
        assert "SearchStoppedWarning: the search was stopped (interrupted)" in errors
    else:  # the signal was faster than the news of the first candidate
        assert errors.rstrip().endswith("KeyboardInterrupt")
    wait_until(lambda: not marked(mark))
    assert not data_folders(process.pid, tmp_path)


def test_killing_the_client_ends_all_and_the_next_search_clears_up(
    tmp_path: Path, mark: str
) -> None:
    """Workers, forkservers and slots end by themselves; the data goes next time."""
    text = SEARCH.format(options=", hold_after=2")
    with script(text, tmp_path, environment=environment(mark, tmp_path)) as process:
        wait_until(lambda: a_fit_waits(tmp_path))
        slots = [entry["pid"] for entry in seen(tmp_path / "fits.log", "wait")]
        process.kill()

    wait_until(lambda: not marked(mark))
    assert not any(map(is_alive, slots))
    with DataStore() as home:
        home.put([1, 2, 3], what="numbers")

    assert not [
        folder
        for folder in data_folders(process.pid, tmp_path)
        if folder.parent != tmp_path / "tmp"
    ]


@pytest.mark.parametrize("stage", ["before its workers", "beside its workers"])
def test_a_client_killed_as_workers_start_leaves_nothing(
    stage: str, tmp_path: Path, mark: str
) -> None:
    """A worker does not wait for ever for a scheduler that it has not reached."""
    # A scheduler that never answers: its worker would try again for ever.
    text = """
import asyncio, os, socket
from dask_hpsearch.clusters.local import LocalWorker

async def main():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = "tcp://127.0.0.1:{}".format(silent.getsockname()[1])
        worker = LocalWorker(address, name="0", nthreads=1)
        await worker.start()
        print("started", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""
    with script(text, tmp_path, environment=environment(mark, tmp_path)) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        if stage == "beside its workers":
            wait_until(lambda: len(marked(mark)) > 2)  # its forkserver is there too
        process.kill()

    wait_until(lambda: not marked(mark))


def test_leftovers_go_wherever_they_are() -> None:
    """In memory and on the disk, whichever the next search uses; the living stay."""
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    parents = [Path(tempfile.gettempdir())]
    if os.access("/dev/shm", os.W_OK):  # noqa: S108
        parents.append(Path("/dev/shm"))  # noqa: S108
    dead = [parent / f"dask-hpsearch-{ended.pid}-left" for parent in parents]
    alive = [parent / f"dask-hpsearch-{os.getpid()}-used" for parent in parents]
    for folder in dead + alive:
        folder.mkdir()
    try:
        with DataStore() as home:
            home.put([1, 2, 3], what="numbers")

        assert not any(folder.exists() for folder in dead)
        assert all(folder.exists() for folder in alive)
    finally:
        for folder in dead + alive:
            if folder.exists():
                folder.rmdir()
