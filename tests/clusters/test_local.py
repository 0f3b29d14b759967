"""What workers on this machine may use of it: memory, cores, threads."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any

import joblib
import pytest
from dask.system import CPU_COUNT
from distributed import Client
from distributed.system import MEMORY_LIMIT
from threadpoolctl import threadpool_info

from dask_hpsearch import local_cluster
from dask_hpsearch.slots.plugin import PLUGIN_NAME
from tests.processes import wait_until

if TYPE_CHECKING:
    from distributed import Worker

VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OMP_WAIT_POLICY",
)


def threads() -> dict[str, Any]:
    """Return what a call in a slot may use."""
    told: dict[str, Any] = {name: os.environ[name] for name in VARIABLES}
    told["pools"] = {pool["num_threads"] for pool in threadpool_info()}
    told["n_jobs"] = [joblib.effective_n_jobs(number) for number in (None, -1, 8)]
    told["calls"] = joblib.Parallel(n_jobs=-1)(
        joblib.delayed(os.getpid)() for _ in range(4)
    )
    told["pid"] = os.getpid()
    return told


def threads_in_slot(client: Client) -> dict[str, Any]:
    """Ask a slot."""
    with joblib.parallel_config("dask_hpsearch", client=client):
        told: list[dict[str, Any]] = joblib.Parallel(n_jobs=2)(
            joblib.delayed(threads)() for _ in range(2)
        )
    return told[0]


def test_a_slot_has_one_thread(client: Client) -> None:
    """And waits for others without spinning."""
    found = threads_in_slot(client)

    assert [found[name] for name in VARIABLES] == ["1", "1", "1", "PASSIVE"]
    assert found["pools"] == {1}
    assert found["n_jobs"] == [1, 1, 1]
    assert set(found["calls"]) == {found["pid"]}


def test_slots_have_the_threads_that_were_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those of n_jobs=-1 too; what the user's environment says is obeyed."""
    monkeypatch.setenv("MKL_NUM_THREADS", "3")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    with (
        local_cluster(1, threads_per_slot=2, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        found = threads_in_slot(client)
        slots = sum(client.nthreads().values())

    assert slots == max(1, CPU_COUNT // 2)
    assert [found[name] for name in VARIABLES] == ["2", "2", "3", "ACTIVE"]
    assert found["n_jobs"] == [1, 2, 2]
    assert set(found["calls"]) == {found["pid"]}


def memory(dask_worker: Worker) -> tuple[int, int]:
    """Return a worker's limit, and what it gives each slot."""
    plugin: Any = dask_worker.plugins[PLUGIN_NAME]
    return dask_worker.memory_manager.memory_limit or 0, plugin.pool.share_bytes


def all_have(client: Client, expected: list[tuple[int, int]]) -> bool:
    """Whether the workers have that much memory each."""
    return list(client.run(memory, on_error="ignore").values()) == expected


def test_workers_share_the_memory_of_the_machine() -> None:
    """However many there are: no more is promised than there is."""
    with (
        local_cluster(2, 2, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        for n_workers in (2, 3, 1):
            cluster.scale(n_workers)
            limit = MEMORY_LIMIT // 2 * 2 // n_workers
            expected = [(limit, limit // 2)] * n_workers
            wait_until(functools.partial(all_have, client, expected))
            known = client.scheduler_info()["workers"].values()
            assert {one["memory_limit"] for one in known} == {limit}


def test_a_limit_of_the_users_own_stays() -> None:
    """Each worker has it, later ones too."""
    with (
        local_cluster(1, 2, memory_limit="2 GiB", dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        cluster.scale(2)
        client.wait_for_workers(2)

        assert list(client.run(memory).values()) == [(2**31, 2**30)] * 2


@pytest.mark.parametrize("name", ["workers", "slots", "threads_per_worker"])
def test_an_option_that_there_is_not_is_named_at_once(name: str) -> None:
    """A worker would end by it in its own process, and leave an empty cluster."""
    with pytest.raises(TypeError, match=f"no option '{name}': it has n_workers, slots"):
        local_cluster(**{name: 2})


def test_options_of_dask_reach_the_workers() -> None:
    """Those of its `LocalCluster`, and those that this passes on."""
    options: dict[str, Any] = {"resources": {"disk": 1}, "silence_logs": False}
    with (
        local_cluster(1, 1, dashboard_address=":0", **options) as cluster,
        cluster.get_client() as client,
    ):
        client.wait_for_workers(1)

        (worker,) = client.scheduler_info()["workers"].values()
        assert worker["resources"] == {"disk": 1}


@pytest.mark.parametrize(
    "given",
    [{"n_workers": -1}, {"slots_per_worker": 0}, {"threads_per_slot": 0}],
    ids=lambda given: next(iter(given)),
)
def test_numbers_that_are_none(given: dict[str, Any]) -> None:
    """They are named before anything is started."""
    with pytest.raises(ValueError, match=f"{next(iter(given))} must be a positive"):
        local_cluster(**given)
