"""GKE's long-running operations: how long they may take, their stages, their errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from collections.abc import Iterable

_DONE = v1.Operation.Status.DONE
_CODES = v1.StatusCondition.Code
_SHORT_OF = ("quota", "stockout", "does not have enough resources", "resource pool exh")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long GKE's operations may take, in seconds.

    Attributes
    ----------
    create, delete : float
        Of a GKE cluster; GKE takes 4 to 10 minutes for either.
    change : float
        Of a node pool or of labels.
    poll_interval : float
        Between two requests for a status.
    """

    create: float = 2400.0
    delete: float = 2400.0
    change: float = 1200.0
    poll_interval: float = 5.0


def check_operation(doing: str, operation: v1.Operation) -> None:
    """Check that a finished operation has succeeded.

    Raises
    ------
    OperationFailedError, CloudQuotaError, CloudRightsError
        With GKE's message.
    """
    if operation.error.code:
        raise operation_error(doing, [operation.error.message], operation.error.code)
    if operation.status_message:  # how older versions of GKE report an error
        raise operation_error(doing, [operation.status_message])


def operation_error(doing: str, reasons: Iterable[str], code: int = 0) -> CloudError:
    """Return the error of a failed operation, or of a GKE cluster in an error state.

    Parameters
    ----------
    doing : str
        As "create the GKE cluster 'x'".
    reasons : iterable of str
        GKE's messages.
    code : int
        Of google.rpc.
    """
    said = "; ".join(reason for reason in reasons if reason) or "no reason given"
    short = any(word in said.lower() for word in _SHORT_OF)
    if code == code_pb2.RESOURCE_EXHAUSTED or short:
        return CloudQuotaError(
            f"cannot {doing}: the quota is too small, or the zone has no such machines "
            "available now. Request more at "
            "https://console.cloud.google.com/iam-admin/quotas, or use fewer or other "
            f"machines, or another zone. GKE says: {said}"
        )
    if code == code_pb2.PERMISSION_DENIED:
        return CloudRightsError(
            f"cannot {doing}: a service account lacks a permission. GKE says: {said}"
        )
    return OperationFailedError(f"GKE could not {doing}: {said}")


def operation_timeout(
    doing: str, parent: str, operation: v1.Operation, timeout: float
) -> CloudTimeoutError:
    """Return the error of an operation that has not finished in time."""
    return CloudTimeoutError(
        f"GKE took longer than {timeout / 60:.0f} minutes to {doing} "
        f"({stage_of(operation)}): check it with gcloud container operations "
        f"describe {operation.name} --location={parent.rpartition('/')[2]}"
    )


def conditions(resource: v1.Cluster | v1.NodePool) -> list[str]:
    """Return GKE's messages about the state of a GKE cluster or a node pool."""
    messages = [
        f"{_CODES(one.code).name}: {one.message}"
        if one.code != _CODES.UNKNOWN
        else one.message
        for one in resource.conditions
    ]
    return messages or [resource.status_message]


def is_done(operation: v1.Operation) -> bool:
    """Whether an operation has finished, successfully or not."""
    return operation.status == _DONE


def is_busy(error: exceptions.GoogleAPICallError) -> bool:
    """Whether a change was refused because another operation is running."""
    return isinstance(error, exceptions.Aborted) or "operation" in error.message.lower()


def stage_of(operation: v1.Operation) -> str:
    """Return the progress of an operation."""
    parts = [operation.detail or operation.status.name.lower()]
    for metric in operation.progress.metrics:
        value = metric.string_value or metric.int_value or metric.double_value
        parts.append(f"{metric.name} {value}")
    return ", ".join(parts)
