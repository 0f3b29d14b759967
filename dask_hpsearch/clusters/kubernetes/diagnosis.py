"""Explains why pods do not start, or have ended, from what Kubernetes reports."""

from __future__ import annotations

import datetime as dt
import re
import signal
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from dask_hpsearch.clusters.kubernetes.manifests import (
    COMPONENT_LABEL,
    EXIT_REFUSED,
    EXIT_SKEW,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Manifest = dict[str, Any]
# "wait": it may pass, when a node or a quota becomes free. "late": it should have passed by
# now. "skew": other versions.
Outlook = Literal["wait", "late", "stuck", "crash", "skew"]

_NO_IMAGE = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
    }
)
_NO_CONTAINER = frozenset(
    {
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
        "PreCreateHookError",
        "PostStartHookError",
    }
)
# Reasons outside of the pod; it is replaced by another one.
_ENDED_BY_OTHERS = {
    "NodeLost": "its node was lost",
    "NodeShutdown": "its node was shut down",
    "Shutdown": "its node was shut down",
    "Terminated": "its node was shut down",
    "Preempting": "a pod of higher priority took its place",
    "Preempted": "a pod of higher priority took its place",
    "NodeAffinity": "its node does not accept such pods any more",
    "UnexpectedAdmissionError": "its node refused it",
    "ContainerStatusUnknown": "its node has lost track of it",
}
# Events of a Pending pod; its volumes are created a moment after the pod.
_CREATION_EVENTS = (
    "FailedMount",
    "FailedAttachVolume",
    "FailedCreatePodSandBox",
    "FailedCreatePodContainer",
)
_FULL_DISK = re.compile(
    r"ephemeral[- ](local )?storage|emptydir volume|disk ?pressure|(node|image)fs|inodes",
    re.IGNORECASE,
)
_CRASHES = 2
# An autoscaler reports within half a minute what it does for a pod.
_LATE_AFTER = 45.0
_SCALE_UP_TIMEOUT = 900.0
_NO_LOG = re.compile(
    r"\s*(unable to retrieve container logs|failed to (try )?(open|resolv)"
    r"|failed to (create|watch|add) |Error on reading|rpc error: )"
    r"|.*no such file or directory\s*\Z"
)
_REFUSED = "refused: "  # prefix of a worker's line that says why it ends
_SEVERITY: tuple[Outlook, ...] = ("wait", "late", "stuck", "crash", "skew")


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem of a pod, or of its creation.

    Attributes
    ----------
    outlook : str
        "stuck": it does not pass; "late": it has lasted too long to pass by itself; "wait":
        it may pass; "crash": the pod ends repeatedly; "skew": it ends because its versions
        differ from the scheduler's.
    message : str
    pod : str
        Its name; empty if there is no pod.
    log : str
        The end of its log, if Kubernetes has kept it.
    reason : str
        Kubernetes' reason, as "OOMKilled" or "Unschedulable".
    part : str
        "worker", "scheduler" or "driver".
    over : bool
        Whether the pod has ended.
    """

    outlook: Outlook
    message: str
    pod: str = ""
    log: str = ""
    reason: str = ""
    part: str = ""
    over: bool = False

    def quoted(self, log: str) -> str:
        """Return the message with the last lines of a log."""
        lines = last_lines(log)
        return (
            f"{self.message}. The end of its log:\n{lines}" if lines else self.message
        )

    @property
    def lasts(self) -> bool:
        """Whether it does not pass by itself."""
        return self.outlook != "wait"

    @property
    def is_full_disk(self) -> bool:
        """Whether the pod was evicted because its volume or its node's disk was full."""
        return self.reason == "Evicted" and _FULL_DISK.search(self.message) is not None


def pod_problem(
    pod: Manifest, events: Iterable[Manifest] = (), *, now: dt.datetime | None = None
) -> Problem | None:
    """Return the problem of a pod; None if it runs, or is just starting.

    Parameters
    ----------
    pod : dict
        As Kubernetes has it.
    events : iterable of dict
        Those of the pod.
    now : datetime, optional
        For how long something has lasted; default: the current time.
    """
    now = now or dt.datetime.now(tz=dt.UTC)
    events = sorted(events, key=_moment_of_event)
    found = (
        _end_of_pod(pod)
        or _problem_of_containers(pod, events)
        or _unschedulable(pod, events, now)
        or _not_created(pod, events, now)
        or _silent_node(pod)
    )
    if found is None:
        return None
    name = pod["metadata"]["name"]
    return replace(
        found,
        message=f"pod {name}{found.message}",
        pod=name,
        part=pod["metadata"].get("labels", {}).get(COMPONENT_LABEL, ""),
        over=_has_failed(pod),
    )


def needs_events(pod: Manifest) -> bool:
    """Whether a pod's events may say more than its status."""
    phase = pod.get("status", {}).get("phase")
    return pod_problem(pod) is not None or phase == "Pending"


def requested_size(pod: Manifest) -> str:
    """Describe what a pod requests."""
    requests = [
        container.get("resources", {}).get("requests", {})
        for container in pod["spec"]["containers"]
    ]
    each = [
        f"cpu {one['cpu']}, memory {one['memory']}" for one in requests if "cpu" in one
    ]
    return " and ".join(each)


def node_sizes(nodes: Iterable[Manifest], limit: int = 5) -> str:
    """Describe what nodes have for pods, each size once."""
    counts: dict[str, int] = {}
    for node in nodes:
        has = node.get("status", {}).get("allocatable", {})
        text = f"cpu {has.get('cpu')}, memory {has.get('memory')}"
        counts[text] = counts.get(text, 0) + 1
    counted = [f"{number} of {text}" for text, number in list(counts.items())[:limit]]
    return "; ".join(counted)


def with_node_sizes(problem: Problem, nodes: Iterable[Manifest]) -> Problem:
    """Add the sizes of nodes to the problem of an unschedulable pod."""
    sizes = node_sizes(nodes)
    if problem.reason != "Unschedulable" or not sizes:
        return problem
    return replace(problem, message=f"{problem.message}. Allocatable on nodes: {sizes}")


def starting(pod: Manifest) -> Problem:
    """Return the problem of a pod that is not ready yet."""
    name = pod["metadata"]["name"]
    return Problem("wait", f"pod {name} is still starting: wait longer for it", name)


def deployment_problem(deployment: Manifest) -> Problem | None:
    """Return why a Deployment has no pod, as an exhausted quota; None if it has."""
    for condition in deployment.get("status", {}).get("conditions", []):
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            name = deployment["metadata"]["name"]
            reason = condition.get("message", "")
            # Service accounts are created at the same time as the first pods.
            passing = "serviceaccount" in reason and "not found" in reason
            return Problem(
                "wait" if passing else "stuck",
                f"no pod for {name}: {reason}",
                reason="FailedCreate",
            )
    return None


def worst(problems: Iterable[Problem | None]) -> Problem | None:
    """Return the problem that is least likely to pass; None if there is none."""
    found = [one for one in problems if one is not None]
    return max(found, key=lambda one: _SEVERITY.index(one.outlook), default=None)


def is_ready(pod: Manifest) -> bool:
    """Whether a pod is ready, and is not ending."""
    if pod["metadata"].get("deletionTimestamp"):
        return False
    conditions = pod.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def first_log(texts: Iterable[str]) -> str:
    """Return the first text that is a log, and not a message that there is none.

    Kubernetes returns such a message as a log if the node has removed the file.
    """
    return next((one for one in texts if one and not _NO_LOG.match(one)), "")


def last_lines(log: str, n: int = 12) -> str:
    """Return the end of a log, indented to be quoted in an error."""
    kept: Sequence[str] = [line for line in log.splitlines() if line.strip()][-n:]
    return "\n".join(f"    {line}" for line in kept)


def _end_of_pod(pod: Manifest) -> Problem | None:
    """Return why a pod has ended that is not restarted."""
    if not _has_failed(pod):
        return None
    status = pod["status"]
    reason = status.get("reason", "")
    said = status.get("message") or "no reason given"
    if reason == "Evicted":
        return Problem("wait", f" was evicted: {said}", reason=reason)
    if reason == "DeadlineExceeded":
        text = f": it ran longer than allowed ({reason}): {said}"
        return Problem("crash", text, reason=reason)
    if reason in _ENDED_BY_OTHERS or reason.startswith("OutOf"):
        cause = _ENDED_BY_OTHERS.get(reason, "its node had no room for it")
        return Problem("wait", f" ended: {cause} ({reason}): {said}", reason=reason)
    for container in _containers(pod):
        ended = container.get("state", {}).get("terminated") or {}
        if ended.get("exitCode"):
            return _end_of_container(ended)
    return Problem("wait", f" ended ({reason or 'Failed'}): {said}", reason=reason)


def _has_failed(pod: Manifest) -> bool:
    status = pod.get("status", {})
    return bool(status.get("phase") == "Failed" or status.get("reason") == "Evicted")


def _problem_of_containers(pod: Manifest, events: list[Manifest]) -> Problem | None:
    for container in _containers(pod):
        found = _container_problem(container, events)
        if found is not None:
            return found
    return None


def _containers(pod: Manifest) -> list[Manifest]:
    status = pod.get("status", {})
    return [
        *status.get("initContainerStatuses", []),
        *status.get("containerStatuses", []),
    ]


def _unschedulable(
    pod: Manifest, events: list[Manifest], now: dt.datetime
) -> Problem | None:
    """Return why no node accepts a pod; a node that an autoscaler adds is waited for."""
    for condition in pod.get("status", {}).get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            said = condition.get("message", "no reason given")
            size = requested_size(pod) if "spec" in pod else ""
            text = f" finds no node: {said}" + (
                f" (it requests {size})" if size else ""
            )
            since = condition.get("lastTransitionTime") or _created(pod)
            late = _seconds(since, now) > _LATE_AFTER
            scaling = _scaling_up(events, now)
            if scaling:
                return Problem("wait", f"{text}; {scaling}", reason="Unschedulable")
            if late:
                text += "; no node is being added for it"
            return Problem("late" if late else "wait", text, reason="Unschedulable")
    return None


def _scaling_up(events: list[Manifest], now: dt.datetime) -> str:
    """Describe what an autoscaler does for a pod; "" if it does nothing."""
    for event in reversed(events):
        reason, said = event.get("reason"), event.get("message", "")
        if _seconds(_time_of(event), now) > _SCALE_UP_TIMEOUT:
            return ""
        if reason == "TriggeredScaleUp":
            return "a node is being added"
        if reason == "FailedScaleUp":
            return f"no node could be added so far: {said}"
        if reason == "NotTriggerScaleUp":
            return f"no node could be added so far: {said}" if "backoff" in said else ""
    return ""


def _not_created(
    pod: Manifest, events: list[Manifest], now: dt.datetime
) -> Problem | None:
    """Return what a node lacks for a pod that was assigned to it."""
    if pod.get("status", {}).get("phase", "Pending") != "Pending":
        return None
    failed = [event for event in events if event.get("reason") in _CREATION_EVENTS]
    if not failed:
        return None
    late = _seconds(_created(pod), now) > _LATE_AFTER
    last = failed[-1]
    text = f" cannot start: {last.get('message', last['reason'])}"
    return Problem("late" if late else "wait", text, reason=last["reason"])


def _silent_node(pod: Manifest) -> Problem | None:
    """Return that a node does not respond: its pods are unready, their containers are not."""
    status = pod.get("status", {})
    containers = status.get("containerStatuses", [])
    if status.get("phase") != "Running" or pod["metadata"].get("deletionTimestamp"):
        return None
    unready = any(
        one["type"] == "Ready" and one["status"] != "True"
        for one in status.get("conditions", [])
    )
    if unready and containers and all(one.get("ready") for one in containers):
        node = pod.get("spec", {}).get("nodeName", "")
        text = f" is on a node that does not respond any more: {node}"
        return Problem("wait", text, reason="NodeNotReady")
    return None


def _container_problem(
    container: Manifest, events: Iterable[Manifest]
) -> Problem | None:
    waiting = container.get("state", {}).get("waiting") or {}
    reason = waiting.get("reason", "")
    if reason in _NO_IMAGE:
        said = waiting.get("message", "")
        pulls = [event["message"] for event in events if event["reason"] == "Failed"]
        # The event of the first attempt has the reason; later ones only say that it waits.
        said = next((text for text in pulls if "image" in text.lower()), said)
        image = container["image"]
        text = f": its image {image!r} cannot be pulled: {said or reason}"
        return Problem("stuck", text, reason=reason)
    if reason in _NO_CONTAINER:
        said = waiting.get("message", "no reason given")
        text = f": its container cannot be created ({reason}): {said}"
        return Problem("stuck", text, reason=reason)
    ended = (
        container.get("state", {}).get("terminated")
        or container.get("lastState", {}).get("terminated")
        or {}
    )
    if container.get("ready") or not ended:
        return None
    known = ended.get("reason") == "OOMKilled"
    refused = ended.get("exitCode") in (EXIT_REFUSED, EXIT_SKEW)
    if known or refused:
        return _end_of_container(ended)
    if container.get("restartCount", 0) >= _CRASHES:
        text = f": it ends repeatedly, with {_exit_text(ended)}"
        log = ended.get("message", "")
        return Problem("crash", text, log=log, reason=ended.get("reason", "Error"))
    return None


def _end_of_container(ended: Manifest) -> Problem:
    """Return how a container has ended."""
    log, code = ended.get("message", ""), ended.get("exitCode")
    reason = ended.get("reason", "Error")
    if reason == "OOMKilled":
        text = ": it used more memory than its limit (OOMKilled)"
        return Problem("crash", text, log=log, reason=reason)
    if code in (EXIT_REFUSED, EXIT_SKEW):
        said = [line for line in log.splitlines() if line.startswith(_REFUSED)]
        text = said[-1].removeprefix(_REFUSED) if said else "it refuses to run"
        outlook: Outlook = "skew" if code == EXIT_SKEW else "crash"
        return Problem(outlook, f": {text}", reason=reason)
    if reason in _ENDED_BY_OTHERS:
        text = f" ended: {_ENDED_BY_OTHERS[reason]} ({reason})"
        return Problem("wait", text, reason=reason)
    text = f": it ended with {_exit_text(ended)} ({reason})"
    return Problem("crash", text, log=log, reason=reason)


def _exit_text(ended: Manifest) -> str:
    code = ended.get("exitCode")
    number = code - 128 if isinstance(code, int) and code > 128 else 0  # noqa: PLR2004 (as shells do)
    names = {int(one): one.name for one in signal.Signals}
    name = f", {names[number]}" if number in names else ""
    return f"exit code {code}{name}"


def _moment_of_event(event: Manifest) -> str:
    return _time_of(event) or ""


def _time_of(event: Manifest) -> str | None:
    series = event.get("series") or {}
    times = (
        event.get("lastTimestamp"),
        series.get("lastObservedTime"),
        event.get("eventTime"),
        event.get("firstTimestamp"),
        event.get("metadata", {}).get("creationTimestamp"),
    )
    return next((str(one) for one in times if one), None)


def _created(pod: Manifest) -> str | None:
    created: str | None = pod["metadata"].get("creationTimestamp")
    return created


def _seconds(since: str | None, now: dt.datetime) -> float:
    """Return how many seconds ago a time was; 0 if it is unknown."""
    if not since:
        return 0.0
    return (now - dt.datetime.fromisoformat(since)).total_seconds()
