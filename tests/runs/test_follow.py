"""A fit that is driven by a Job: what who looks on sees, and what Ctrl-C does."""

from __future__ import annotations

import contextlib
import http.server
import io
import json
import os
import pickle
import signal
import threading
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import SearchRun
from dask_hpsearch.exceptions import PodStartError, SearchStoppedWarning
from tests.estimators import Deed, flowers, seen
from tests.gcs.held import new_bucket, put
from tests.oracle.structure import difference
from tests.processes import script, wait_until
from tests.runs.encrypted import encrypted, ended
from tests.terminal import Terminal

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from dask_hpsearch.clusters.kubernetes.driver_job import DriverJobSpec
    from tests.gcs.proxy import Proxy
    from tests.runs.encrypted import Encrypted

X, y = flowers()
N_CANDIDATES, SPLITS = 9, 2
FITS = N_CANDIDATES * SPLITS
HOLD_AFTER = 11  # more than half of the fits
# A notebook, on a cluster that takes Jobs: the Job is left for the test to start.
NOTEBOOK = """
import pickle, warnings
from pathlib import Path
from dask_hpsearch import DaskSearchCV
from tests.runs.encrypted import TakesJobs, connected

class Cluster(TakesJobs):
    def start_driver(self, job):
        Path("job.part").write_bytes(pickle.dumps(job))
        Path("job.part").rename("job.pkl")
        return {{"kubeconfig": str(Path("kubeconfig").resolve()), "namespace": "nowhere"}}

search = pickle.loads(Path("search.pkl").read_bytes())
client = connected({address!r}, Path({certificates!r}))
client.cluster = Cluster()
own = DaskSearchCV(search, client=client, store="{bucket}/runs", progress=True)
left = {{}}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    try:
        own.fit("{bucket}/X.npy", "{bucket}/y.npy")
        left |= {{"search": own.search_, "stopped": own.stopped_}}
    except BaseException as error:
        left |= {{"error": type(error), "message": str(error)}}
        left["notes"] = getattr(error, "__notes__", [])
left["warnings"] = [(one.category, one.filename) for one in caught]
client.cluster = None
client.close()
Path("left.pkl").write_bytes(pickle.dumps(left))
"""


@pytest.fixture(scope="module")
def place(gcs: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encrypted]:
    """A scheduler and a worker that know what ``gs://`` means."""
    with encrypted(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture(scope="module")
def bucket(gcs: Proxy) -> str:
    """A bucket with data."""
    name = new_bucket(gcs.port)
    for what, values in (("X", X), ("y", y)):
        content = io.BytesIO()
        np.save(content, values)
        put(gcs.port, name, f"{what}.npy", content.getvalue())
    return f"gs://{name}"


class Notebook:
    """A process that fits, in a terminal, and the driver that its Job is."""

    def __init__(self, place: Encrypted, bucket: str, folder: Path) -> None:
        self._place = place
        self._folder = folder
        self._bucket = bucket
        self.log = folder / "fits.log"
        self.terminal = Terminal()
        self._processes: list[subprocess.Popen[Any]] = []

    def fit(self, **options: Any) -> None:
        """Begin to fit; wait until a Job is ordered."""
        deed = Deed(log=str(self.log), **options)
        own = GridSearchCV(deed, {"number": list(range(N_CANDIDATES))}, cv=SPLITS)
        (self._folder / "search.pkl").write_bytes(pickle.dumps(own))
        text = NOTEBOOK.format(
            address=self._place.address,
            certificates=str(self._place.certificates),
            bucket=self._bucket,
        )
        self.process = script(text, self._folder, terminal=self.terminal.stream)
        self._processes.append(self.process)
        path = self._folder / "job.pkl"
        wait_until(lambda: path.exists() or self.process.poll() is not None)
        self._job: DriverJobSpec = pickle.loads(path.read_bytes())
        self.run = SearchRun.attach(self._job.request["run"])

    def start_driver(self) -> subprocess.Popen[bytes]:
        """Do what Kubernetes does with the Job."""
        driver = self._place.driver(self._job, self._folder / "pod")
        self._processes.append(driver)
        return driver

    def waits(self) -> bool:
        """Whether all slots hold."""
        return len(seen(self.log, "wait")) == SPLITS

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        os.killpg(self.process.pid, signal.SIGINT)

    def left(self) -> dict[str, Any]:
        """Wait for the end; return what the notebook has then."""
        assert self.process.wait(60) == 0, self.terminal.text
        found: dict[str, Any] = pickle.loads((self._folder / "left.pkl").read_bytes())
        return found

    def close(self) -> None:
        """End what is left."""
        for process in self._processes:
            process.kill()
            process.communicate()
        self.terminal.close()


def kubeconfig_for(server: str) -> dict[str, Any]:
    """Say where Kubernetes is."""
    return {
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "none"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }


@pytest.fixture
def notebook(place: Encrypted, bucket: str, tmp_path: Path) -> Iterator[Notebook]:
    """A notebook's process."""
    where = kubeconfig_for("http://127.0.0.1:1")  # Kubernetes cannot be asked
    (tmp_path / "kubeconfig").write_text(json.dumps(where))
    notebook = Notebook(place, bucket, tmp_path)
    try:
        yield notebook
    finally:
        notebook.close()


def test_ctrl_c_ends_a_fit_elsewhere_with_what_it_has(notebook: Notebook) -> None:
    """Until then its progress is shown as it is; the notebook gets the partial result."""
    notebook.fit(hold_after=HOLD_AFTER)
    driver = notebook.start_driver()
    wait_until(notebook.waits)
    done = len(seen(notebook.log, "end"))
    assert 0 < done < FITS
    notebook.terminal.wait_for(f"{done}/{FITS} fits")
    notebook.terminal.wait_for("1 worker, 2 slots (2 busy)")

    notebook.log.write_text("")  # the refit is not held
    notebook.interrupt()
    left = notebook.left()

    assert left["stopped"] == "interrupted"
    own_script = str(notebook._folder / "script.py")
    assert left["warnings"] == [(SearchStoppedWarning, own_script)]
    partial = left["search"]
    assert 0 < len(partial.cv_results_["params"]) < N_CANDIDATES
    assert partial.predict(X).shape == y.shape
    summary = f"Search stopped (interrupted): {done} of {FITS} fits"
    shown = notebook.terminal.text.splitlines()
    assert any(summary in line for line in shown[-4:]), shown[-6:]
    assert ended(driver) == 0
    assert notebook.run.state == "stopped"
    assert difference(notebook.run.result(), partial) is None


def test_a_second_ctrl_c_leaves_a_fit_elsewhere_to_itself(notebook: Notebook) -> None:
    """The notebook is free at once, and is told where the run is."""
    notebook.fit(hold_after=HOLD_AFTER)
    driver = notebook.start_driver()
    wait_until(notebook.waits)
    notebook.interrupt()
    wait_until(
        lambda: any(one["pid"] == driver.pid for one in seen(notebook.log, "wait"))
    )

    notebook.interrupt()
    left = notebook.left()

    assert left["error"] is KeyboardInterrupt
    assert notebook.run.url in "".join(left["notes"])
    assert driver.poll() is None
    assert notebook.run.state == "running"


def test_ctrl_c_before_any_candidate_goes_on_as_it_came(notebook: Notebook) -> None:
    """There is nothing to hand back; the driver ends all the same."""
    notebook.fit(gate="never")
    driver = notebook.start_driver()
    wait_until(notebook.waits)

    notebook.interrupt()
    left = notebook.left()

    assert (left["error"], left["notes"]) == (KeyboardInterrupt, [])
    assert ended(driver) == 0
    assert "Search stopped (interrupted)" in notebook.terminal.text


def test_ctrl_c_before_the_driver_has_begun_gives_the_run_up(
    notebook: Notebook,
) -> None:
    """Nobody waits for a node to stop a search; the driver that comes does nothing."""
    notebook.fit()
    notebook.terminal.wait_for("0/0 fits")

    notebook.interrupt()
    left = notebook.left()

    assert (left["error"], left["notes"]) == (KeyboardInterrupt, [])
    assert ended(notebook.start_driver()) == 0
    assert notebook.run.state == "cancelled"
    assert seen(notebook.log, "start") == []


class NoRoom(http.server.BaseHTTPRequestHandler):
    """As much of Kubernetes as is asked about a Job whose pod is refused."""

    protocol_version = "HTTP/1.1"
    deleted: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        """Tell the version; list no pod, and the event that says why."""
        event = {"reason": "FailedCreate", "message": "exceeded quota: team"}
        version = {"major": "1", "minor": "34", "gitVersion": "v1.34.0"}
        self._answer({"items": [event] if "/events" in self.path else [], **version})

    def do_DELETE(self) -> None:
        """Delete a Job."""
        self.deleted.append(self.path)
        self._answer({})

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self, content: dict[str, Any]) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def no_room(notebook: Notebook, tmp_path: Path) -> Iterator[type[NoRoom]]:
    """The notebook's Kubernetes, which has no room for a driver."""
    NoRoom.deleted.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), NoRoom) as server:
        threading.Thread(target=server.serve_forever).start()
        where = kubeconfig_for(f"http://127.0.0.1:{server.server_port}")
        (tmp_path / "kubeconfig").write_text(json.dumps(where))
        yield NoRoom
        server.shutdown()


def test_a_fit_whose_driver_cannot_start_is_told_why(
    notebook: Notebook, no_room: type[NoRoom]
) -> None:
    """Nothing is left of it, neither for who looks on nor in Kubernetes."""
    notebook.fit()
    left = notebook.left()

    assert left["error"] is PodStartError
    assert "exceeded quota: team" in left["message"]
    assert notebook.run.url in "".join(left["notes"])
    assert notebook.run.state == "cancelled"
    [job] = no_room.deleted
    assert notebook.run.run_id in job


@pytest.mark.usefixtures("no_room")
def test_who_waits_a_second_at_a_time_is_told_as_well(notebook: Notebook) -> None:
    """As `dask-hpsearch attach` does, which shows the progress in between."""
    notebook.fit()
    notebook.terminal.wait_for("0/0 fits")
    notebook.process.kill()

    def look() -> None:
        with contextlib.suppress(TimeoutError):
            notebook.run.wait(1.0)

    with pytest.raises(PodStartError, match="exceeded quota: team"):
        wait_until(look)
