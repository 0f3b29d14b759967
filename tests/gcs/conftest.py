"""A bucket for every test, and a store in it with little retry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dask_hpsearch.stores.gcs import GcsStore, open_bucket
from dask_hpsearch.stores.retry import Retry
from tests.gcs.held import new_bucket

if TYPE_CHECKING:
    from tests.gcs.proxy import Proxy

HASTY = Retry(
    connect_timeout=5.0,
    timeout=0.5,
    deadline=8.0,
    initial=0.02,
    maximum=0.2,
)


@pytest.fixture
def bucket(gcs: Proxy) -> str:
    """A bucket of this test alone."""
    return new_bucket(gcs.port)


@pytest.fixture
def store(faulty: Proxy, bucket: str) -> GcsStore:
    """A folder of that bucket, through the proxy, with little retry."""
    return open_bucket(f"{bucket}/runs", retry=HASTY, chunk_bytes=8 * 2**20)
