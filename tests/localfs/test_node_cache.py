from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from dask_hpsearch.exceptions import CacheFullError, DataUnavailableError, StoreError
from dask_hpsearch.localfs.checksums import checksum
from dask_hpsearch.localfs.node_cache import NodeCache
from tests.processes import script, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def maker(content: bytes, calls: list[bytes] | None = None) -> Callable[[Path], str]:
    """Return what writes a content, and notes that it did."""

    def make(path: Path) -> str:
        path.write_bytes(content)
        if calls is not None:
            calls.append(content)
        return checksum(path, "sha256")

    return make


def files(cache: NodeCache) -> set[str]:
    """Return the entries' files."""
    names = {path.name for path in cache.folder.iterdir()}
    return {name for name in names if "." not in name}


def put(cache: NodeCache, key: str, nbytes: int = 100) -> None:
    """Make an entry that nobody holds."""
    cache.hold(key, nbytes, maker(b"x" * nbytes)).close()


def test_an_entry_is_made_once_however_many_ask(tmp_path: Path) -> None:
    """Threads with caches of their own, as of several processes: one makes it."""
    calls: list[bytes] = []
    begun = threading.Barrier(8)

    def ask() -> None:
        cache = NodeCache(tmp_path / "cache")
        begun.wait()
        with cache.hold("a", 3, maker(b"abc", calls)) as held:
            assert held.path.read_bytes() == b"abc"

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert calls == [b"abc"]


def test_who_made_an_entry_may_use_it_while_others_do(tmp_path: Path) -> None:
    """Of two who ask at the same moment, neither waits for the other to let go."""
    n_keys = 50
    together = threading.Barrier(2, timeout=60)
    failed: list[threading.BrokenBarrierError] = []

    def ask() -> None:
        cache = NodeCache(tmp_path / "cache")
        try:
            for key in range(n_keys):
                together.wait()
                with cache.hold(
                    str(key), 1, maker(b"x"), given_up=lambda: together.broken
                ):
                    together.wait()
        except threading.BrokenBarrierError as error:
            failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not failed


PROCESS = """
import os, sys, time
from pathlib import Path
from dask_hpsearch.localfs.checksums import checksum
from dask_hpsearch.localfs.node_cache import NodeCache

def make(path):
    with Path("made").open("a") as file:
        file.write(f"{{os.getpid()}}\\n")
    path.write_bytes(b"x" * 1000)
    time.sleep({seconds})
    return checksum(path, "sha256")

with NodeCache(Path("cache")).hold("a", 1000, make) as held:
    assert held.path.read_bytes() == b"x" * 1000
    Path("held").touch()
    while {stay} and not Path("go").exists():
        time.sleep(0.01)
"""


def test_an_entry_is_made_once_by_several_processes(tmp_path: Path) -> None:
    """Whoever comes while it is made waits for it."""
    text = PROCESS.format(seconds=0.5, stay=False)
    processes = [script(text, tmp_path) for _ in range(3)]

    for process in processes:
        assert process.communicate()[1] == ""

    assert len((tmp_path / "made").read_text().splitlines()) == 1


def test_a_killed_maker_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    """Its half file is never seen; the next one makes the entry."""
    process = script(PROCESS.format(seconds=60, stay=False), tmp_path)
    wait_until((tmp_path / "cache" / "a.partial").exists)
    process.send_signal(signal.SIGKILL)
    process.communicate()

    cache = NodeCache(tmp_path / "cache")
    assert "a" not in files(cache)
    with cache.hold("a", 3, maker(b"abc")) as held:
        assert held.path.read_bytes() == b"abc"
        assert files(cache) == {"a"}
        assert cache.nbytes() == 3


def test_what_another_process_uses_is_not_removed(tmp_path: Path) -> None:
    """There is no room then, and the error says which settings help."""
    process = script(PROCESS.format(seconds=0, stay=True), tmp_path)
    wait_until((tmp_path / "held").exists)
    cache = NodeCache(tmp_path / "cache", limit_bytes=1500)

    with pytest.raises(CacheFullError, match="DASK_HPSEARCH_CACHE_SIZE"):
        put(cache, "b", 600)
    assert files(cache) == {"a"}

    (tmp_path / "go").touch()
    process.communicate()
    put(cache, "b", 600)
    assert files(cache) == {"b"}


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    """The cache never takes more than its limit."""
    cache = NodeCache(tmp_path, limit_bytes=350)
    for key in "abc":
        put(cache, key)
        time.sleep(0.01)
    put(cache, "a")  # used again

    put(cache, "d")

    assert files(cache) == {"a", "c", "d"}
    assert cache.nbytes() <= 350


def test_room_is_kept_for_what_is_being_made(tmp_path: Path) -> None:
    """Two that are made at once do not take the same room."""
    cache = NodeCache(tmp_path, limit_bytes=1000)

    def make(path: Path) -> str:
        with pytest.raises(CacheFullError):
            put(cache, "b", 500)
        return maker(b"x" * 600)(path)

    cache.hold("a", 600, make).close()
    assert files(cache) == {"a"}


def test_an_altered_file_is_made_anew(tmp_path: Path) -> None:
    """A flipped byte is noticed by the next process, and at once if the file is new."""
    put(NodeCache(tmp_path), "a", 3)
    (tmp_path / "a").write_bytes(b"xyx")

    with NodeCache(tmp_path).hold("a", 3, maker(b"abc")) as held:
        assert held.path.read_bytes() == b"abc"


def test_a_failed_make_leaves_nothing(tmp_path: Path) -> None:
    """Its error is the caller's; the next one tries again."""
    cache = NodeCache(tmp_path)

    def fail(path: Path) -> str:
        path.write_bytes(b"half")
        msg = "no such object"
        raise LookupError(msg)

    with pytest.raises(LookupError, match="no such object"):
        cache.hold("a", 3, fail)

    assert cache.nbytes() == 0
    assert not list(tmp_path.glob("a.[pr]*"))
    put(cache, "a")


def test_who_waits_can_give_up(tmp_path: Path) -> None:
    """A cancelled search does not wait for another's download."""
    process = script(PROCESS.format(seconds=60, stay=False), tmp_path)
    wait_until((tmp_path / "cache" / "a.partial").exists)

    with pytest.raises(DataUnavailableError):
        NodeCache(tmp_path / "cache").hold("a", 3, maker(b"abc"), given_up=lambda: True)

    process.kill()
    process.communicate()


def test_what_was_not_used_for_a_week_is_removed(tmp_path: Path) -> None:
    """A folder that stays does not keep everything for ever."""
    cache = NodeCache(tmp_path)
    put(cache, "old")
    put(cache, "new")
    os.utime(tmp_path / "old", (time.time() - 8 * 86400, time.time()))

    put(NodeCache(tmp_path), "another")

    assert files(cache) == {"new", "another"}


def test_the_last_user_removes_a_temporary_folder(tmp_path: Path) -> None:
    """Nothing stays on the node, and nobody's files vanish before."""
    one, two = (NodeCache(tmp_path / "cache", temporary=True) for _ in range(2))
    put(one, "a")
    put(two, "b")

    one.close()
    assert files(two) == {"a", "b"}
    two.close()

    assert not (tmp_path / "cache").exists()
    put(one, "a")  # it may be used again
    one.close()


def test_a_user_that_has_put_nothing_removes_a_temporary_folder(tmp_path: Path) -> None:
    """A worker does, whose slots have put files there and have ended."""
    worker = NodeCache(tmp_path / "cache", temporary=True)
    slot = NodeCache(tmp_path / "cache")
    put(slot, "a")

    worker.close()
    assert files(slot) == {"a"}  # the slot still uses it
    slot.close()
    worker.close()

    assert not (tmp_path / "cache").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """And so is the setting for another one."""
    (tmp_path / "file").touch()

    with pytest.raises(StoreError, match=r"file/cache.*DASK_HPSEARCH_CACHE"):
        put(NodeCache(tmp_path / "file" / "cache"), "a")
