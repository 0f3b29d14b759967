"""Says in words why pods do not start: pure functions of what Kubernetes reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Manifest = dict[str, Any]
# "wait": it may end by itself, when a node or a quota becomes free.
Outlook = Literal["stuck", "wait", "crash"]

_NO_IMAGE = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
)
_NO_CONTAINER = frozenset(
    {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
)
_CRASHES = 2


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with a pod, or with making one.

    Attributes
    ----------
    outlook : str
        "stuck": it stays so; "wait": it may pass; "crash": its logs say more.
    message : str
    pod : str
        Its name; empty if there is no pod.
    """

    outlook: Outlook
    message: str
    pod: str = ""


def pod_trouble(pod: Manifest, events: Iterable[Manifest] = ()) -> Trouble | None:
    """Return what keeps a pod from running; None if it runs, or is just starting."""
    name = pod["metadata"]["name"]
    status = pod.get("status", {})
    for container in status.get("containerStatuses", []):
        found = _container_trouble(container, events)
        if found is not None:
            return Trouble(found.outlook, f"pod {name}: {found.message}", name)
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            reason = condition.get("message", "no reason given")
            return Trouble("wait", f"pod {name} finds no node: {reason}", name)
    failed = [event for event in events if event.get("reason") == "FailedMount"]
    if failed:
        return Trouble("wait", f"pod {name}: {failed[-1]['message']}", name)
    return None


def deployment_trouble(deployment: Manifest) -> Trouble | None:
    """Return why no pod is made, as when a quota is used up; None if all is well."""
    for condition in deployment.get("status", {}).get("conditions", []):
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            name = deployment["metadata"]["name"]
            reason = condition.get("message", "")
            # Accounts are made at the same time as the first pods.
            passing = "serviceaccount" in reason and "not found" in reason
            return Trouble(
                "wait" if passing else "stuck", f"no pod for {name}: {reason}"
            )
    return None


def last_words(log: str, lines: int = 12) -> str:
    """Return the end of a log, to be quoted in an error."""
    kept: Sequence[str] = [line for line in log.splitlines() if line.strip()][-lines:]
    return "\n".join(f"    {line}" for line in kept)


def _container_trouble(
    container: Manifest, events: Iterable[Manifest]
) -> Trouble | None:
    waiting = container.get("state", {}).get("waiting") or {}
    reason = waiting.get("reason", "")
    if reason in _NO_IMAGE:
        said = waiting.get("message", "")
        pulls = [event["message"] for event in events if event["reason"] == "Failed"]
        # The event of the first attempt says why; later ones, that it waits.
        said = next((text for text in pulls if "image" in text.lower()), said)
        image = container["image"]
        return Trouble("stuck", f"its image {image!r} cannot be pulled: {said}")
    if reason in _NO_CONTAINER:
        said = waiting.get("message", "no reason given")
        return Trouble("stuck", f"its container cannot be made: {said}")
    ended = (
        container.get("state", {}).get("terminated")
        or container.get("lastState", {}).get("terminated")
        or {}
    )
    if ended.get("reason") == "OOMKilled":
        return Trouble("crash", "it used more memory than its limit (OOMKilled)")
    if container.get("restartCount", 0) >= _CRASHES and not container.get("ready"):
        code = ended.get("exitCode", "unknown")
        return Trouble("crash", f"it ends again and again, with exit code {code}")
    return None
