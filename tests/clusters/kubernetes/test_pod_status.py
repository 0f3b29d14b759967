"""Every reason for which Kubernetes ends a pod, or does not start it: told by its name."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from dask_hpsearch.clusters.kubernetes.diagnosis import (
    Problem,
    first_log,
    needs_events,
    node_sizes,
    pod_problem,
    with_node_sizes,
)
from dask_hpsearch.clusters.kubernetes.driver_job import DriverEnd, end_of, why_given_up
from dask_hpsearch.engine.cluster_watch import ProblemLog
from dask_hpsearch.journal.events import (
    ClusterUsage,
    DriverProcess,
    Event,
    HeartbeatEvent,
    StateEvent,
)
from dask_hpsearch.journal.run_state import RunState
from dask_hpsearch.progress import text
from dask_hpsearch.runs import views

NOW = dt.datetime(2026, 1, 1, 12, 0, 0, tzinfo=dt.UTC)
POD = "search-1-default-worker-5d-8bf"


def ago(seconds: float) -> str:
    """Write a time as Kubernetes does."""
    return f"{NOW - dt.timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"


def pod(*, age: float = 100, **status: Any) -> dict[str, Any]:
    """Return a worker's pod as Kubernetes has it."""
    asked = {"requests": {"cpu": "4", "memory": "8Gi"}, "limits": {"memory": "8Gi"}}
    return {
        "metadata": {
            "name": POD,
            "creationTimestamp": ago(age),
            "labels": {"dask.org/component": "worker"},
        },
        "spec": {"containers": [{"resources": asked}], "nodeName": "node-1"},
        "status": status,
    }


def failed(reason: str, message: str = "") -> dict[str, Any]:
    """Return a pod that the kubelet, or a controller, has ended."""
    return pod(phase="Failed", reason=reason, message=message)


def ended(reason: str, code: int, **more: Any) -> dict[str, Any]:
    """Return a Job's pod whose container has ended."""
    state = {"terminated": {"reason": reason, "exitCode": code, **more}}
    return pod(phase="Failed", containerStatuses=[{"ready": False, "state": state}])


def waits(reason: str, message: str = "") -> dict[str, Any]:
    """Return a pod whose container does not come into being."""
    waiting = {"reason": reason, "message": message}
    status = {"image": "place/image:1", "ready": False, "state": {"waiting": waiting}}
    return pod(phase="Pending", containerStatuses=[status])


EMPTY_DIR = 'Usage of EmptyDir volume "scratch" exceeds the limit "1Gi". '
CONTAINER = "Container worker exceeded its local ephemeral storage limit "
POD_TOTAL = (
    "Pod ephemeral local storage usage exceeds the total limit of containers 2Gi. "
)
NODE_DISK = (
    "The node was low on resource: ephemeral-storage. Container worker was using 5Gi, which "
    "exceeds its request of 0. "
)
NODE_MEMORY = (
    "The node was low on resource: memory. Container worker was using 9Gi, which exceeds "
    "its request of 8Gi. "
)


@pytest.mark.parametrize(
    ("one", "outlook", "reason", "says"),
    [
        (failed("Evicted", EMPTY_DIR), "wait", "Evicted", "was evicted: Usage of Em"),
        (failed("Evicted", NODE_MEMORY), "wait", "Evicted", "low on resource: memory"),
        (failed("DeadlineExceeded", "too long"), "crash", "DeadlineExceeded", "longer"),
        (failed("NodeLost", "unresponsive"), "wait", "NodeLost", "its node was lost"),
        (failed("Terminated", "in response"), "wait", "Terminated", "was shut down"),
        (failed("NodeShutdown"), "wait", "NodeShutdown", "was shut down"),
        (failed("Preempting"), "wait", "Preempting", "higher priority"),
        (failed("OutOfcpu", "no room"), "wait", "OutOfcpu", "had no room for it"),
        (failed("NodeAffinity"), "wait", "NodeAffinity", "does not accept such pods"),
        (failed("SomethingNew", "words"), "wait", "SomethingNew", "words"),
        (ended("OOMKilled", 137), "crash", "OOMKilled", "(OOMKilled)"),
        (ended("Error", 1, message="why"), "crash", "Error", "exit code 1 (Error)"),
        (ended("Error", 137), "crash", "Error", "exit code 137, SIGKILL"),
        (
            ended("ContainerStatusUnknown", 137),
            "wait",
            "ContainerStatusUnknown",
            "lost",
        ),
        (waits("ErrImagePull", "denied"), "stuck", "ErrImagePull", "'place/image:1'"),
        (
            waits("ImagePullBackOff", "Back-off"),
            "stuck",
            "ImagePullBackOff",
            "Back-off",
        ),
        (waits("InvalidImageName"), "stuck", "InvalidImageName", "InvalidImageName"),
        (waits("ErrImageNeverPull"), "stuck", "ErrImageNeverPull", "cannot be pulled"),
        (
            waits("CreateContainerConfigError", 'secret "a" not found'),
            "stuck",
            "CreateContainerConfigError",
            'secret "a" not found',
        ),
        (waits("RunContainerError"), "stuck", "RunContainerError", "cannot be created"),
    ],
)
def test_why_a_pod_does_not_run_is_told_by_its_name(
    one: dict[str, Any], outlook: str, reason: str, says: str
) -> None:
    """With the pod's name, and whether waiting may help."""
    found = pod_problem(one, now=NOW)

    assert found is not None
    assert (found.outlook, found.reason, found.pod) == (outlook, reason, POD)
    assert found.message.startswith(f"pod {POD}")
    assert says in found.message
    assert found.part == "worker"
    assert found.over == (one["status"]["phase"] == "Failed")


@pytest.mark.parametrize(
    ("message", "is_disk"),
    [
        (EMPTY_DIR, True),
        (CONTAINER, True),
        (POD_TOTAL, True),
        (NODE_DISK, True),
        ("The node had condition: [DiskPressure]. ", True),
        (NODE_MEMORY, False),
        ("The node had condition: [MemoryPressure]. ", False),
        ("", False),
    ],
)
def test_evictions_for_a_full_disk_are_told_from_others(
    message: str, *, is_disk: bool
) -> None:
    """In the words that kubelets have for it."""
    found = pod_problem(failed("Evicted", message), now=NOW)

    assert found is not None
    assert found.is_full_disk is is_disk


def unschedulable(seconds: float) -> dict[str, Any]:
    """Return a pod that has found no node for some seconds."""
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/2 nodes are available: 2 Insufficient cpu.",
        "lastTransitionTime": ago(seconds),
    }
    return pod(age=seconds, phase="Pending", conditions=[condition])


def event(reason: str, message: str, seconds: float) -> dict[str, Any]:
    """Return an event of some seconds ago."""
    return {"reason": reason, "message": message, "lastTimestamp": ago(seconds)}


@pytest.mark.parametrize(
    ("seconds", "events", "outlook", "says"),
    [
        (10, [], "wait", "Insufficient cpu"),
        (60, [], "late", "no node is being added"),
        (60, [event("TriggeredScaleUp", "1->2", 30)], "wait", "a node is being added"),
        (3600, [event("TriggeredScaleUp", "1->2", 1800)], "late", "no node is being"),
        (
            60,
            [event("NotTriggerScaleUp", "2 max node group size reached", 5)],
            "late",
            "no node is being added",
        ),
        (
            60,
            [event("NotTriggerScaleUp", "1 in backoff after failed scale-up", 5)],
            "wait",
            "in backoff",
        ),
        (60, [event("FailedScaleUp", "GCE out of resources", 5)], "wait", "out of res"),
    ],
)
def test_want_of_room_is_an_error_when_nobody_makes_room(
    seconds: float, events: list[dict[str, Any]], outlook: str, says: str
) -> None:
    """An autoscaler says what it does; without one, time tells."""
    found = pod_problem(unschedulable(seconds), events, now=NOW)

    assert found is not None
    assert found.outlook == outlook
    assert found.lasts == (outlook == "late")
    assert says in found.message
    assert "it requests cpu 4, memory 8Gi" in found.message


def test_what_nodes_have_is_told_with_it() -> None:
    """Each size once; a user who may not see nodes learns what the scheduler says."""
    sizes = {"cpu": "2", "memory": "8Gi"}
    nodes = [{"status": {"allocatable": sizes}}] * 3
    found = pod_problem(unschedulable(60), now=NOW)
    assert found is not None

    assert node_sizes(nodes) == "3 of cpu 2, memory 8Gi"
    assert with_node_sizes(found, nodes).message.endswith(
        "Allocatable on nodes: 3 of cpu 2, memory 8Gi"
    )
    assert with_node_sizes(found, []) == found


@pytest.mark.parametrize("reason", ["FailedMount", "FailedCreatePodSandBox"])
@pytest.mark.parametrize(("seconds", "outlook"), [(5, "wait"), (60, "late")])
def test_what_a_node_lacks_for_a_pod_is_told(
    reason: str, seconds: float, outlook: str
) -> None:
    """A pod may wait for ever for a Secret that is not there."""
    one = pod(age=seconds, phase="Pending")
    events = [event(reason, 'secret "a" not found', 1)]

    found = pod_problem(one, events, now=NOW)

    assert needs_events(one)
    assert found is not None
    assert (found.outlook, found.reason) == (outlook, reason)
    assert 'secret "a" not found' in found.message


def test_a_node_that_no_longer_answers_is_told() -> None:
    """Its pods are unready, though their containers are not."""
    one = pod(
        phase="Running",
        conditions=[{"type": "Ready", "status": "False"}],
        containerStatuses=[{"ready": True, "state": {"running": {}}}],
    )

    found = pod_problem(one, now=NOW)

    assert found is not None
    assert found.reason == "NodeNotReady"
    assert found.message.endswith("does not respond any more: node-1")


@pytest.mark.parametrize(
    "line",
    [
        "unable to retrieve container logs for containerd://abc",
        "failed to create fsnotify watcher: too many open files",
        "failed to try resolving symlinks in path",
        "rpc error: code = NotFound desc = not found",
    ],
)
def test_a_kubelets_excuse_is_no_log(line: str) -> None:
    """It comes where a log would."""
    assert first_log([line, "the log"]) == "the log"


OOM = DriverEnd("pod d used more memory than its limit (OOMKilled)", "OOMKilled", "1Gi")


def test_a_driver_that_is_oom_killed_three_times_is_given_up() -> None:
    """With what it needs, and where to say so."""
    lost = DriverEnd("pod d was evicted", "Evicted", "1Gi")

    assert why_given_up([OOM, lost, OOM], used=0, doing="in the refit") is None
    text = why_given_up([OOM, lost, OOM, OOM], used=2**29, doing="in the refit")

    assert text is not None
    assert "killed 3 times" in text
    assert "its limit of 1Gi (OOMKilled), in the refit; it used up to 0.50 GiB" in text
    assert "driver: {memory: 2Gi}" in text


def test_the_limit_of_a_driver_is_that_of_its_pod() -> None:
    """As Kubernetes has it."""
    problem = Problem("crash", "m", reason="OOMKilled", over=True)

    assert end_of(pod(), problem) == DriverEnd("m", "OOMKilled", "8Gi")


def test_each_problem_is_news_once() -> None:
    """What had ended before is no news, but for the driver's own pods."""
    old = Problem("wait", "old", "a", reason="Evicted", part="worker", over=True)
    own = Problem("crash", "own", "b", reason="OOMKilled", part="driver", over=True)
    new = Problem("wait", "new", "c", reason="Evicted", part="worker", over=True)
    book = ProblemLog()

    assert book.update([old, own], 0.0) == [own]
    assert book.text(0.0) == "own"
    assert book.update([old, own, new], 5.0) == [new]
    assert book.update([old, own, new], 10.0) == []
    assert book.text(10.0) == "new (and 1 more)"
    assert book.text(1000.0) == ""


def test_what_lasts_is_shown_as_long_as_it_lasts() -> None:
    """A pod that waits for a node."""
    waiting = Problem("late", "no node", "a", reason="Unschedulable", part="worker")
    book = ProblemLog()
    book.update([waiting], 0.0)

    assert book.text(10_000.0) == "no node"
    book.update([], 10_001.0)
    assert book.text(10_001.0) == ""


def beat(problem: str = "", at: float = 2.0) -> HeartbeatEvent:
    """Note a heartbeat."""
    usage = ClusterUsage(workers=1, slots=1, running=1, problem=problem)
    return HeartbeatEvent(generation=0, time=at, usage=usage)


def state(state: RunState, at: float, error: str = "") -> StateEvent:
    """Note a state."""
    process = DriverProcess(driver="d", host="h", pid=1, started=0.0, own=True)
    return StateEvent(generation=0, time=at, state=state, process=process, error=error)


AGAIN = state(RunState.STARTING, 3.0, "no worker")
RUNNING = state(RunState.RUNNING, 4.0)


@pytest.mark.parametrize(
    ("events", "ended", "shown"),
    [
        ([beat("pod p was evicted")], False, "pod p was evicted"),
        ([beat("pod p was evicted"), beat(at=3.0)], False, ""),
        ([beat(), AGAIN], False, "no worker"),
        ([beat(), AGAIN, RUNNING], False, ""),
        ([beat("pod p was evicted")], True, ""),
    ],
)
def test_who_looks_on_sees_what_is_wrong(
    events: list[Event],
    *,
    ended: bool,
    shown: str,
) -> None:
    """As the driver noted it last; in a line of its own."""
    snapshot = views.progress(events, refit=None, ended=ended)

    assert snapshot.problem == shown
    assert text.problem(snapshot) == ([f"cluster: {shown}"] if shown else [])
    assert shown in text.line(snapshot)
