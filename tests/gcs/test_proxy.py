"""The proxy itself: conditions that the emulator ignores, and faults as they are set."""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING, Any

import pytest
import requests
from google.api_core import exceptions
from google.cloud import storage

from tests.gcs.faults import Fault, Faults
from tests.gcs.held import content_of, held_by, put
from tests.gcs.requests import parse

if TYPE_CHECKING:
    from tests.gcs.proxy import Proxy

LARGE = bytes(9_000_000)


@pytest.fixture
def plain(faulty: Proxy, bucket: str) -> Any:
    """The bucket, as Google's own client sees it through the proxy."""
    with storage.Client(project="test") as client:
        yield client.bucket(bucket)


@pytest.mark.parametrize("content", [b"1", LARGE], ids=["at once", "in chunks"])
def test_an_upload_is_conditional(
    content: bytes, plain: Any, faulty: Proxy, bucket: str
) -> None:
    """Whichever way it goes."""
    plain.blob("a").upload_from_file(
        io.BytesIO(content), size=len(content), if_generation_match=0
    )
    with pytest.raises(exceptions.PreconditionFailed):
        plain.blob("a").upload_from_file(
            io.BytesIO(content), size=len(content), if_generation_match=0
        )

    assert held_by(faulty.port, bucket) == {"a": content}
    assert faulty.count("begin") == (2 if content == LARGE else 0)


def test_downloads_and_deletes_are_conditional(
    plain: Any, faulty: Proxy, bucket: str
) -> None:
    """On the generation that is there."""
    plain.blob("a").upload_from_string(b"1")
    old = plain.get_blob("a").generation
    put(faulty.port, bucket, "a", b"2")
    new = plain.get_blob("a").generation
    assert new != old

    with pytest.raises(exceptions.PreconditionFailed):
        plain.blob("a").download_as_bytes(if_generation_match=old)
    with pytest.raises(exceptions.NotFound):
        plain.blob("a", generation=old).download_as_bytes()
    with pytest.raises(exceptions.PreconditionFailed):
        plain.blob("a").delete(if_generation_match=old)
    assert content_of(faulty.port, bucket, "a") == b"2"

    assert plain.blob("a", generation=new).download_as_bytes() == b"2"
    plain.blob("a").delete(if_generation_match=new)
    assert held_by(faulty.port, bucket) == {}


def test_an_upload_that_has_ended_says_so_again(
    plain: Any, faulty: Proxy, bucket: str
) -> None:
    """Whoever did not hear it asks a second time, and is not refused."""
    faulty.faults.set(Fault("lose", kinds=("chunk",)))

    plain.blob("a").upload_from_file(io.BytesIO(LARGE), if_generation_match=0)

    assert held_by(faulty.port, bucket) == {"a": LARGE}
    assert faulty.count("chunk", name="a") == 2


def test_errors_are_told_as_google_does(plain: Any, faulty: Proxy, bucket: str) -> None:
    """The client makes its own exceptions of them."""
    with pytest.raises(exceptions.NotFound, match=f"No such object: {bucket}/a"):
        plain.blob("a").reload()
    with pytest.raises(exceptions.NotFound, match="bucket does not exist"):
        plain.client.bucket("no-such-bucket").blob("a").reload()
    faulty.faults.set(Fault("status", status=403, message="Not you."))
    with pytest.raises(exceptions.Forbidden, match="Not you"):
        plain.blob("a").reload()


@pytest.mark.parametrize(
    ("action", "raised"),
    [
        ("hang", requests.ReadTimeout),
        ("reset", requests.ConnectionError),
        ("lose", requests.ConnectionError),
        ("cut", requests.exceptions.ChunkedEncodingError),
    ],
)
def test_a_fault_is_what_it_says(
    action: Any, raised: type[Exception], plain: Any, faulty: Proxy
) -> None:
    """The client, without its repetitions, sees the connection break or time out."""
    plain.blob("a").upload_from_string(bytes(1000))
    faulty.faults.set(Fault(action, kinds=("download",)))

    with pytest.raises(raised):
        plain.blob("a").download_as_bytes(retry=None, timeout=0.3)

    assert plain.blob("a").download_as_bytes() == bytes(1000)


def test_latency_is_added_to_every_request(plain: Any, faulty: Proxy) -> None:
    """At least as much."""
    faulty.latency_s = 0.05
    before = time.monotonic()

    plain.blob("a").upload_from_string(b"")
    plain.blob("a").reload()

    assert time.monotonic() - before >= 0.1


def test_faults_befall_what_they_are_for() -> None:
    """So many requests of their kinds and names, the first that fits."""
    faults = Faults()
    two = Fault("status", kinds=("list", "stat"), name="jour", times=2)
    faults.set(two, Fault("reset", lasts_s=-1.0), Fault("lose", times=None))

    taken = [faults.take("list", "journal/1") for _ in range(3)]

    assert [one and one.action for one in taken] == ["status", "status", "lose"]
    assert faults.n_taken() == 3
    faults.set()
    assert faults.take("list", "journal/1") is None


@pytest.mark.parametrize(
    ("method", "target", "kind", "name"),
    [
        ("GET", "/storage/v1/b/b/o?prefix=a", "list", ""),
        ("GET", "/storage/v1/b/b/o/a%2Fb", "stat", "a/b"),
        ("GET", "/storage/v1/b/b/o/a%2Fb?alt=media", "download", "a/b"),
        ("GET", "/download/storage/v1/b/b/o/a?alt=media", "download", "a"),
        ("DELETE", "/storage/v1/b/b/o/a", "delete", "a"),
        ("POST", "/upload/storage/v1/b/b/o?uploadType=resumable", "begin", "n"),
        ("PUT", "/upload/resumable/1?upload_id=1", "chunk", ""),
        ("GET", "/storage/v1/b/b", "other", ""),
    ],
)
def test_requests_are_told_apart(
    method: str, target: str, kind: str, name: str
) -> None:
    """As Google's client and gcsfs write them."""
    request = parse(method, target, b'{"name": "n"}')

    assert (request.kind, request.name) == (kind, name)
