"""The way to a free name where a file system has no hard links."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from dask_hpsearch.localfs.atomic import claim_of, publish_under_claim

if TYPE_CHECKING:
    from pathlib import Path


def test_of_many_claims_one_wins(tmp_path: Path) -> None:
    """Exactly one renames its file, and no claim stays behind."""
    n_threads = 8
    together = threading.Barrier(n_threads, timeout=60)

    def publish(me: int) -> list[bool]:
        told = []
        for n in range(20):
            partial = tmp_path / f".partial-{me}-{n}"
            partial.write_bytes(str(me).encode())
            together.wait()
            told.append(publish_under_claim(partial, tmp_path / f"race-{n}"))
            partial.unlink(missing_ok=True)
        return told

    with ThreadPoolExecutor(n_threads) as threads:
        wins = list(threads.map(publish, range(n_threads)))

    for n, told in enumerate(zip(*wins, strict=True)):
        assert sum(told) == 1
        winner = str(told.index(True)).encode()
        assert (tmp_path / f"race-{n}").read_bytes() == winner
    assert len(list(tmp_path.iterdir())) == 20


def test_the_claim_of_a_dead_process_is_removed(tmp_path: Path) -> None:
    """One that has stayed the same for longer than the wait has no holder."""
    partial = tmp_path / ".partial-1"
    partial.write_bytes(b"whole")
    claim_of(tmp_path / "a").touch()

    assert publish_under_claim(partial, tmp_path / "a", wait_s=0.1) is True

    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_claim_is_waited_for(tmp_path: Path) -> None:
    """Who finds one learns what became of it: here the holder has renamed."""
    partial = tmp_path / ".partial-1"
    partial.write_bytes(b"late")
    claim_of(tmp_path / "a").touch()

    with ThreadPoolExecutor(1) as thread:
        late = thread.submit(publish_under_claim, partial, tmp_path / "a")
        (tmp_path / "a").write_bytes(b"first")
        claim_of(tmp_path / "a").unlink()

    assert late.result() is False
    assert (tmp_path / "a").read_bytes() == b"first"
