"""Logs of pods in a run's folder: whole, bounded, and kept when pods and drivers are gone."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dask_hpsearch.runs.logs import (
    POD_LOGS,
    PodLogArchive,
    StoredPodLogs,
    read_pod_logs,
)
from dask_hpsearch.stores import Store, open_store
from tests.processes import wait_until

MOMENT = "2026-11-25T01:00:00.000000000Z"


@pytest.fixture
def store() -> Store:
    """A run's folder that nobody else uses."""
    return open_store(f"memory://{uuid.uuid4().hex}")


def names(store: Store) -> list[str]:
    """Return the names of the stored archives."""
    return [one.name for one in store.list(POD_LOGS)]


@given(
    lines=st.lists(
        st.tuples(st.sampled_from(["driver a", "worker b", "worker c"]), st.text())
    )
)
def test_an_archive_is_read_as_it_was_written(lines: list[tuple[str, str]]) -> None:
    """Every line of every pod, in its order."""
    archive, again = PodLogArchive(), PodLogArchive()
    for who, line in lines:
        archive.add_line(who, MOMENT, line)

    again.update(archive.to_bytes())

    assert again.texts() == archive.texts()
    assert again.last_times() == archive.last_times()


def test_a_pod_that_writes_much_loses_its_first_lines() -> None:
    """And it is said how many."""
    archive = PodLogArchive()
    for number in range(5000):
        archive.add_line("worker w", MOMENT, f"line {number} {'x' * 50}")

    text = archive.texts()["worker w"]

    assert len(text) < 70_000
    assert "line 4999 " in text
    assert "line 0 " not in text
    assert text.startswith("(")


def test_of_many_pods_those_that_were_silent_longest_go() -> None:
    """The driver and the scheduler stay."""
    archive = PodLogArchive()
    archive.add_line("driver d", MOMENT, "first of all")
    archive.add_line("scheduler s", MOMENT, "second")
    for number in range(1000):
        archive.add_line(f"worker {number:04d}", f"2026-11-25T02:{number:04d}", "here")

    texts = archive.texts()

    assert len(texts) < 200
    assert {"driver d", "scheduler s", "worker 0999"} <= texts.keys()
    assert "worker 0000" not in texts


def test_a_driver_goes_on_with_the_logs_of_the_one_before(store: Store) -> None:
    """What pods wrote that are gone since is in it; there is one object at the end."""
    with StoredPodLogs(store) as first:
        first.add_line("worker gone", MOMENT, "its last words")
        wait_until(lambda: names(store))
    with StoredPodLogs(store) as second:
        second.add_line("worker new", MOMENT, "here")

    archive, kept = read_pod_logs(store)

    assert archive.texts() == {
        "worker gone": "its last words\n",
        "worker new": "here\n",
    }
    assert kept == names(store)
    assert len(kept) == 1


def test_a_driver_that_was_killed_leaves_what_was_written(store: Store) -> None:
    """An archive is never half there."""
    kept = StoredPodLogs(store)
    kept.__enter__()
    kept.add_line("worker w", MOMENT, "words")
    wait_until(lambda: names(store))

    assert read_pod_logs(store)[0].texts() == {"worker w": "words\n"}
    kept.__exit__()


def test_a_damaged_archive_costs_nothing_else(store: Store) -> None:
    """Logs are plain: whoever can write to the folder could spoil them."""
    with StoredPodLogs(store) as kept:
        kept.add_line("worker w", MOMENT, "words")
    store.create(f"{POD_LOGS}99999999999999999999.json.gz", b"\x1f\x8b no archive")
    store.create(f"{POD_LOGS}99999999999999999998.json.gz", b"nor this")

    assert read_pod_logs(store)[0].texts() == {"worker w": "words\n"}
