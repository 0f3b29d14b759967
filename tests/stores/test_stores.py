"""One class of promises, kept by every kind of store; then what is of one kind alone.

A new kind joins by a name in `KINDS` (and in `SHARED_KINDS`, if other processes can open
it too) and a branch in `new_url`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dask_hpsearch.exceptions import (
    ObjectNotFoundError,
    StoreError,
    StoreFullError,
    StoreNameError,
    StorePermissionError,
)
from dask_hpsearch.localfs.atomic import STALE_S
from dask_hpsearch.stores import Store, StoredObject, open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS = ["memory", "file", "gs"]
SHARED_KINDS = ["file", "gs"]
CLOCK_S = 1.0  # file systems keep coarse time
BUCKETS: list[str] = []  # that are there

ROOT = Path(__file__).parents[2]
NO_NAMES = [
    "",
    "/a",
    "a/",
    "a//b",
    "..",
    "../a",
    "a/../../b",
    "./a",
    "a/.",
    ".hidden",
    "a/.hidden",
    "a\\b",
    "a\0b",
    "a\nb",
    "\ud800",
]

# Scripts of other processes. What they write carries the hash of its rest.
RACE = """
import sys
from dask_hpsearch.stores import open_store

store, me = open_store(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
print(*(n for n in range(100) if store.create(f"race/{n}", me.encode())))
"""
WRITE = """
import hashlib, itertools, os, sys
from dask_hpsearch.stores import open_store

store, nbytes = open_store(sys.argv[1]), int(sys.argv[2])
for n in range(int(sys.argv[3])):
    body = os.urandom(nbytes)
    store.create(f"big/{n:06}", hashlib.sha256(body).digest() + body)
    print(n, flush=True)
"""
LIMITED = """
import resource, sys
from dask_hpsearch.stores import open_store

resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
try:
    open_store(sys.argv[1]).create("big", bytes(4_000_000))
except OSError as error:
    print(type(error).__name__, error)
"""


@contextlib.contextmanager
def new_url(kind: str) -> Iterator[str]:
    """Give the URL of a new store, and remove it in the end."""
    name = f"test-{secrets.token_hex(4)}"
    if kind == "memory":
        yield f"memory://{name}"
        with contextlib.suppress(FileNotFoundError):
            fsspec.filesystem("memory").rm(f"/{name}", recursive=True)
    elif kind == "gs":
        yield f"gs://{BUCKETS[-1]}/{name}"
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield (Path(folder) / name).as_uri()


@contextlib.contextmanager
def process(script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a script in an interpreter of its own, and end it in the end."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as started:
        try:
            yield started
        finally:
            started.kill()


def is_whole(content: bytes) -> bool:
    """Whether the content is all that `WRITE` wrote."""
    return hashlib.sha256(content[32:]).digest() == content[:32]


@pytest.fixture(scope="module", autouse=True)
def _buckets(gcs_bucket: str) -> None:
    """Let `new_url` know of a bucket."""
    BUCKETS.append(gcs_bucket)


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Of an empty store, of each kind in turn."""
    with new_url(request.param) as url:
        yield url


@pytest.fixture
def store(url: str) -> Store:
    """An empty store, of each kind in turn."""
    return open_store(url)


@pytest.fixture(params=SHARED_KINDS)
def shared_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Of an empty store that other processes can open, of each kind in turn."""
    with new_url(request.param) as url:
        yield url


class TestEveryStore:
    """What every kind of store promises."""

    @pytest.mark.parametrize("content", [b"", b"\0\xff\n", bytes(range(256)) * 9000])
    def test_what_was_created_is_read(self, store: Store, content: bytes) -> None:
        """Bytes come back as they went in."""
        assert store.create("a/b.bin", content) is True

        assert store.read("a/b.bin") == content
        assert store.list() == [StoredObject("a/b.bin", len(content))]

    def test_what_is_there_is_never_overwritten(self, store: Store) -> None:
        """The second to create an object is told so, and changes nothing."""
        store.create("a", b"first")

        assert store.create("a", b"second") is False
        assert store.read("a") == b"first"

    def test_a_missing_object_is_told_with_its_name(self, store: Store) -> None:
        """Name and store are in the message; it is a FileNotFoundError too."""
        with pytest.raises(ObjectNotFoundError, match=r"no object 'a/b' in .*test-"):
            store.read("a/b")
        with pytest.raises(FileNotFoundError):
            store.read("a/b")

    def test_a_folder_of_objects_is_no_object(self, store: Store) -> None:
        """Only what was created can be read, and deleting its folder does nothing."""
        store.create("a/b", b"1")

        with pytest.raises(ObjectNotFoundError):
            store.read("a")
        with pytest.raises(ObjectNotFoundError):
            store.read("a/b/c")
        store.delete("a")
        store.delete("a/b/c")
        assert store.read("a/b") == b"1"

    def test_deleting_twice_is_no_error(self, store: Store) -> None:
        """Gone is gone; the name is free again."""
        store.create("a/b", b"1")

        store.delete("a/b")
        store.delete("a/b")

        assert store.list() == []
        assert store.create("a/b", b"2") is True

    @pytest.mark.parametrize(
        ("prefix", "found"),
        [
            ("", ["a-b", "a/b", "a/bc/d", "a/bc/e", "ab", "b/a"]),
            ("a", ["a-b", "a/b", "a/bc/d", "a/bc/e", "ab"]),
            ("a/", ["a/b", "a/bc/d", "a/bc/e"]),
            ("a/b", ["a/b", "a/bc/d", "a/bc/e"]),
            ("a/bc/", ["a/bc/d", "a/bc/e"]),
            ("a/bc/d", ["a/bc/d"]),
            ("b", ["b/a"]),
            ("c", []),
            ("a/b/", []),
            ("ab/c/d", []),
        ],
    )
    def test_a_listing_is_by_prefix_and_sorted(
        self, store: Store, prefix: str, found: list[str]
    ) -> None:
        """A prefix is a beginning of the name, whatever the folders."""
        for name in ["b/a", "ab", "a/bc/e", "a/bc/d", "a/b", "a-b"]:
            store.create(name, name.encode())

        assert store.list(prefix) == [StoredObject(n, len(n)) for n in found]

    @settings(max_examples=25, deadline=None)
    @given(
        kind=st.sampled_from(KINDS),
        names=st.sets(
            st.lists(st.text("ab- é", min_size=1, max_size=2), max_size=3)
            .map(lambda folders: "/".join([*folders, "x.json"]))
            .filter(lambda name: ".." not in name),
            max_size=5,
        ),
        data=st.data(),
    )
    def test_a_listing_finds_what_begins_so(
        self, kind: str, names: set[str], data: st.DataObject
    ) -> None:
        """For any names, and any beginning of any of them."""
        whole = data.draw(st.sampled_from([*sorted(names), "a"]))
        prefix = whole[: data.draw(st.integers(0, len(whole)))]
        with new_url(kind) as url:
            store = open_store(url)
            for name in names:
                store.create(name, b"")

            found = [item.name for item in store.list(prefix)]

        assert found == sorted(name for name in names if name.startswith(prefix))

    def test_a_child_is_a_store_below(self, store: Store) -> None:
        """Names are relative to it, both ways; its URL opens it again."""
        child = store.child("run 1").child("é")

        child.create("a", b"1")
        store.create("run 1/b", b"2")

        assert store.read("run 1/é/a") == b"1"
        assert child.list() == [StoredObject("a", 1)]
        assert open_store(child.url).read("a") == b"1"
        assert open_store(child.url).url == child.url
        assert open_store(store.url).list("run 1/b") == [StoredObject("run 1/b", 1)]

    @pytest.mark.parametrize("name", NO_NAMES)
    def test_no_name_leads_out_of_the_store(
        self, store: Store, name: str, tmp_path: Path
    ) -> None:
        """Every method refuses it, before anything is touched."""
        for refused in [
            lambda: store.read(name),
            lambda: store.create(name, b""),
            lambda: store.fetch(name, tmp_path / "a"),
            lambda: store.send(name, ROOT / "README.md"),
            lambda: store.touch(name),
            lambda: store.delete(name),
            lambda: store.child(name),
        ]:
            with pytest.raises(StoreNameError, match="the name of an object must be"):
                refused()

    @pytest.mark.parametrize("prefix", ["/", "../", "a/../", "a//", "a/.h", "a\0"])
    def test_no_prefix_leads_out_of_the_store(self, store: Store, prefix: str) -> None:
        """A listing stays inside."""
        with pytest.raises(StoreNameError):
            store.list(prefix)

    def test_a_store_is_a_value(self, store: Store) -> None:
        """It travels by pickle, and equals what its URL opens."""
        assert pickle.loads(pickle.dumps(store)) == store == open_store(store.url)

    def test_of_many_threads_one_creates(self, store: Store) -> None:
        """Exactly one is told True, and it is its content that stays."""
        n_threads = 8
        together = threading.Barrier(n_threads, timeout=60)

        def create_all(me: int) -> list[bool]:
            mine = []
            for n in range(50):
                together.wait()
                mine.append(store.create(f"race/{n}", str(me).encode()))
            return mine

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)  # threads take turns within a method, too
        try:
            with ThreadPoolExecutor(n_threads) as threads:
                wins = list(threads.map(create_all, range(n_threads)))
        finally:
            sys.setswitchinterval(interval)

        for n, told in enumerate(zip(*wins, strict=True)):
            assert sum(told) == 1
            assert store.read(f"race/{n}") == str(told.index(True)).encode()

    def test_of_many_processes_one_creates(self, shared_url: str) -> None:
        """The same, for processes that share nothing but the store."""
        with contextlib.ExitStack() as stack:
            racers = [
                stack.enter_context(process(RACE, shared_url, str(me)))
                for me in range(4)
            ]
            for racer in racers:
                assert racer.stdout is not None
                assert racer.stdout.readline() == "ready\n"
            for racer in racers:
                assert racer.stdin is not None
                racer.stdin.write("go\n")
                racer.stdin.flush()
            won = [racer.communicate()[0].split() for racer in racers]

        store = open_store(shared_url)
        assert sorted(int(n) for mine in won for n in mine) == list(range(100))
        for me, mine in enumerate(won):
            assert all(store.read(f"race/{n}") == str(me).encode() for n in mine)

    def test_a_reader_never_sees_a_part(self, store: Store) -> None:
        """What is listed is whole from the first moment on."""
        body = os.urandom(2**22)
        content = hashlib.sha256(body).digest() + body

        with ThreadPoolExecutor(1) as thread:
            writing = thread.submit(
                lambda: [store.create(f"big/{n}", content) for n in range(10)]
            )
            while not writing.done():
                for item in store.list("big/"):
                    assert item.nbytes == len(content)
                    assert store.read(item.name) == content

        assert len(store.list()) == len(writing.result()) == 10

    def test_no_process_sees_a_part_of_what_another_writes(
        self, shared_url: str
    ) -> None:
        """The same, between processes."""
        store = open_store(shared_url)

        with process(WRITE, shared_url, str(2**22), "10") as writer:
            while writer.poll() is None:
                for item in store.list():
                    assert item.nbytes == 2**22 + 32
                    assert is_whole(store.read(item.name))

        assert writer.returncode == 0
        assert len(store.list()) == 10

    @pytest.mark.parametrize("after", [1, 2, 3])
    def test_a_killed_writer_leaves_no_part(self, shared_url: str, after: int) -> None:
        """Killed while it writes, all that is visible is whole."""
        with process(WRITE, shared_url, str(2**22), "1000000") as writer:
            assert writer.stdout is not None
            for _ in range(after):
                writer.stdout.readline()
            writer.kill()
            writer.wait()

        store = open_store(shared_url)
        found = store.list()
        assert after <= len(found) < 1000
        assert all(is_whole(store.read(item.name)) for item in found)
        assert store.create(f"big/{len(found):06}", b"the next") is True

    def test_an_exception_while_writing_leaves_nothing(self, store: Store) -> None:
        """No object, and the name stays free."""
        with pytest.raises(TypeError):
            store.create("a", "no bytes")  # type: ignore[arg-type]

        assert store.list() == []
        assert store.create("a", b"bytes") is True

    def test_an_object_is_as_old_as_its_last_use(self, store: Store) -> None:
        """Touched, it is young again; what is not there cannot be touched."""
        before = time.time()
        store.create("a/b", b"1")
        (created,) = store.list()
        store.touch("a/b")
        (touched,) = store.list()

        assert before - CLOCK_S <= created.modified <= time.time() + CLOCK_S
        assert created.modified < touched.modified
        assert store.read("a/b") == b"1"
        with pytest.raises(ObjectNotFoundError, match="no object 'c'"):
            store.touch("c")

    @pytest.mark.parametrize("size", [0, 5_000_001])
    def test_files_go_there_and_back(
        self, store: Store, tmp_path: Path, size: int
    ) -> None:
        """A local file becomes an object, and an object a local file."""
        content = os.urandom(size)
        (tmp_path / "here").write_bytes(content)

        assert store.send("a/b", tmp_path / "here") is True
        (tmp_path / "back").write_bytes(b"what was there before, and longer " * 9)
        store.fetch("a/b", tmp_path / "back")

        assert store.read("a/b") == content == (tmp_path / "back").read_bytes()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "here"]

    def test_a_file_overwrites_no_object(self, store: Store, tmp_path: Path) -> None:
        """Sending is as exclusive as creating."""
        store.create("a", b"first")
        (tmp_path / "here").write_bytes(b"second")

        assert store.send("a", tmp_path / "here") is False
        assert store.read("a") == b"first"

    def test_fetching_what_is_not_there_leaves_no_file(
        self, store: Store, tmp_path: Path
    ) -> None:
        """Nor does it touch one that is there."""
        (tmp_path / "old").write_bytes(b"old")

        for name in ["new", "old"]:
            with pytest.raises(ObjectNotFoundError, match="no object 'a' in"):
                store.fetch("a", tmp_path / name)

        assert [path.name for path in tmp_path.iterdir()] == ["old"]
        assert (tmp_path / "old").read_bytes() == b"old"

    def test_sending_what_cannot_be_read_makes_no_object(
        self, store: Store, tmp_path: Path
    ) -> None:
        """It is told as what it is, a matter of this machine's."""
        with pytest.raises(FileNotFoundError, match="nowhere"):
            store.send("a", tmp_path / "nowhere")

        assert store.list() == []


class TestFolders:
    """What holds for a store in a folder."""

    def test_nothing_is_made_before_something_is_created(self, tmp_path: Path) -> None:
        """Looking leaves no trace."""
        store = open_store(tmp_path / "runs")

        assert store.list("a/") == []
        store.delete("a/b")
        with pytest.raises(ObjectNotFoundError):
            store.read("a/b")
        assert list(tmp_path.iterdir()) == []

    def test_paths_of_every_kind_open_the_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Relative, below the home folder, as a URL with odd characters."""
        folder = tmp_path / "my runs é#%"
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path))

        for given_ in [
            folder,
            str(folder),
            Path("my runs é#%"),
            "my runs é#%",
            "../" + str(tmp_path.name) + "/my runs é#%",
            "~/my runs é#%",
            folder.as_uri(),
            folder.as_uri().replace("file:///", "FILE://localhost/"),
        ]:
            assert open_store(given_).local_path() == folder

    def test_a_file_is_no_store(self, tmp_path: Path) -> None:
        """It is told when it is opened."""
        (tmp_path / "file").touch()

        with pytest.raises(StoreError, match="file is a file, not a folder"):
            open_store(tmp_path / "file")

    def test_a_name_is_not_the_folder_of_another(self, tmp_path: Path) -> None:
        """A file and a folder cannot have one name; both ways are told."""
        store = open_store(tmp_path)
        store.create("a/b", b"1")

        with pytest.raises(StoreError, match="a folder of other objects"):
            store.create("a", b"2")
        with pytest.raises(StoreError, match=r"cannot write .*a/b/c \(Not a directory"):
            store.create("a/b/c", b"2")

    def test_folders_go_with_their_last_object(self, tmp_path: Path) -> None:
        """A deleted run leaves no empty folders; the opened one stays."""
        folder = tmp_path / "runs"
        run = open_store(folder).child("run")
        run.create("journal/1", b"1")
        run.create("manifest", b"2")

        run.delete("journal/1")
        assert [path.name for path in folder.rglob("*")] == ["run", "manifest"]
        run.delete("manifest")

        assert list(folder.iterdir()) == []
        assert run.create("journal/1", b"again") is True

    def test_folders_that_come_and_go_disturb_nobody(self, tmp_path: Path) -> None:
        """Creating in a folder that another empties at the same time succeeds."""
        store = open_store(tmp_path)

        def come_and_go(me: int) -> list[bool]:
            told = []
            for _ in range(50):
                told.append(store.create(f"a/b/{me}", b""))
                store.delete(f"a/b/{me}")
            return told

        with ThreadPoolExecutor(4) as threads:
            assert all(all(told) for told in threads.map(come_and_go, range(4)))

    def test_what_a_dead_writer_left_is_unseen_and_goes(self, tmp_path: Path) -> None:
        """It is never listed; once it is old, a listing removes it."""
        store = open_store(tmp_path)
        store.create("a/b", b"1")
        fresh, old, claim = (
            tmp_path / "a" / name for name in [".partial-1", ".partial-2", ".claim-3"]
        )
        for path in (fresh, old, claim):
            path.write_bytes(b"half")
        for path in (old, claim):
            age = path.stat().st_mtime - STALE_S - 60
            os.utime(path, (age, age))

        assert store.list() == [StoredObject("a/b", 1)]

        assert sorted(path.name for path in tmp_path.glob("a/*")) == [fresh.name, "b"]

    def test_other_peoples_hidden_files_stay(self, tmp_path: Path) -> None:
        """Only what is ours is removed, however old the rest."""
        for name in [".DS_Store", ".nfs0001"]:
            (tmp_path / name).touch()
            os.utime(tmp_path / name, (0, 0))

        assert open_store(tmp_path).list() == []

        assert len(list(tmp_path.iterdir())) == 2

    def test_permissions_follow_the_umask(self, tmp_path: Path) -> None:
        """A group that shares a folder can read what is stored there."""
        before = os.umask(0o027)
        try:
            open_store(tmp_path).create("a", b"")
        finally:
            os.umask(before)

        assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640

    def test_a_write_that_is_cut_off_leaves_nothing(self, tmp_path: Path) -> None:
        """An error in the midst of a file removes its beginning."""
        with process(LIMITED, tmp_path.as_uri()) as limited:
            told, _ = limited.communicate()

        assert told.startswith(f"StoreError cannot write {tmp_path}/big (File")
        assert list(tmp_path.iterdir()) == []

    def test_a_full_disk_is_told(self, small_disk: Path) -> None:
        """What, where, and the way out; what was there stays, nothing half does."""
        store = open_store(small_disk / "runs")
        store.create("a", b"1")

        with pytest.raises(StoreFullError, match=r"no space left to write .*runs/big"):
            store.create("big", bytes(2**20))

        assert store.list() == [StoredObject("a", 1)]
        assert [path.name for path in (small_disk / "runs").iterdir()] == ["a"]
        assert store.create("small", b"2") is True

    def test_a_folder_that_may_not_be_written_is_told(
        self, unwritable_folder: Path
    ) -> None:
        """What, where, and the way out; reading goes on."""
        store = open_store(unwritable_folder)

        for refused in [
            lambda: store.create("b", b"2"),
            lambda: store.create("new/b", b"2"),
            lambda: store.delete("a"),
        ]:
            with pytest.raises(
                StorePermissionError, match=r"not allowed to (write|delete) .*store="
            ):
                refused()
        assert store.read("a") == b"1"
        assert store.list() == [StoredObject("a", 1)]


class TestMemory:
    """What holds for a store in memory."""

    def test_other_code_of_the_process_sees_it(self) -> None:
        """It is fsspec's own memory, both ways."""
        with new_url("memory") as url:
            store = open_store(url)
            store.create("a/b", b"1")
            with fsspec.open(f"{url}/c", "wb") as file:
                file.write(b"2")

            with fsspec.open(f"{url}/a/b", "rb") as file:
                assert file.read() == b"1"
            assert store.read("c") == b"2"
            assert store.local_path() is None

    def test_an_object_is_no_folder(self) -> None:
        """As on a disk, nothing can be created below one."""
        with new_url("memory") as url:
            store = open_store(url)
            store.create("a", b"1")

            with pytest.raises(StoreError, match="another object is its folder"):
                store.create("a/b", b"2")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "the store must be a folder's path"),
        ("s3://bucket/runs", "got 's3://bucket/runs'"),
        ("file://runs", "must have an absolute path.*'file://runs'"),
        ("file://", "must have an absolute path"),
        ("memory://", "the name of an object must be"),
        ("memory://a/../b", "the name of an object must be"),
        ("~no-such-user/runs", "home folder of '~' in .* is unknown"),
    ],
)
def test_what_names_no_store_is_told(url: str, message: str) -> None:
    """The message repeats it and says what would do."""
    with pytest.raises(StoreNameError, match=message):
        open_store(url)


@contextlib.contextmanager
def mounted(folder: Path) -> Iterator[None]:
    """Mount a disk of 256 KiB, where that is possible."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if os.geteuid() != 0 or mount is None or umount is None:
        pytest.skip("only root can mount a disk of its own")
    disk = [mount, "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if subprocess.run(disk, check=False, capture_output=True).returncode:
        pytest.skip("root cannot mount here")
    try:
        yield
    finally:
        subprocess.run([umount, str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with space for 256 KiB."""
    with mounted(tmp_path):
        yield tmp_path


@pytest.fixture
def unwritable_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that may be read, with an object ``a``."""
    if os.geteuid() != 0:
        (tmp_path / "a").write_bytes(b"1")
        tmp_path.chmod(0o500)
        yield tmp_path
        tmp_path.chmod(0o700)
        return
    with mounted(tmp_path):
        (tmp_path / "a").write_bytes(b"1")
        mount = shutil.which("mount")
        assert mount is not None
        subprocess.run([mount, "-o", "remount,ro", str(tmp_path)], check=True)
        yield tmp_path
