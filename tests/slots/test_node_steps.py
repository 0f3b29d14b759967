"""Slots of a node share fitted steps through files."""

from __future__ import annotations

import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from dask_hpsearch.localfs.node_cache import Claim, NodeCache
from dask_hpsearch.slots.node_files import (
    BeingMadeError,
    NodeFolder,
    search_prefix,
)
from dask_hpsearch.slots.node_steps import NodeSteps
from dask_hpsearch.slots.snapshots import Snapshot, snapshot_of
from tests.processes import script, wait_until

if TYPE_CHECKING:
    from pathlib import Path

STEP = (("X", "y", "split"), b"step")


def steps_in(folder: Path, **changed: Any) -> NodeSteps:
    """Open the steps of a search."""
    values: dict[str, Any] = {"limit_bytes": None, "search": "a", "code": "1"}
    return NodeSteps.open(NodeFolder(folder, **values | changed))


@pytest.fixture
def node(tmp_path: Path) -> NodeSteps:
    """Return the steps of a search, none yet."""
    return steps_in(tmp_path / "cache")


def snapshot(nbytes: int = 800) -> Snapshot:
    """Return one of so many bytes."""
    found = snapshot_of(np.ones(nbytes // 8), "fitted", given=None)
    assert found is not None
    return found


def make(node: NodeSteps, step: Any = STEP, nbytes: int = 800) -> bool:
    """Make a step that nobody has made."""
    key = node.key(step)
    assert key is not None
    claim = node.recall(key)
    assert isinstance(claim, Claim)
    with claim:
        return node.keep(claim, snapshot(nbytes))


def find(node: NodeSteps, step: Any = STEP) -> Any:
    """Look for a step; a claim is let go of."""
    key = node.key(step)
    assert key is not None
    found = node.recall(key)
    if isinstance(found, Claim):
        found.close()
    return found


def test_what_one_slot_has_made_another_one_has(
    tmp_path: Path, node: NodeSteps
) -> None:
    """Each gets a copy of its own to write to."""
    make(node)

    for _ in range(2):
        output, step = find(steps_in(tmp_path / "cache"))
        np.testing.assert_array_equal(output, np.ones(100))
        assert step == "fitted"
        output += 1


@pytest.mark.parametrize("changed", [{"search": "b"}, {"code": "2"}])
def test_other_searches_and_other_code_have_their_own(
    tmp_path: Path, node: NodeSteps, changed: Any
) -> None:
    """A module that was edited makes other steps."""
    make(node)

    assert isinstance(find(steps_in(tmp_path / "cache", **changed)), Claim)


def test_a_step_that_is_being_made_is_found_once_it_is_made(
    tmp_path: Path, node: NodeSteps
) -> None:
    """Who needs it may do something else, or wait."""
    key = node.key(STEP) or ""
    claim = node.recall(key)
    assert isinstance(claim, Claim)
    other = steps_in(tmp_path / "cache")

    with pytest.raises(BeingMadeError):
        other.recall(key)
    other.wait(key, given_up=lambda: True)
    waiting = threading.Thread(
        target=other.wait, args=(key,), kwargs={"given_up": bool}
    )
    waiting.start()
    with claim:
        node.keep(claim, snapshot())
    waiting.join()

    assert isinstance(other.recall(key), tuple)


def test_a_claim_that_was_not_filled_is_free(tmp_path: Path, node: NodeSteps) -> None:
    """The fit has failed, say: another one may try."""
    assert isinstance(find(node), Claim)

    assert isinstance(find(steps_in(tmp_path / "cache")), Claim)
    assert not [one for one in (tmp_path / "cache").iterdir() if "steps" in one.name]


def test_the_claim_of_a_killed_process_is_free(tmp_path: Path, node: NodeSteps) -> None:
    """Its lock ends with it."""
    key = node.key(STEP) or ""
    claimed = tmp_path / "claimed"
    program = f"""
import time
from pathlib import Path
from dask_hpsearch.localfs.node_cache import NodeCache

claim = NodeCache(Path({str(tmp_path / "cache")!r})).claim({key!r})
Path({str(claimed)!r}).touch()
time.sleep(60)
"""
    with script(program, tmp_path) as process:
        wait_until(claimed.exists)
        with pytest.raises(BeingMadeError):
            node.recall(key)
        process.send_signal(signal.SIGKILL)
        process.wait()

    assert isinstance(find(node), Claim)


@pytest.mark.parametrize("repeatable", [True, False])
def test_all_slots_know_of_a_step_that_is_fitted_every_time(
    tmp_path: Path, node: NodeSteps, *, repeatable: bool
) -> None:
    """Nobody waits for it."""
    claim = node.recall(node.key(STEP) or "")
    assert isinstance(claim, Claim)
    with claim:
        node.note_every_time(claim, repeatable=repeatable)

    assert find(steps_in(tmp_path / "cache")) is repeatable


def test_room_is_bounded(tmp_path: Path) -> None:
    """The least recently used goes; one step takes at most a quarter of a quarter."""
    node = steps_in(tmp_path / "cache", limit_bytes=16 * 40_000)
    cache = NodeCache(tmp_path / "cache")
    cache.hold("data", 100, _write).close()

    for number in range(10):
        assert make(node, number, nbytes=36_000)
        time.sleep(0.01)  # files are as old as clocks tell

    made = [isinstance(find(node, number), tuple) for number in range(10)]
    assert made == [False] * 6 + [True] * 4
    assert not make(node, "large", nbytes=44_000)
    assert (tmp_path / "cache" / "data").exists()


def _write(path: Path) -> str:
    path.write_bytes(b"x" * 100)
    return "size:100"


def test_a_search_that_has_ended_leaves_nothing(
    tmp_path: Path, node: NodeSteps
) -> None:
    """Its steps are removed, and no others."""
    make(node)
    other = steps_in(tmp_path / "cache", search="b")
    make(other)

    NodeCache(tmp_path / "cache").remove_all(search_prefix("steps-", "a"))

    assert isinstance(find(node), Claim)
    assert isinstance(find(other), tuple)


def test_a_folder_that_others_write_to_is_not_used(
    tmp_path: Path, node: NodeSteps
) -> None:
    """Pickles in it may be theirs."""
    make(node)
    (tmp_path / "cache").chmod(0o777)

    assert find(node) is None


def test_a_step_among_settings_without_a_name_has_no_file(node: NodeSteps) -> None:
    """Another slot's would not be found."""
    assert node.key((object(), b"step")) is None
