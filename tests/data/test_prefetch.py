"""Objects that are written ahead: each once, in the background, and found when put."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from dask_hpsearch.data import DataStore
from dask_hpsearch.data.prefetch import EarlyUpload
from dask_hpsearch.exceptions import StorePermissionError
from dask_hpsearch.stores import open_store
from tests.gcs.faults import Fault
from tests.gcs.held import names_in, new_bucket

if TYPE_CHECKING:
    from pathlib import Path

    from tests.gcs.proxy import Proxy


def test_what_was_put_ahead_is_found(faulty: Proxy) -> None:
    """However many put it at the same moment, it is sent once."""
    bucket = new_bucket(faulty.port)
    with DataStore.of(open_store(f"gs://{bucket}")) as data_store:
        ahead = EarlyUpload(data_store)
        ahead([f"split {number}" for number in range(5)], what="a split")
        together = threading.Barrier(4, timeout=60)

        def put(_: int) -> list[str]:
            together.wait()
            return [
                data_store.put(f"split {n}", what="a split").digest for n in range(5)
            ]

        with ThreadPoolExecutor(4) as threads:
            digests = list(threads.map(put, range(4)))
        ahead.close()

    assert digests == digests[:1] * 4
    assert names_in(faulty.port, bucket) == sorted(f"data/{one}" for one in digests[0])
    assert faulty.count("upload") == 5


def test_what_could_not_be_put_ahead_is_told_when_it_is_put(faulty: Proxy) -> None:
    """Not before: nobody has asked for it yet."""
    bucket = new_bucket(faulty.port)
    no = "You do not have storage.objects.create access."
    faulty.faults.set(
        Fault("status", kinds=("upload",), status=403, message=no, times=None)
    )
    with DataStore.of(open_store(f"gs://{bucket}")) as data_store:
        ahead = EarlyUpload(data_store)
        ahead(["split"], what="a split")
        ahead.close()

        with pytest.raises(StorePermissionError, match=r"storage\.objects\.create"):
            data_store.put("split", what="a split")


def test_a_home_that_is_near_is_left_alone(tmp_path: Path) -> None:
    """There, writing takes no longer than handing it to another thread."""
    with DataStore(tmp_path) as data_store:
        ahead = EarlyUpload(data_store)
        ahead(["split"], what="a split")
        ahead.close()

        assert data_store.digests() == []
