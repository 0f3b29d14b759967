"""Says in words why pods do not start: pure functions of what Kubernetes reports."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from dask_hpsearch.clusters.manifests import EXIT_REFUSED, EXIT_SKEW

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Manifest = dict[str, Any]
# "wait": it may end by itself, when a node or a quota becomes free. "skew": other versions.
Outlook = Literal["wait", "stuck", "crash", "skew"]

_NO_IMAGE = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
)
_NO_CONTAINER = frozenset(
    {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
)
_CRASHES = 2
_NO_LOG = re.compile(
    r"\s*(unable to retrieve container logs|failed to (try )?(open|resolv)|Error on reading)"
    r"|.*no such file or directory\s*\Z"
)
_REFUSED = "refused: "  # how our programs begin the line that says why they end
_SEVERITY: tuple[Outlook, ...] = ("wait", "stuck", "crash", "skew")


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with a pod, or with making one.

    Attributes
    ----------
    outlook : str
        "stuck": it stays so; "wait": it may pass; "crash": it ends again and again;
        "skew": so it does, since its versions are not those of the scheduler.
    message : str
    pod : str
        Its name; empty if there is no pod.
    words : str
        The end of its log, if Kubernetes has kept it.
    """

    outlook: Outlook
    message: str
    pod: str = ""
    words: str = ""

    def quoted(self, log: str) -> str:
        """Say it with the last lines of a log."""
        words = last_words(log)
        return (
            f"{self.message}. The end of its log:\n{words}" if words else self.message
        )


def pod_trouble(pod: Manifest, events: Iterable[Manifest] = ()) -> Trouble | None:
    """Return what keeps a pod from running; None if it runs, or is just starting."""
    name = pod["metadata"]["name"]
    status = pod.get("status", {})
    if status.get("reason") == "Evicted":
        said = status.get("message", "no reason given")
        return Trouble("wait", f"pod {name} was evicted: {said}", name)
    for container in status.get("containerStatuses", []):
        found = _container_trouble(container, events)
        if found is not None:
            message = f"pod {name}: {found.message}"
            return Trouble(found.outlook, message, name, found.words)
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            reason = condition.get("message", "no reason given")
            return Trouble("wait", f"pod {name} finds no node: {reason}", name)
    failed = [event for event in events if event.get("reason") == "FailedMount"]
    if failed:
        return Trouble("wait", f"pod {name}: {failed[-1]['message']}", name)
    return None


def starting(pod: Manifest) -> Trouble:
    """Say of a pod without trouble that it is not ready yet."""
    name = pod["metadata"]["name"]
    return Trouble("wait", f"pod {name} is still starting: wait longer for it", name)


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


def worst(troubles: Iterable[Trouble | None]) -> Trouble | None:
    """Return the one that is least likely to pass; None if there is none."""
    found = [one for one in troubles if one is not None]
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
    return None if container.get("ready") else _end_of(container, ended)


def _end_of(container: Manifest, ended: Manifest) -> Trouble | None:
    """Say how a container that is not ready ended before."""
    words, code = ended.get("message", ""), ended.get("exitCode")
    if ended.get("reason") == "OOMKilled":
        text = "it used more memory than its limit (OOMKilled)"
        return Trouble("crash", text, words=words)
    if code in (EXIT_REFUSED, EXIT_SKEW):
        said = [line for line in words.splitlines() if line.startswith(_REFUSED)]
        text = said[-1].removeprefix(_REFUSED) if said else "it refuses to run"
        return Trouble("skew" if code == EXIT_SKEW else "crash", text)
    if container.get("restartCount", 0) >= _CRASHES:
        text = f"it ends again and again, with exit code {code}"
        return Trouble("crash", text, words=words)
    return None
