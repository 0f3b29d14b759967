"""A project in which a GKE cluster can be made, and Kubernetes never answers."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tests.fakes.cloud import Cloud, cloud
from tests.fakes.gke import Place
from tests.fakes.tokens import token_service
from tests.gcs.held import new_bucket

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.gcs.proxy import Proxy


@pytest.fixture
def project(
    gcs: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cloud]:
    """A project whose GKE clusters have a Kubernetes API that never answers."""
    monkeypatch.setenv("DASK_HPSEARCH_HOME", str(tmp_path / "home"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = taken.getsockname()[1]
    nowhere = f"127.0.0.1:{nobody}"
    place = Place(dns=nowhere, address=nowhere)
    with token_service("token") as tokens, cloud(gcs.port, place) as found:
        file = tokens.credentials(tmp_path)
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
        found.gke.durations = dict.fromkeys(found.gke.durations, 8.0)
        yield found


@pytest.fixture
def bucket(gcs: Proxy) -> str:
    """A bucket of this test alone."""
    return new_bucket(gcs.port)
