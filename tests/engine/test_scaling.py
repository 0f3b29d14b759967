from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import pytest
from distributed import Client, LocalCluster
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import DaskSearchCV, local_cluster
from dask_hpsearch.engine import demand
from dask_hpsearch.exceptions import ClientClosedError
from dask_hpsearch.slots.plugin import slot_pids
from tests.estimators import (
    Deed,
    flowers,
    most_at_once,
    read_log,
    seen,
    times_begun,
)
from tests.oracle.structure import difference
from tests.processes import WAIT_S, is_alive, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

X, y = flowers()
SPLITS = 2


def search(numbers: int, log: str, **options: Any) -> GridSearchCV:
    """Make a search over numbers."""
    deed_options = {
        name: options.pop(name) for name in ("gate", "seconds") if name in options
    }
    deed = Deed(log=log, client=os.getpid(), **deed_options)
    return GridSearchCV(deed, {"number": range(numbers)}, cv=SPLITS, **options)


def assert_as_plain(found: DaskSearchCV, own: GridSearchCV) -> None:
    """Assert that all there is equals a fit in this process."""
    assert difference(own.fit(X, y), found.search_) is None


@pytest.fixture
def log(tmp_path: Path) -> str:
    """Where fits note what they do."""
    return str(tmp_path / "fits.log")


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """A cluster whose workers have two slots each: one worker to begin with."""
    with local_cluster(1, 2, dashboard_address=":0") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def client(cluster: LocalCluster) -> Iterator[Client]:
    """A client of `cluster`."""
    with Client(cluster, set_as_default=False) as client:
        yield client


def in_background(function: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Run a function in a thread of its own; its result comes into the list."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(function()), daemon=True)
    thread.start()
    return thread, results


def waiting_pids(log: str) -> set[int]:
    """Return the processes that have come to the gate."""
    return {entry["pid"] for entry in seen(log, "wait")}


def test_slots_that_come_during_a_search_are_used(
    cluster: LocalCluster, client: Client, log: str, tmp_path: Path
) -> None:
    """From 2 to 8: all 8 have a fit, and none runs twice."""
    gate = tmp_path / "gate"
    own = search(20, log, gate=str(gate))
    thread, found = in_background(lambda: DaskSearchCV(own, client=client).fit(X, y))
    wait_until(lambda: len(waiting_pids(log)) == 2)

    cluster.scale(4)
    wait_until(lambda: len(waiting_pids(log)) == 8)
    gate.touch()
    thread.join(WAIT_S)

    assert_as_plain(found[0], own)
    assert set(times_begun(log).values()) == {1}


@pytest.mark.parametrize("most", [1, 4])
def test_an_integer_pre_dispatch_is_obeyed(
    most: int, cluster: LocalCluster, client: Client, log: str
) -> None:
    """Never more fits are under way, however many slots there are."""
    cluster.scale(4)
    client.wait_for_workers(4)
    own = search(10, log, pre_dispatch=most, seconds=0.02)

    found = DaskSearchCV(own, client=client).fit(X, y)

    assert_as_plain(found, own)
    assert found.search_.pre_dispatch == most
    assert len(times_begun(log)) == 10 * SPLITS
    assert most_at_once(read_log(log)) <= most


def test_slots_that_leave_during_a_search_fail_no_fit(
    cluster: LocalCluster, client: Client, log: str, tmp_path: Path
) -> None:
    """From 8 to 2: only what the leaving slots ran runs again."""
    cluster.scale(4)
    client.wait_for_workers(4)
    gate = tmp_path / "gate"
    own = search(12, log, gate=str(gate))
    thread, found = in_background(lambda: DaskSearchCV(own, client=client).fit(X, y))
    wait_until(lambda: len(waiting_pids(log)) == 8)

    cluster.scale(1)
    wait_until(lambda: sum(map(is_alive, waiting_pids(log))) == 2)
    wait_until(lambda: len(client.scheduler_info()["workers"]) == 1)
    gate.touch()
    thread.join(WAIT_S)

    assert_as_plain(found[0], own)
    stayed = set(client.run(slot_pids).popitem()[1])
    again = {fit for fit, times in times_begun(log).items() if times > 1}
    lost = {
        (entry["number"], "fit", entry["data"])
        for entry in seen(log, "start")
        if entry["pid"] not in stayed
    }
    assert len(times_begun(log)) == 12 * SPLITS
    assert len(lost) == 6
    assert again <= lost


@pytest.mark.parametrize("how", ["scale", "adapt"])
def test_fits_of_leaving_workers_end(
    how: str, log: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """What takes a second or two is not repeated, and nobody complains."""
    own = search(12, log, seconds=0.3)
    with (
        local_cluster(4, 1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.wait_for_workers(4)
        thread, found = in_background(
            lambda: DaskSearchCV(own, client=client).fit(X, y)
        )
        wait_until(lambda: len(seen(log, "end")) >= 4)
        if how == "scale":
            cluster.scale(1)
        else:
            cluster.adapt(minimum=1, maximum=1, interval="100ms")
        wait_until(lambda: len(client.scheduler_info()["workers"]) == 1)
        thread.join(WAIT_S)

    assert_as_plain(found[0], own)
    assert set(times_begun(log).values()) == {1}
    assert capfd.readouterr().err == ""


def test_a_cluster_closes_while_workers_leave(
    log: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Then their fits are not waited for, and nobody complains either."""
    own = search(12, log, gate=str(tmp_path / "never"))
    with (
        local_cluster(3, 1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        thread, _ = in_background(lambda: fails(own, client))
        wait_until(lambda: len(waiting_pids(log)) == 3)
        cluster.scale(1)
    thread.join(WAIT_S)

    assert not thread.is_alive()
    assert not any(map(is_alive, waiting_pids(log)))
    assert capfd.readouterr().err == ""


def fails(own: GridSearchCV, client: Client) -> None:
    """Run a search whose cluster ends."""
    with pytest.raises(ClientClosedError):
        DaskSearchCV(own, client=client).fit(X, y)


def test_two_searches_on_one_client_share_its_slots(
    client: Client, tmp_path: Path
) -> None:
    """Neither waits for the other's end."""
    logs = [str(tmp_path / name) for name in ("one.log", "other.log")]
    own = [search(40, log, seconds=0.02) for log in logs]

    runs = [
        in_background(lambda one=one: DaskSearchCV(one, client=client).fit(X, y))
        for one in own
    ]
    for thread, _ in runs:
        thread.join(WAIT_S)

    for one, (_, found), log in zip(own, runs, logs, strict=True):
        assert_as_plain(found[0], one)
        assert set(times_begun(log).values()) == {1}
    pids = [{entry["pid"] for entry in seen(log, "end")} for log in logs]
    assert pids[0] & pids[1]


def test_a_cluster_of_one_slot_runs_its_fits_there(log: str) -> None:
    """One job at a time is no reason to fit in the client."""
    own = search(4, log)
    with (
        local_cluster(1, 1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        found = DaskSearchCV(own, client=client).fit(X, y)

        slots = client.run(slot_pids).popitem()[1]

    assert_as_plain(found, own)
    assert {entry["pid"] for entry in seen(log, "start")} == set(slots)
    assert os.getpid() not in slots
    assert most_at_once(read_log(log)) == 1


@pytest.mark.parametrize("processes", [True, False])
def test_workers_of_any_dask_cluster_get_slots(
    processes: bool,  # noqa: FBT001 (a LocalCluster's own word)
    log: str,
    tmp_path: Path,
) -> None:
    """Those of a plain LocalCluster too, and those that join it later."""
    gate = tmp_path / "gate"
    own = search(8, log, gate=str(gate))
    with (
        LocalCluster(
            n_workers=1,
            threads_per_worker=2,
            processes=processes,
            dashboard_address=":0",
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        thread, found = in_background(
            lambda: DaskSearchCV(own, client=client).fit(X, y)
        )
        wait_until(lambda: len(waiting_pids(log)) == 2)
        cluster.scale(2)
        wait_until(lambda: len(waiting_pids(log)) == 4)
        workers = set(client.run(os.getpid).values())
        gate.touch()
        thread.join(WAIT_S)

    assert_as_plain(found[0], own)
    assert not waiting_pids(log) & (workers | {os.getpid()})
    wait_until(lambda: not any(map(is_alive, waiting_pids(log))))


def test_a_scheduler_hears_how_much_work_waits(client: Client, log: str) -> None:
    """Few fits at a time are with Dask; who adapts a cluster is to know of the others."""
    own = search(40, log, seconds=0.2)
    before = len(client.get_events(demand.TOPIC))

    DaskSearchCV(own, client=client).fit(X, y)

    told = [event["slots"] for _, event in client.get_events(demand.TOPIC)[before:]]
    assert 3 <= max(told) <= 8  # 16 seconds of work; 8 slots until that is known
    assert told[-1] < max(told)
