"""What goes wrong between a store and its bucket; each test looks at what the bucket holds."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from dask_hpsearch.exceptions import (
    BucketNotFoundError,
    CorruptObjectError,
    MissingExtraError,
    ObjectNotFoundError,
    StoreError,
    StoreNameError,
    StorePermissionError,
)
from dask_hpsearch.stores import open_store
from dask_hpsearch.stores.gcs import GcsStore, open_bucket
from dask_hpsearch.stores.retry import Retry
from tests.gcs.conftest import HASTY
from tests.gcs.faults import Fault
from tests.gcs.held import held_by, names_in, put, remove, remove_bucket
from tests.processes import ROOT, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.gcs.proxy import Proxy

SMALL = bytes(range(256)) * 40
LARGE = os.urandom(9_000_001)  # goes in two chunks
UPLOADS = ("upload", "begin", "chunk")

passing = pytest.mark.parametrize(
    ("faults", "content"),
    [
        ([Fault("status", times=4)], SMALL),
        ([Fault("status", times=4)], LARGE),
        ([Fault("status", status=429, message="Rate limited.", times=4)], SMALL),
        ([Fault("status", status=500), Fault("status", status=502)], SMALL),
        ([Fault("status", times=None, lasts_s=0.5)], SMALL),
        ([Fault("hang")], SMALL),
        ([Fault("hang", kinds=("chunk",))], LARGE),
        ([Fault("reset", times=3)], SMALL),
        ([Fault("reset", times=3)], LARGE),
        ([Fault("lose")], SMALL),
        ([Fault("lose", kinds=("upload", "chunk", "delete"), times=2)], SMALL),
        ([Fault("lose", kinds=("begin",)), Fault("lose", kinds=("chunk",))], LARGE),
        ([Fault("lose", kinds=("chunk",), times=2)], LARGE),
    ],
    ids=lambda value: None if isinstance(value, list) else str(len(value)),
)
sizes = pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])


@passing
def test_what_passes_is_survived(
    faults: list[Fault],
    content: bytes,
    store: GcsStore,
    faulty: Proxy,
    bucket: str,
    tmp_path: Path,
) -> None:
    """Sent once, whole; fetched, listed and deleted as if nothing had been."""
    (tmp_path / "here").write_bytes(content)

    faulty.faults.set(*faults)
    assert store.send("a", tmp_path / "here") is True
    assert faulty.faults.n_taken() > 0
    assert held_by(faulty.port, bucket) == {"runs/a": content}

    faulty.faults.set(*faults)
    store.fetch("a", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content
    faulty.faults.set(*faults)
    assert [one.nbytes for one in store.list()] == [len(content)]
    faulty.faults.set(*faults)
    store.delete("a")
    assert names_in(faulty.port, bucket) == []


def test_an_upload_that_is_forgotten_is_known_by_its_object(
    faulty: Proxy, bucket: str, tmp_path: Path
) -> None:
    """It was stored, its answer lost, and nobody knows of it any more."""
    store = open_bucket(f"{bucket}/runs", retry=HASTY)  # all in one chunk
    (tmp_path / "here").write_bytes(LARGE)
    faulty.forgets = True
    faulty.faults.set(Fault("lose", kinds=("chunk",)))

    assert store.send("a", tmp_path / "here") is True

    assert held_by(faulty.port, bucket) == {"runs/a": LARGE}
    assert faulty.count("begin") == 1


def test_what_is_there_is_not_sent_again(
    store: GcsStore, faulty: Proxy, bucket: str, tmp_path: Path
) -> None:
    """Nothing large goes on its way to be refused in the end."""
    (tmp_path / "here").write_bytes(LARGE)
    put(faulty.port, bucket, "runs/a", b"first")

    assert store.send("a", tmp_path / "here") is False

    assert faulty.count("upload", "begin", "chunk") == 0
    assert held_by(faulty.port, bucket) == {"runs/a": b"first"}


@sizes
def test_a_lost_answer_is_no_success_of_another(
    content: bytes, store: GcsStore, faulty: Proxy, bucket: str, tmp_path: Path
) -> None:
    """Who was first stays first, whatever the second does not hear; even if it is equal."""
    put(faulty.port, bucket, "runs/a", b"first")
    put(faulty.port, bucket, "runs/b", content)
    (tmp_path / "here").write_bytes(content)

    for name in ("a", "b"):
        faulty.faults.set(Fault("lose", kinds=UPLOADS, times=2))
        assert store.send(name, tmp_path / "here") is False

    assert held_by(faulty.port, bucket) == {"runs/a": b"first", "runs/b": content}


@pytest.mark.parametrize("action", ["flip", "cut", "shorten"])
@sizes
def test_what_arrives_damaged_is_asked_for_again(
    action: str,
    content: bytes,
    store: GcsStore,
    faulty: Proxy,
    bucket: str,
    tmp_path: Path,
) -> None:
    """A flipped byte and a missing half are noticed, wherever they are."""
    put(faulty.port, bucket, "runs/a", content)

    faulty.faults.set(Fault(action, kinds=("download",)))  # type: ignore[arg-type]
    assert store.read("a") == content
    assert faulty.faults.n_taken() == 1
    faulty.faults.set(Fault(action, kinds=("download",)))  # type: ignore[arg-type]
    store.fetch("a", tmp_path / "back")

    assert faulty.faults.n_taken() == 1
    assert (tmp_path / "back").read_bytes() == content


def test_a_flipped_byte_after_an_interruption_is_noticed(
    store: GcsStore, faulty: Proxy, bucket: str
) -> None:
    """The rest of a download that was interrupted is checked with its beginning."""
    put(faulty.port, bucket, "runs/a", LARGE)
    faulty.faults.set(
        Fault("cut", kinds=("download",)), Fault("flip", kinds=("download",))
    )

    assert store.read("a") == LARGE

    assert faulty.faults.n_taken() == 2


@pytest.mark.parametrize("action", ["flip", "shorten"])
def test_what_always_arrives_damaged_is_an_error_and_no_file(
    action: str, store: GcsStore, faulty: Proxy, bucket: str, tmp_path: Path
) -> None:
    """Nothing wrong is ever handed over."""
    put(faulty.port, bucket, "runs/a", SMALL)
    always = Fault(action, kinds=("download",), times=None)  # type: ignore[arg-type]
    faulty.faults.set(always)

    with pytest.raises(CorruptObjectError, match=f"gs://{bucket}/runs/a arrived twice"):
        store.read("a")
    with pytest.raises(CorruptObjectError):
        store.fetch("a", tmp_path / "back")

    assert list(tmp_path.iterdir()) == []


@sizes
def test_what_is_damaged_on_the_way_there_is_sent_again(
    content: bytes, store: GcsStore, faulty: Proxy, bucket: str, tmp_path: Path
) -> None:
    """The storage is told the checksum, and refuses what differs; for ever: an error."""
    (tmp_path / "here").write_bytes(content)

    faulty.faults.set(Fault("garble", kinds=("upload", "chunk")))
    assert store.send("a", tmp_path / "here") is True
    assert faulty.faults.n_taken() == 1
    faulty.faults.set(Fault("garble", kinds=("upload", "chunk"), times=None))
    with pytest.raises(CorruptObjectError, match="did not arrive as it was sent"):
        store.send("b", tmp_path / "here")

    assert held_by(faulty.port, bucket) == {"runs/a": content}


def test_slow_answers_are_waited_for(
    store: GcsStore, faulty: Proxy, bucket: str
) -> None:
    """As long as something comes, it is no time-out."""
    put(faulty.port, bucket, "runs/a", SMALL)
    faulty.faults.set(Fault("slow", kinds=("download",), pause_s=0.05))

    assert store.read("a") == SMALL

    assert faulty.count("download") == 1


def test_a_bucket_that_never_answers_is_an_error_in_the_end(
    faulty: Proxy, bucket: str
) -> None:
    """It says what was tried, and that nothing is lost."""
    brief = Retry(timeout=0.1, deadline=0.5, initial=0.01, maximum=0.05)
    store = open_bucket(bucket, retry=brief)
    faulty.faults.set(Fault("status", times=None))

    for refused in attempts(store):
        with pytest.raises(
            StoreError, match="after many retries still HTTP status 503"
        ):
            refused()
    faulty.faults.set(Fault("hang", times=None))
    with pytest.raises(StoreError, match="after many retries still"):
        store.read("a")

    assert names_in(faulty.port, bucket) == []


@pytest.mark.slow
def test_twenty_seconds_of_503_are_survived(
    faulty: Proxy, bucket: str, tmp_path: Path
) -> None:
    """With the retry that a run has."""
    store = open_bucket(bucket)
    (tmp_path / "here").write_bytes(LARGE)
    faulty.faults.set(Fault("status", times=None, lasts_s=20.0))

    assert store.send("a", tmp_path / "here") is True

    assert held_by(faulty.port, bucket) == {"a": LARGE}


# --- what the storage refuses ---------------------------------------------------------


def attempts(store: GcsStore) -> list[Callable[[], object]]:
    """Everything that a store does with its bucket."""
    return [
        lambda: store.read("a"),
        lambda: store.create("a", b"1"),
        store.list,
        lambda: store.delete("a"),
    ]


@pytest.mark.parametrize(
    ("attempt", "doing", "permission"),
    [
        (0, "read", "storage.objects.get"),
        (1, "create", "storage.objects.create"),
        (2, "list", "storage.objects.list"),
        (3, "delete", "storage.objects.delete"),
    ],
)
def test_a_missing_permission_is_told_with_its_bucket(
    attempt: int,
    doing: str,
    permission: str,
    store: GcsStore,
    faulty: Proxy,
    bucket: str,
) -> None:
    """Which one, for whom, and the command that grants it."""
    who = "searcher@project.iam.gserviceaccount.com"
    said = (
        f"{who} does not have {permission} access to the Google Cloud Storage object."
    )
    faulty.faults.set(Fault("status", status=403, message=said, times=None))

    with pytest.raises(StorePermissionError) as told:
        attempts(store)[attempt]()

    text = str(told.value)
    assert f"not allowed to {doing} gs://{bucket}" in text
    assert f"{permission} on gs://{bucket} is missing" in text
    assert f"--member=serviceAccount:{who} --role=roles/storage.objectUser" in text
    assert faulty.faults.n_taken() == 1  # it is not tried again


@pytest.mark.parametrize("attempt", range(4))
def test_a_missing_bucket_is_told(attempt: int, faulty: Proxy) -> None:
    """Not as an object that is missing; with the command that creates it."""
    store = open_bucket("no-such-bucket/runs", retry=HASTY)

    with pytest.raises(BucketNotFoundError, match="gcloud storage buckets create"):
        attempts(store)[attempt]()


def test_a_bucket_that_goes_meanwhile_is_told(
    store: GcsStore, faulty: Proxy, bucket: str
) -> None:
    """By whoever writes next."""
    store.create("a", b"1")
    remove(faulty.port, bucket, "runs/a")
    remove_bucket(faulty.port, bucket)

    with pytest.raises(BucketNotFoundError, match=f"no bucket '{bucket}'"):
        store.create("b", b"2")


def test_a_missing_object_is_not_a_missing_bucket(store: GcsStore) -> None:
    """Even if it is the first that is asked for."""
    with pytest.raises(ObjectNotFoundError, match="no object 'a' in gs://test-"):
        store.read("a")
    store.delete("a")


def test_no_credentials_are_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With the ways to get some."""
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))

    with pytest.raises(
        StorePermissionError, match="gcloud auth application-default login"
    ):
        open_store("gs://bucket/runs")


def test_a_missing_package_is_told() -> None:
    """With the command that installs it."""
    script = (
        "import sys; sys.modules['google.cloud.storage'] = None\n"
        "from dask_hpsearch.stores import open_store\n"
        "try: open_store('gs://bucket')\n"
        "except ImportError as error: print(type(error).__name__, error)"
    )

    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert found.stdout.startswith(MissingExtraError.__name__), found.stderr
    assert 'pip install "dask-hpsearch[gcp]"' in found.stdout


@pytest.mark.parametrize(
    "url", ["gs://", "gs:///a", "gs://Bucket/a", "gs://ab", "gs://a b"]
)
def test_what_names_no_bucket_is_told(url: str) -> None:
    """Before anything is contacted."""
    with pytest.raises(StoreNameError, match="must be gs://BUCKET"):
        open_store(url)


# --- writers that end midway ----------------------------------------------------------

SENDS = """
import sys
from pathlib import Path
from dask_hpsearch.stores import open_store

open_store(sys.argv[1]).send("a", Path(sys.argv[2]))
"""


def test_a_writer_that_is_killed_midway_leaves_nothing(
    faulty: Proxy, bucket: str, tmp_path: Path
) -> None:
    """No part of an object is ever visible; the name stays free."""
    (tmp_path / "here").write_bytes(LARGE)
    faulty.faults.set(Fault("hang", kinds=("chunk",), name="a", times=None))
    arguments = [f"gs://{bucket}", str(tmp_path / "here")]
    with subprocess.Popen(
        [sys.executable, "-c", SENDS, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as writer:
        wait_until(lambda: faulty.count("chunk"))
        writer.kill()

    assert names_in(faulty.port, bucket) == []
    faulty.faults.set()
    assert open_bucket(bucket).send("a", tmp_path / "here") is True
    assert held_by(faulty.port, bucket) == {"a": LARGE}


def test_an_exception_midway_leaves_nothing(
    store: GcsStore, faulty: Proxy, bucket: str, tmp_path: Path
) -> None:
    """Nor does one between the chunks of a large object."""
    (tmp_path / "here").write_bytes(LARGE)
    faulty.faults.set(
        Fault("status", kinds=("chunk",), status=403, message="No.", times=None)
    )

    with pytest.raises(StorePermissionError, match="not allowed to create"):
        store.send("a", tmp_path / "here")

    assert names_in(faulty.port, bucket) == []


def test_an_object_deleted_by_another_is_missing(
    store: GcsStore, faulty: Proxy, bucket: str
) -> None:
    """As one that never was."""
    store.create("a", b"1")
    remove(faulty.port, bucket, "runs/a")

    with pytest.raises(ObjectNotFoundError):
        store.read("a")
    assert store.list() == []
