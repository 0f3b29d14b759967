"""Errors of storages: each becomes one that says the way out."""

from __future__ import annotations

import errno

import pytest

from dask_hpsearch.exceptions import (
    ObjectNotFoundError,
    StoreError,
    StoreFullError,
    StorePermissionError,
)
from dask_hpsearch.stores.errors import map_storage_errors

ANY = (Exception,)


class HttpError(OSError):
    """As gcsfs raises it."""

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.code = code


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (OSError(errno.ENOSPC, "full"), StoreFullError, "no space left to write /a"),
        (OSError(errno.EROFS, "ro"), StorePermissionError, "not allowed to write /a"),
        (OSError(errno.EIO, "broken"), StoreError, r"cannot write /a \(broken\)"),
    ],
)
def test_an_error_of_a_folder_names_the_way_out(
    error: OSError, kind: type[StoreError], text: str
) -> None:
    """A writer may choose another folder."""
    with (
        pytest.raises(kind, match=f"{text}.*store=") as raised,
        map_storage_errors("write", "/a"),
    ):
        raise error

    assert raised.value.__cause__ is error


def test_a_reader_is_not_sent_to_another_folder() -> None:
    """Its data are where they are."""
    with (
        pytest.raises(StorePermissionError, match="check its owner") as raised,
        map_storage_errors("read", "/a"),
    ):
        raise PermissionError(errno.EACCES, "no")

    assert "store=" not in str(raised.value)


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (HttpError("Forbidden: x"), StorePermissionError, r"storage\.objects\.get"),
        (HttpError("no", 401), StorePermissionError, "gcloud auth application-default"),
        (ConnectionError("lost"), StoreError, "storage is reachable"),
    ],
)
def test_an_error_of_gcsfs_is_one_of_the_bucket(
    error: Exception, kind: type[StoreError], text: str
) -> None:
    """It has exceptions of several libraries."""
    pytest.importorskip("google.api_core")
    with (
        pytest.raises(kind, match=text),
        map_storage_errors("read", "gs://bucket/a", foreign=ANY),
    ):
        raise error


@pytest.mark.parametrize("place", ["gs://bucket/a", "/a"])
def test_other_errors_pass_through(place: str) -> None:
    """A fault of the program, and an error that was mapped before."""
    for error in (LookupError("a bug"), ObjectNotFoundError("no object")):
        with pytest.raises(type(error)) as raised, map_storage_errors("read", place):
            raise error

        assert raised.value is error


def test_a_local_error_during_a_download_passes_through() -> None:
    """A full disk here is no error of the bucket."""
    with (
        pytest.raises(OSError, match="full") as raised,
        map_storage_errors("read", "gs://bucket/a"),
    ):
        raise OSError(errno.ENOSPC, "full")

    assert not isinstance(raised.value, StoreError)
