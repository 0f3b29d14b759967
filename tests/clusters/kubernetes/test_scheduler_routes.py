"""A real scheduler's answers to the operator, asked as the operator asks."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import aiohttp
import dask.config
from distributed import Client, Scheduler, Worker
from distributed.core import Status

from dask_hpsearch.clusters.kubernetes.scheduler_routes import (
    Candidate,
    GoneWorkers,
    Load,
    choose_retiring,
)
from dask_hpsearch.engine import demand
from tests.processes import WAIT_S

ROUTES = {
    "distributed.scheduler.http.routes": [
        "distributed.http.health",
        "dask_hpsearch.clusters.kubernetes.scheduler_routes",
    ]
}


async def ask(scheduler: Scheduler, method: str, path: str, **body: Any) -> Any:
    """Ask over HTTP, as dask-kubernetes does: only JSON is taken."""
    port = scheduler.http_server.port  # type: ignore[attr-defined]
    async with (
        aiohttp.ClientSession() as session,
        session.request(
            method, f"http://127.0.0.1:{port}/api/v1/{path}", json=body or None
        ) as response,
    ):
        assert response.status == 200
        return await response.json()


async def answers() -> dict[str, Any]:
    """Ask all questions of a scheduler with three workers, one of them paused."""
    found = {}
    with dask.config.set(ROUTES):
        async with Scheduler(
            host="127.0.0.1", port=0, dashboard=False, dashboard_address=":0"
        ) as scheduler:
            found["target"] = await ask(scheduler, "GET", "adaptive_target")
            scheduler.log_event(demand.TOPIC, demand.message("engine", 7))
            found["wanted"] = await ask(scheduler, "GET", "adaptive_target")
            found["idle"] = await ask(scheduler, "GET", "check_idle")
            options = {"nthreads": 1, "dashboard": False, "dashboard_address": ":0"}
            async with (
                Worker(scheduler.address, name="a", **options),
                Worker(scheduler.address, name="b", **options),
                Worker(scheduler.address, name="c", **options) as leaving,
            ):
                leaving.status = Status.paused
                state = scheduler.workers[leaving.address]
                while state.status != Status.paused:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                found["first"] = await ask(scheduler, "POST", "retire_workers", n=1)
                found["others"] = await ask(scheduler, "POST", "retire_workers", n=5)
    return found


GATE = threading.Event()


def held() -> None:
    """Take until the gate opens."""
    GATE.wait(WAIT_S)


async def idle_times() -> dict[str, float]:
    """Ask since when a scheduler has been idle: before, while and after it has a task."""
    found = {}
    with dask.config.set(ROUTES):
        async with Scheduler(
            host="127.0.0.1", port=0, dashboard=False, dashboard_address=":0"
        ) as scheduler:

            async def note(name: str) -> None:
                await ask(scheduler, "GET", "check_idle")  # it looks what has changed
                answer = await ask(scheduler, "GET", "check_idle")
                found[name] = answer["idle_since"]

            async with Client(
                scheduler.address, asynchronous=True, set_as_default=False
            ) as client:
                await note("before")
                future = client.submit(held)
                while not scheduler.tasks:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                await note("waiting")
                options = {"dashboard": False, "dashboard_address": ":0"}
                async with Worker(scheduler.address, nthreads=1, **options) as worker:
                    state = scheduler.workers[worker.address]
                    while not state.processing:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                    await note("running")
                    GATE.set()
                    await future
                    await note("after")
    return found


def test_a_cluster_in_use_is_not_idle() -> None:
    """One with a fit that runs for hours, or waits for a first worker, does not end."""
    found = asyncio.run(idle_times())

    assert found["waiting"] == found["running"] == 0
    assert 0 < found["before"] < found["after"]


def test_the_operators_questions_are_answered() -> None:
    """No worker is chosen twice, and none that is leaving already."""
    found = asyncio.run(answers())

    assert found["target"] == {"workers": 0}
    assert found["wanted"] == {"workers": 7}
    assert "idle_since" in found["idle"]
    [first] = [one["name"] for one in found["first"].values()]
    [other] = [one["name"] for one in found["others"].values()]
    assert {first, other} == {"a", "b"}


async def leaving_after_strangers() -> dict[str, list[str]]:
    """Ask whom to let go after somebody else has asked workers to leave."""
    found: dict[str, list[str]] = {}
    with dask.config.set(ROUTES):
        async with Scheduler(
            host="127.0.0.1", port=0, dashboard=False, dashboard_address=":0"
        ) as scheduler:
            scheduler.add_plugin(GoneWorkers())
            options = {"nthreads": 1, "dashboard": False, "dashboard_address": ":0"}
            async with (
                Worker(scheduler.address, name="a", **options) as first,
                Worker(scheduler.address, name="b", **options),
            ):
                await scheduler.retire_workers([first.address])
                while first.address in scheduler.workers:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                answer = await ask(scheduler, "POST", "retire_workers", n=2)
                found["retired"] = sorted(one["name"] for one in answer.values())
                answer = await ask(scheduler, "POST", "retire_workers", n=2)
                found["again"] = [one["name"] for one in answer.values()]
    return found


def test_who_was_asked_to_leave_by_others_is_let_go() -> None:
    """Its pod would begin it again, and the cluster stay too large."""
    found = asyncio.run(leaving_after_strangers())

    assert found == {"retired": ["a", "b"], "again": []}


def test_as_many_leave_as_are_asked_for() -> None:
    """Those that were chosen, were not told to end, and still run, count again."""
    loads = {name: Load(0, 0, name, name) for name in "abcd"}
    candidates = [
        Candidate(loads["a"], closing=False, chosen_for=1.0),
        Candidate(loads["b"], closing=False, chosen_for=10.0),
        Candidate(loads["c"], closing=False),
        Candidate(loads["d"], closing=True),
    ]

    def names(n: int) -> str:
        return "".join(one.name for one in choose_retiring(candidates, n))

    assert [names(n) for n in range(5)] == ["", "d", "dc", "dcb", "dcb"]
