"""Says in words why pods do not start, or have ended: pure functions of what Kubernetes reports."""

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
# "wait": it may end by itself, when a node or a quota becomes free. "late": it would have
# ended by now, if it did by itself. "skew": other versions.
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
# Why pods end that are not to blame for it; another one is made in their place.
_ENDED_BY_OTHERS = {
    "NodeLost": "its node is lost",
    "NodeShutdown": "its node was shut down",
    "Shutdown": "its node was shut down",
    "Terminated": "its node was shut down",
    "Preempting": "a pod of higher priority took its place",
    "Preempted": "a pod of higher priority took its place",
    "NodeAffinity": "its node takes no such pods any more",
    "UnexpectedAdmissionError": "its node did not take it",
    "ContainerStatusUnknown": "its node has lost track of it",
}
# What Kubernetes says of a pod that is Pending; the volumes of a pod are made a moment
# after the pod.
_NOT_YET = (
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
# An autoscaler says within half a minute what it does about a pod.
_LATE_AFTER_S = 45.0
_SCALE_UP_S = 900.0
_NO_LOG = re.compile(
    r"\s*(unable to retrieve container logs|failed to (try )?(open|resolv)"
    r"|failed to (create|watch|add) |Error on reading|rpc error: )"
    r"|.*no such file or directory\s*\Z"
)
_REFUSED = "refused: "  # how our programs begin the line that says why they end
_SEVERITY: tuple[Outlook, ...] = ("wait", "late", "stuck", "crash", "skew")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a pod, or with making one.

    Attributes
    ----------
    outlook : str
        "stuck": it stays so; "late": it has lasted for too long to pass by itself; "wait":
        it may pass; "crash": it ends again and again; "skew": so it does, since its
        versions are not those of the scheduler.
    message : str
    pod : str
        Its name; empty if there is no pod.
    words : str
        The end of its log, if Kubernetes has kept it.
    reason : str
        Kubernetes' own word for it, as "OOMKilled" or "Unschedulable".
    part : str
        "worker", "scheduler" or "driver".
    over : bool
        Whether the pod has ended: nothing more comes of it.
    """

    outlook: Outlook
    message: str
    pod: str = ""
    words: str = ""
    reason: str = ""
    part: str = ""
    over: bool = False

    def quoted(self, log: str) -> str:
        """Say it with the last lines of a log."""
        words = last_words(log)
        return (
            f"{self.message}. The end of its log:\n{words}" if words else self.message
        )

    @property
    def lasts(self) -> bool:
        """Whether it does not pass by itself."""
        return self.outlook != "wait"

    @property
    def is_full_disk(self) -> bool:
        """Whether the pod had to go since it, or its node, had no room for what it wrote."""
        return self.reason == "Evicted" and _FULL_DISK.search(self.message) is not None


def pod_problem(
    pod: Manifest, events: Iterable[Manifest] = (), *, now: dt.datetime | None = None
) -> Problem | None:
    """Return what keeps a pod from running, or ended it; None if it runs, or just starts.

    Parameters
    ----------
    pod : dict
        As Kubernetes has it.
    events : iterable of dict
        Those of the pod.
    now : datetime, optional
        What tells how long something has lasted; default: this moment.
    """
    now = now or dt.datetime.now(tz=dt.UTC)
    events = sorted(events, key=_moment_of_event)
    found = (
        _end_of_pod(pod)
        or _problem_of_containers(pod, events)
        or _no_node(pod, events, now)
        or _not_begun(pod, events, now)
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
    """Whether a pod's events may say more of it than the pod itself does."""
    phase = pod.get("status", {}).get("phase")
    return pod_problem(pod) is not None or phase == "Pending"


def sizes_asked(pod: Manifest) -> str:
    """Say what a pod asks of a node."""
    asked = [
        container.get("resources", {}).get("requests", {})
        for container in pod["spec"]["containers"]
    ]
    each = [
        f"cpu {one['cpu']}, memory {one['memory']}" for one in asked if "cpu" in one
    ]
    return " and ".join(each)


def sizes_offered(nodes: Iterable[Manifest], most: int = 5) -> str:
    """Say what nodes have for pods, each size once."""
    counts: dict[str, int] = {}
    for node in nodes:
        has = node.get("status", {}).get("allocatable", {})
        text = f"cpu {has.get('cpu')}, memory {has.get('memory')}"
        counts[text] = counts.get(text, 0) + 1
    counted = [f"{number} of {text}" for text, number in list(counts.items())[:most]]
    return "; ".join(counted)


def without_room(problem: Problem, nodes: Iterable[Manifest]) -> Problem:
    """Add to a pod's want of room what the nodes have."""
    offered = sizes_offered(nodes)
    if problem.reason != "Unschedulable" or not offered:
        return problem
    return replace(problem, message=f"{problem.message}. Nodes, as a whole: {offered}")


def starting(pod: Manifest) -> Problem:
    """Return the message of a pod without a problem that is not ready yet."""
    name = pod["metadata"]["name"]
    return Problem("wait", f"pod {name} is still starting: wait longer for it", name)


def deployment_problem(deployment: Manifest) -> Problem | None:
    """Return why no pod is made, as when a quota is used up; None if all is well."""
    for condition in deployment.get("status", {}).get("conditions", []):
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            name = deployment["metadata"]["name"]
            reason = condition.get("message", "")
            # Accounts are made at the same time as the first pods.
            passing = "serviceaccount" in reason and "not found" in reason
            return Problem(
                "wait" if passing else "stuck",
                f"no pod for {name}: {reason}",
                reason="FailedCreate",
            )
    return None


def worst(problems: Iterable[Problem | None]) -> Problem | None:
    """Return the one that is least likely to pass; None if there is none."""
    found = [one for one in problems if one is not None]
    return max(found, key=lambda one: _SEVERITY.index(one.outlook), default=None)


def is_ready(pod: Manifest) -> bool:
    """Whether a pod does its work, and is not about to end."""
    if pod["metadata"].get("deletionTimestamp"):
        return False
    conditions = pod.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def first_log(texts: Iterable[str]) -> str:
    """Return the first text that is a log, and not a word of why there is none.

    Both come from Kubernetes in the same place: the node may have removed the file.
    """
    return next((one for one in texts if one and not _NO_LOG.match(one)), "")


def last_words(log: str, lines: int = 12) -> str:
    """Return the end of a log, to be quoted in an error."""
    kept: Sequence[str] = [line for line in log.splitlines() if line.strip()][-lines:]
    return "\n".join(f"    {line}" for line in kept)


def _end_of_pod(pod: Manifest) -> Problem | None:
    """Say why a pod ended that does not begin again."""
    if not _has_failed(pod):
        return None
    status = pod["status"]
    reason = status.get("reason", "")
    said = status.get("message") or "no reason given"
    if reason == "Evicted":
        return Problem("wait", f" was evicted: {said}", reason=reason)
    if reason == "DeadlineExceeded":
        text = f": it ran longer than it may ({reason}): {said}"
        return Problem("crash", text, reason=reason)
    if reason in _ENDED_BY_OTHERS or reason.startswith("OutOf"):
        words = _ENDED_BY_OTHERS.get(reason, "its node had no room for it after all")
        return Problem("wait", f" ended: {words} ({reason}): {said}", reason=reason)
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


def _no_node(pod: Manifest, events: list[Manifest], now: dt.datetime) -> Problem | None:
    """Say what a pod lacks that no node takes; what an autoscaler adds is waited for."""
    for condition in pod.get("status", {}).get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            said = condition.get("message", "no reason given")
            asked = sizes_asked(pod) if "spec" in pod else ""
            text = f" finds no node: {said}" + (
                f" (it asks for {asked})" if asked else ""
            )
            since = condition.get("lastTransitionTime") or _created(pod)
            late = _seconds(since, now) > _LATE_AFTER_S
            scaling = _scaling_up(events, now)
            if scaling:
                return Problem("wait", f"{text}; {scaling}", reason="Unschedulable")
            if late:
                text += "; no node is being added for it"
            return Problem("late" if late else "wait", text, reason="Unschedulable")
    return None


def _scaling_up(events: list[Manifest], now: dt.datetime) -> str:
    """Say whether an autoscaler adds a node, or will try again; "" if it does not."""
    for event in reversed(events):
        reason, said = event.get("reason"), event.get("message", "")
        if _seconds(_time_of(event), now) > _SCALE_UP_S:
            return ""
        if reason == "TriggeredScaleUp":
            return "a node is being added"
        if reason == "FailedScaleUp":
            return f"no node could be added so far: {said}"
        if reason == "NotTriggerScaleUp":
            return f"no node could be added so far: {said}" if "backoff" in said else ""
    return ""


def _not_begun(
    pod: Manifest, events: list[Manifest], now: dt.datetime
) -> Problem | None:
    """Say what a node lacks for a pod that it has taken."""
    if pod.get("status", {}).get("phase", "Pending") != "Pending":
        return None
    failed = [event for event in events if event.get("reason") in _NOT_YET]
    if not failed:
        return None
    late = _seconds(_created(pod), now) > _LATE_AFTER_S
    last = failed[-1]
    text = f" cannot begin: {last.get('message', last['reason'])}"
    return Problem("late" if late else "wait", text, reason=last["reason"])


def _silent_node(pod: Manifest) -> Problem | None:
    """Say that a node no longer answers: its pods are unready, their containers are not."""
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
        text = f" is on a node that no longer answers: {node}"
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
        # The event of the first attempt says why; later ones, that it waits.
        said = next((text for text in pulls if "image" in text.lower()), said)
        image = container["image"]
        text = f": its image {image!r} cannot be pulled: {said or reason}"
        return Problem("stuck", text, reason=reason)
    if reason in _NO_CONTAINER:
        said = waiting.get("message", "no reason given")
        text = f": its container cannot be made ({reason}): {said}"
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
        text = f": it ends again and again, with {_exit_in_words(ended)}"
        words = ended.get("message", "")
        return Problem("crash", text, words=words, reason=ended.get("reason", "Error"))
    return None


def _end_of_container(ended: Manifest) -> Problem:
    """Say how a container ended."""
    words, code = ended.get("message", ""), ended.get("exitCode")
    reason = ended.get("reason", "Error")
    if reason == "OOMKilled":
        text = ": it used more memory than its limit (OOMKilled)"
        return Problem("crash", text, words=words, reason=reason)
    if code in (EXIT_REFUSED, EXIT_SKEW):
        said = [line for line in words.splitlines() if line.startswith(_REFUSED)]
        text = said[-1].removeprefix(_REFUSED) if said else "it refuses to run"
        outlook: Outlook = "skew" if code == EXIT_SKEW else "crash"
        return Problem(outlook, f": {text}", reason=reason)
    if reason in _ENDED_BY_OTHERS:
        text = f" ended: {_ENDED_BY_OTHERS[reason]} ({reason})"
        return Problem("wait", text, reason=reason)
    text = f": it ended with {_exit_in_words(ended)} ({reason})"
    return Problem("crash", text, words=words, reason=reason)


def _exit_in_words(ended: Manifest) -> str:
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
    """Return how long ago a time of Kubernetes' is; 0 if it is not known."""
    if not since:
        return 0.0
    return (now - dt.datetime.fromisoformat(since)).total_seconds()
