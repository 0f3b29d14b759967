"""Champions in the registry of a real MLflow server, with SQLite, on loopback."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from dask_hpsearch import (
    champion_card,
    champion_history,
    load_champion,
    promote,
)
from dask_hpsearch.exceptions import (
    ChampionNotFoundError,
    StoreError,
    StoreNameError,
    UntrustedObjectError,
)
from dask_hpsearch.models.champions import open_champions
from tests.models.contenders import X, guess, y
from tests.models.test_champions import new_version
from tests.processes import ROOT, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FEW: dict[str, Any] = {"n_resamples": 100}
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}

pytestmark = [
    # Of MLflow and what it imports.
    pytest.mark.filterwarnings("default::DeprecationWarning"),
    pytest.mark.filterwarnings("default::FutureWarning"),
    pytest.mark.filterwarnings("default::UserWarning"),
    pytest.mark.filterwarnings("default::ResourceWarning"),
]


def free_port() -> int:
    """Return a port of the loopback device."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    """Whether the server is ready."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.suppress(OSError), contextlib.closing(connection):
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a server."""
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    command = [
        *(sys.executable, "-m", "mlflow", "server"),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db"),
        *("--artifacts-destination", str(folder / "artifacts")),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | QUIET | {"PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_until(lambda: process.poll() is not None or answers(port))
        assert process.poll() is None, (folder / "log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def url(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A new model of the registry."""
    for name, value in (QUIET | {"MLFLOW_TRACKING_URI": server}).items():
        monkeypatch.setenv(name, value)
    mlflow = pytest.importorskip("mlflow")
    mlflow.set_tracking_uri(server)
    yield f"models:/{tmp_path.name}"
    mlflow.set_tracking_uri(None)


@pytest.mark.timeout(300)
def test_the_alias_names_the_best_model(url: str) -> None:
    """A worse one gets no version; MLflow's own tools load the champion by its alias."""
    import mlflow.sklearn

    with pytest.raises(ChampionNotFoundError, match="make the first one with promote"):
        load_champion(url)
    assert promote(guess(0.6), X, y, to=url).version == 1
    assert not promote(guess(0.5), X, y, to=url, **FEW).promoted
    found = promote(guess(0.8), X, y, to=url, **FEW)

    assert (found.promoted, found.version) == (True, 2)
    assert load_champion(url).right == 0.8
    assert load_champion(url, version=1).right == 0.6
    assert mlflow.sklearn.load_model(f"{url}@champion").right == 0.8
    cards = champion_history(url)
    assert [(card.version, card.replaced) for card in cards] == [(1, None), (2, 1)]
    assert champion_card(url).scores["challenger"] == pytest.approx(0.8)


@pytest.mark.timeout(300)
def test_a_champion_that_was_replaced_meanwhile_stays(url: str) -> None:
    """The version that came late is deleted."""
    import mlflow

    promote(guess(0.6), X, y, to=url)
    champions: Any = open_champions(url)
    first, second = (new_version(right, champions) for right in (0.7, 0.8))

    assert champions.replace(1, first) == 2
    assert champions.replace(1, second) is None

    assert load_champion(url).right == 0.7
    kept = mlflow.MlflowClient().search_model_versions(f"name='{champions.name}'")
    assert sorted(int(one.version) for one in kept) == [1, 2]


@pytest.mark.timeout(300)
def test_an_unsigned_or_altered_version_is_refused(url: str, tmp_path: Path) -> None:
    """One that was registered by other means, or whose artifact was replaced."""
    import mlflow

    promote(guess(0.6), X, y, to=url)
    client, name = mlflow.MlflowClient(), url.removeprefix("models:/")
    run_id = client.get_model_version(name, "1").run_id
    (tmp_path / "model.pkl").write_bytes(b"a pickle")
    client.log_artifact(run_id, str(tmp_path / "model.pkl"), "dask_hpsearch")
    with pytest.raises(UntrustedObjectError, match="was altered after it was promoted"):
        load_champion(url)

    run = client.create_run("0")
    made = client.create_model_version(
        name, f"{run.info.artifact_uri}/model", run.info.run_id
    )
    client.set_registered_model_alias(name, "champion", made.version)
    with pytest.raises(UntrustedObjectError, match="was not promoted by dask-hpsearch"):
        promote(guess(0.8), X, y, to=url, **FEW)


@pytest.mark.timeout(300)
def test_what_is_no_model_or_no_server_is_an_error(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the way out."""
    import mlflow

    with pytest.raises(StoreNameError, match="must be models:/NAME"):
        load_champion("models:/churn@champion")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(StoreError, match="MLFLOW_TRACKING_URI"):
        load_champion(url)
