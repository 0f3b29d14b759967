"""An MLflow server of its own package, with SQLite, on loopback."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.exports.mlflow_server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session", autouse=True)
def no_telemetry() -> Iterator[None]:
    """MLflow sends nothing, from no process that tests start."""
    before = dict(os.environ)
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that tests share; each has an experiment of its own."""
    with Server(tmp_path_factory.mktemp("mlflow")) as server:
        yield server
