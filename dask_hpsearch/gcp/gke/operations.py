"""GKE's long-running operations, followed to their end; and the clock that is waited by."""

from __future__ import annotations

import contextlib
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from google.api_core import exceptions
from google.cloud import container_v1 as v1
from google.rpc import code_pb2

from dask_hpsearch.exceptions import (
    CloudError,
    CloudQuotaError,
    CloudRightsError,
    CloudTimeoutError,
    OperationFailedError,
)
from dask_hpsearch.gcp.api_errors import map_google_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from dask_hpsearch.gcp.api_errors import Retry

SERVICE = "container.googleapis.com"
ADMIN = "roles/container.admin"
_ACT_AS = "serviceAccountUser"
_OUT_OF_QUOTA = re.compile(
    r"(insufficient|exceed)[^.]*quota|quota[^.]*exceed", re.IGNORECASE
)
_DONE = v1.Operation.Status.DONE
_CODES = v1.StatusCondition.Code
_SHORT_OF = ("quota", "stockout", "does not have enough resources", "resource pool exh")


@dataclass(frozen=True, slots=True)
class Clock:
    """What time it is, and a way to wait.

    Attributes
    ----------
    now : callable
        Returns seconds since the epoch.
    sleep : callable
        Waits for some seconds.
    """

    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True, slots=True)
class Limits:
    """How long GKE's operations may take, in seconds.

    Attributes
    ----------
    create_s, delete_s : float
        Of a GKE cluster; GKE takes 4 to 10 minutes for either.
    change_s : float
        Of a pool or of labels.
    poll_s : float
        Between two looks.
    """

    create_s: float = 2400.0
    delete_s: float = 2400.0
    change_s: float = 1200.0
    poll_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Follower:
    """Follows operations in one project.

    Attributes
    ----------
    client : ClusterManagerClient
    project : str
    retry : Retry
    say : callable
        Given a line whenever there is something new.
    clock : Clock
    limits : Limits
    """

    client: Any
    project: str
    retry: Retry
    say: Callable[[str], None]
    clock: Clock = field(default_factory=Clock)
    limits: Limits = field(default_factory=Limits)

    def follow(
        self, parent: str, operation: v1.Operation, doing: str, limit_s: float
    ) -> None:
        """Wait until an operation has ended well.

        Parameters
        ----------
        parent : str
            The location, as ``projects/P/locations/L``.
        operation : Operation
        doing : str
            What it does, as "create the GKE cluster 'x'".
        limit_s : float
            Seconds until it must have ended.

        Raises
        ------
        OperationFailedError, CloudQuotaError, CloudRightsError
            If it ended with an error; with GKE's words.
        CloudTimeoutError
            If it has not ended.
        CloudError
            If Google does not tell.
        """
        name = f"{parent}/operations/{operation.name}"
        began, said = self.clock.now(), ""
        while operation.status != _DONE:
            if self.clock.now() - began > limit_s:
                raise _too_late(parent, operation, doing, limit_s)
            stage = _stage(operation)
            if stage != said:
                said = stage
                self.say(f"{doing}: {stage}")
            self.clock.sleep(self.limits.poll_s)
            found = self._look(name, doing)
            if found is None:  # it is long over: its work says how it ended
                return
            operation = found
        if operation.error.code:
            raise failure(doing, [operation.error.message], operation.error.code)
        if operation.status_message:  # how older versions told of an error
            raise failure(doing, [operation.status_message])

    def _look(self, name: str, doing: str) -> v1.Operation | None:
        request = v1.GetOperationRequest(name=name)
        with map_gke_errors(doing, self.project):
            try:
                found: v1.Operation = self.client.get_operation(
                    request, **self.retry.reading
                )
            except exceptions.NotFound:
                return None
        return found


@contextlib.contextmanager
def map_gke_errors(doing: str, project: str) -> Iterator[None]:
    """Turn what GKE refuses into errors of ours, with the command that mends it.

    Raises
    ------
    CloudError
    """
    try:
        with map_google_errors(doing, project, SERVICE, ADMIN):
            yield
    except CloudRightsError as error:
        said = str(error)
        if _OUT_OF_QUOTA.search(said):  # of which GKE tells with HTTP's 403
            raise failure(doing, [said.partition("Google says: ")[2]]) from error
        if _ACT_AS not in said:
            raise
        msg = (
            f"cannot {doing}: you may not let nodes run as their service account. Let its "
            "owner grant it: gcloud iam service-accounts add-iam-policy-binding ACCOUNT "
            f"--member=user:YOU --role=roles/iam.{_ACT_AS} --project={project}. "
            f"Google says: {said.partition('Google says: ')[2]}"
        )
        raise CloudRightsError(msg) from error


def failure(doing: str, reasons: Iterable[str], code: int = 0) -> CloudError:
    """Make the error of an operation, or of a cluster, that ended badly."""
    said = "; ".join(reason for reason in reasons if reason) or "GKE does not say why"
    short = any(word in said.lower() for word in _SHORT_OF)
    if code == code_pb2.RESOURCE_EXHAUSTED or short:
        return CloudQuotaError(
            f"cannot {doing}: the quota does not suffice, or the zone has no such machines "
            "now. Ask for more at https://console.cloud.google.com/iam-admin/quotas, or "
            f"take fewer, other machines, or another zone. GKE says: {said}"
        )
    if code == code_pb2.PERMISSION_DENIED:
        return CloudRightsError(
            f"cannot {doing}: a service account lacks a right. GKE says: {said}"
        )
    return OperationFailedError(f"GKE could not {doing}: {said}")


def conditions(found: v1.Cluster | v1.NodePool) -> list[str]:
    """Return what GKE says about the state of a cluster or a pool."""
    said = [
        f"{_CODES(one.code).name}: {one.message}"
        if one.code != _CODES.UNKNOWN
        else one.message
        for one in found.conditions
    ]
    return said or [found.status_message]


def is_busy(error: exceptions.GoogleAPICallError) -> bool:
    """Whether a cluster is refused to be changed because of another operation."""
    return isinstance(error, exceptions.Aborted) or "operation" in error.message.lower()


def _too_late(
    parent: str, operation: v1.Operation, doing: str, limit_s: float
) -> CloudTimeoutError:
    return CloudTimeoutError(
        f"GKE took longer than {limit_s / 60:.0f} minutes to {doing} "
        f"({_stage(operation)}): look at it with gcloud container operations "
        f"describe {operation.name} --location={parent.rpartition('/')[2]}"
    )


def _stage(operation: v1.Operation) -> str:
    """Say how far an operation is."""
    parts = [operation.detail or operation.status.name.lower()]
    for metric in operation.progress.metrics:
        value = metric.string_value or metric.int_value or metric.double_value
        parts.append(f"{metric.name} {value}")
    return ", ".join(parts)
