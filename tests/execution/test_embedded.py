from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dask_hpsearch.data import DataStore
from dask_hpsearch.exceptions import NoWorkersError
from dask_hpsearch.execution.embedded import EmbeddedClusters
from dask_hpsearch.slots.plugin import slot_pids
from tests.estimators import seen
from tests.processes import WAIT_S, is_alive, marked, script, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client

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


# ------------------------------------------------------- kept for the process's next fit

TWO_FITS = """
import os, sys, warnings
import psutil
from dask_hpsearch import DaskSearchCV
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from tests.estimators import flowers
from tests.processes import wait_until

X, y = flowers()

def workers():
    return sorted(child.pid for child in psutil.Process().children())

def fit(n_jobs=2, **options):
    search = GridSearchCV(
        GaussianNB(), {{"var_smoothing": [1e-9, 1e-6]}}, cv=2, n_jobs=n_jobs
    )
    return DaskSearchCV(search, **options).fit(X, y)

fit()
first = workers()
{then}
"""


def run_script(then: str, folder: Path, mark: str) -> str:
    """Run a script with two fits; return what it says, and check that nothing is left."""
    text = TWO_FITS.format(then=then)
    with script(text, folder, environment=environment(mark, folder)) as process:
        output, errors = process.communicate(timeout=WAIT_S)
    assert not errors
    assert process.returncode == 0
    wait_until(lambda: not marked(mark))
    assert not data_folders(process.pid, folder)
    return output


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ("fit()", True),
        ("fit(); fit()", True),
        ("fit(n_jobs=1)", False),
        ("os.environ['OMP_NUM_THREADS'] = '2'; fit()", False),
        ("sys.path.append('/nowhere'); fit()", False),
        ("os.chdir('/'); fit()", False),
    ],
)
def test_the_next_fit_has_the_same_workers(
    change: str,
    same: bool,  # noqa: FBT001 (pytest's way)
    tmp_path: Path,
    mark: str,
) -> None:
    """If they are what it would start itself: slots, environment, folder, modules' places."""
    output = run_script(
        f"{change}\nprint(len(first), len(workers()), first == workers())",
        tmp_path,
        mark,
    )

    assert output == f"1 1 {same}\n"


def test_a_cluster_that_is_not_to_be_kept_is_closed(tmp_path: Path, mark: str) -> None:
    """``keep_cluster=False`` leaves none of its own."""
    output = run_script(
        "fit(keep_cluster=False)\nprint(first == workers())", tmp_path, mark
    )

    assert output == "True\n"


def test_a_failed_search_leaves_the_next_one_its_workers(
    tmp_path: Path, mark: str
) -> None:
    """An error of the user's is none of the cluster's."""
    then = """
failing = GridSearchCV(GaussianNB(), {"var_smoothing": [-1.0]}, cv=2, n_jobs=2)
try:
    DaskSearchCV(failing).fit(X, y)
except ValueError:
    fit()
    print(first == workers())
"""
    assert run_script(then, tmp_path, mark) == "True\n"


def test_a_module_that_was_edited_is_used_as_it_is(tmp_path: Path, mark: str) -> None:
    """The next fit runs what this process has imported by now."""
    then = """
import importlib
sys.dont_write_bytecode = True
text = "from sklearn.naive_bayes import GaussianNB\\nclass Own(GaussianNB):\\n"
text += "    def score(self, X, y): return {}\\n"
def own(number):
    path = os.path.join(os.path.dirname(sys.argv[0]), "edited.py")
    with open(path, "w") as file:
        file.write(text.format(number))
    importlib.invalidate_caches()
    module = sys.modules.get("edited")
    module = importlib.reload(module) if module else importlib.import_module("edited")
    search = GridSearchCV(module.Own(), {"var_smoothing": [1e-9]}, cv=2, n_jobs=2)
    return DaskSearchCV(search).fit(X, y).best_score_
print(own(1), own(22), first == workers())
"""
    assert run_script(then, tmp_path, mark) == "1.0 22.0 True\n"


def test_a_forked_child_leaves_the_workers_to_its_parent(
    tmp_path: Path, mark: str
) -> None:
    """It does not end them as it ends itself, with all that runs then."""
    then = """
from dask_hpsearch.execution.embedded import embedded_clusters

warnings.simplefilter("ignore", DeprecationWarning)  # threads and fork, as of Python 3.12
child = os.fork()
if child == 0:
    embedded_clusters.close()
    sys.exit()
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
fit()
print(code, first == workers())
"""
    assert run_script(then, tmp_path, mark) == "0 True\n"


def test_files_that_slots_have_shared_end_with_the_fit(
    tmp_path: Path, mark: str
) -> None:
    """Rows of splits take as much room as the data, once for each split."""
    then = """
from pathlib import Path
import numpy as np

X, y = np.random.default_rng(0).normal(size=(20_000, 8)), np.arange(20_000) % 2
during = set()

def shared():
    return [path.name for path in Path(os.environ["TMPDIR"]).rglob("rows-*")]

def note(candidate):
    during.update(shared())

search = GridSearchCV(GaussianNB(), {"var_smoothing": [1e-9, 1e-6, 1e-3]}, cv=2, n_jobs=2)
DaskSearchCV(search, on_candidate=note).fit(X, y)
print(len(during) > 1, shared())
"""
    assert run_script(then, tmp_path, mark) == "True []\n"


def test_a_forked_child_fits_on_a_cluster_of_its_own(tmp_path: Path, mark: str) -> None:
    """Dask's threads do not exist there, and none of them is waited for."""
    then = """
warnings.simplefilter("ignore", DeprecationWarning)  # threads and fork, as of Python 3.12
child = os.fork()
if child == 0:
    fit()
    sys.exit(workers() == first)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run_script(then, tmp_path, mark) == "0\n"


def test_a_child_forked_during_a_fit_leaves_its_workers_to_it(
    tmp_path: Path, mark: str
) -> None:
    """It ends at once, and with it nothing of the parent's."""
    then = """
import threading

warnings.simplefilter("ignore", DeprecationWarning)  # threads and fork, as of Python 3.12
begun, go_on = threading.Event(), threading.Event()

def wait(candidate):
    begun.set()
    go_on.wait(60)

fitting = threading.Thread(target=fit, kwargs={"on_candidate": wait})
fitting.start()
begun.wait(60)
child = os.fork()
if child == 0:
    sys.exit()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
go_on.set()
fitting.join()
fit()
print(first == workers())
"""
    assert run_script(then, tmp_path, mark) == "0\nTrue\n"


def test_after_ctrl_c_the_next_fit_runs(tmp_path: Path, mark: str) -> None:
    """On the same workers or others; and nothing is left at the end."""
    text = SEARCH.format(options=", hold_after=5").replace(
        "found = DaskSearchCV(search).fit(X, y)",
        """
import warnings; warnings.simplefilter("ignore")
try:
    DaskSearchCV(search).fit(X, y)
except KeyboardInterrupt:
    pass
search.estimator.hold_after = None
found = DaskSearchCV(search).fit(X, y)
""",
    )
    with script(text, tmp_path, environment=environment(mark, tmp_path)) as process:
        wait_until(lambda: a_fit_waits(tmp_path) or process.poll() is not None)
        os.killpg(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=WAIT_S)

    assert not errors
    assert output == f"{process.pid} None True\n"
    wait_until(lambda: not marked(mark))
    assert not data_folders(process.pid, tmp_path)


@pytest.fixture
def clusters() -> Iterator[EmbeddedClusters]:
    """Clusters of a test alone."""
    found = EmbeddedClusters(idle_s=0.5)
    yield found
    found.close()


def worker_pid(client: Client) -> int:
    """Return the process of a client's only worker, once it is there."""
    client.wait_for_workers(1)
    (pid,) = client.run(os.getpid).values()
    return int(pid)


def test_an_idle_cluster_ends(clusters: EmbeddedClusters) -> None:
    """After a while without a fit; the next one has another."""
    with clusters.client(1) as client:
        pid = worker_pid(client)
    assert is_alive(pid)

    wait_until(lambda: not is_alive(pid))

    with clusters.client(1) as client:
        assert worker_pid(client) != pid


def test_fits_at_the_same_time_have_clusters_of_their_own() -> None:
    """Each fit has as many slots as it asked for; one cluster is kept of them."""
    clusters = EmbeddedClusters()
    both, pids = threading.Barrier(2, timeout=WAIT_S), []

    def fit() -> None:
        with clusters.client(1) as client:
            pids.append(worker_pid(client))
            both.wait()

    threads = [threading.Thread(target=fit) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)

    assert len(set(pids)) == 2
    assert sum(map(is_alive, pids)) == 1
    clusters.close()
    assert not any(map(is_alive, pids))


def test_what_a_fit_left_in_memory_goes_at_once(clusters: EmbeddedClusters) -> None:
    """Its slots end, and their events in the scheduler with them."""
    from sklearn.model_selection import GridSearchCV
    from sklearn.naive_bayes import GaussianNB

    from dask_hpsearch import DaskSearchCV
    from tests.estimators import flowers

    X, y = flowers()
    with clusters.client(2) as client:
        search = GridSearchCV(GaussianNB(), {"var_smoothing": [1e-9, 1e-6]}, cv=2)
        DaskSearchCV(search, client=client).fit(X, y)
        (slots,) = client.run(slot_pids).values()
        worker = worker_pid(client)
        scheduler = client.cluster.scheduler
        assert slots

    wait_until(lambda: not any(map(is_alive, slots)))
    assert is_alive(worker)
    assert not [
        topic for topic in scheduler._broker.get_events() if "dask-hpsearch" in topic
    ]


def test_a_cluster_without_a_worker_is_not_used_again(
    clusters: EmbeddedClusters,
) -> None:
    """Nor one whose fit ended with an error of the cluster's."""
    pids = []

    def fit() -> None:
        with clusters.client(1) as client:
            pids.append(worker_pid(client))
            raise NoWorkersError

    with pytest.raises(NoWorkersError):
        fit()
    assert not any(map(is_alive, pids))

    with clusters.client(1) as client:
        client.cluster.scale(0)
        wait_until(lambda: not client.cluster.scheduler.workers)
    with clusters.client(1) as client:
        assert is_alive(worker_pid(client))
