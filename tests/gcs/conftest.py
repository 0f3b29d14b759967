"""A bucket, and a proxy of its own for every test, to be made faulty."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dask_hpsearch.stores.gcs import GcsStore, open_bucket
from dask_hpsearch.stores.gcs_bucket import Patience
from tests.gcs.held import new_bucket
from tests.gcs.proxy import Proxy, proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

HASTY = Patience(
    connect_s=5.0,
    read_s=0.5,
    deadline_s=8.0,
    first_delay_s=0.02,
    longest_delay_s=0.2,
)


@pytest.fixture
def faulty(gcs: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy of this test alone, which all ``gs://`` URLs mean."""
    with proxy(gcs.port) as own:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", own.url)
        yield own


@pytest.fixture
def bucket(gcs: Proxy) -> str:
    """A bucket of this test alone."""
    return new_bucket(gcs.port)


@pytest.fixture
def store(faulty: Proxy, bucket: str) -> GcsStore:
    """A folder of that bucket, through the proxy, with little patience."""
    return open_bucket(f"{bucket}/runs", patience=HASTY)
