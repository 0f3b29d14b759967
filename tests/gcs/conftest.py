"""A bucket for every test, and a store in it with little patience."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dask_hpsearch.stores.gcs import GcsStore, open_bucket
from dask_hpsearch.stores.gcs_bucket import Patience
from tests.gcs.held import new_bucket

if TYPE_CHECKING:
    from tests.gcs.proxy import Proxy

HASTY = Patience(
    connect_s=5.0,
    read_s=0.5,
    deadline_s=8.0,
    first_delay_s=0.02,
    longest_delay_s=0.2,
)


@pytest.fixture
def bucket(gcs: Proxy) -> str:
    """A bucket of this test alone."""
    return new_bucket(gcs.port)


@pytest.fixture
def store(faulty: Proxy, bucket: str) -> GcsStore:
    """A folder of that bucket, through the proxy, with little patience."""
    return open_bucket(f"{bucket}/runs", patience=HASTY, chunk_bytes=8 * 2**20)
