"""Removes a GKE cluster and its image: always, or only if nothing uses it."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dask_hpsearch.deploy.inspect import inspect
from dask_hpsearch.exceptions import (
    CloudError,
    CloudNotFoundError,
    ClusterError,
    HPSearchError,
)
from dask_hpsearch.gcp.auth import kubeconfig_path
from dask_hpsearch.gcp.gke.labels import active_claims
from dask_hpsearch.gcp.images.images import remove_images

if TYPE_CHECKING:
    from dask_hpsearch.deploy.context import DeployContext
    from dask_hpsearch.deploy.inspect import GKEUsage

_logger = logging.getLogger(__name__)
_INSPECT_ATTEMPTS = 3  # connections break
_INSPECT_INTERVAL = 5.0


@dataclass(frozen=True, slots=True)
class DeprovisionResult:
    """What was removed, and what remains.

    Attributes
    ----------
    removed, remaining : tuple of str
        Names of resources; for those that remain, also the reason.
    """

    removed: tuple[str, ...] = ()
    remaining: tuple[str, ...] = ()


def deprovision(context: DeployContext) -> DeprovisionResult:
    """Remove the GKE cluster, and the images that only it has used.

    Raises
    ------
    ForeignResourceError
        If the GKE cluster, or a node pool of it, was not created by dask_hpsearch.
    CloudError
        If Google refuses or fails.
    """
    deleted = context.gke.delete(context.spec.path)
    return _remove_rest(context, deleted=deleted)


def deprovision_unused(context: DeployContext) -> None:
    """Remove the GKE cluster and its images, unless others use it or claim it meanwhile.

    Raises
    ------
    ForeignResourceError, CloudError
        As for `deprovision`.
    """
    spec = context.spec

    def check() -> bool:
        used = is_in_use(context)
        if not used:
            context.say(f"removing the GKE cluster {spec.name} and its image")
        return used

    if context.gke.delete_unused(spec.path, check):
        _remove_rest(context, deleted=True)
    else:
        release_claim(context)


def release_claim(context: DeployContext) -> None:
    """Remove this client's claim on the GKE cluster; an error is logged."""
    path = context.spec.path
    try:
        context.gke.release(path, context.claim)
    except CloudError as error:
        _logger.warning("%s may stay longer than necessary: %s", path, error)


def is_in_use(context: DeployContext) -> bool:
    """Whether others use the GKE cluster, or are about to.

    It counts as in use if that is unknown: a mistake in one direction would end the work
    of others, one in the other leaves a GKE cluster until its time to live is over.
    """
    spec = context.spec
    try:
        found = context.gke.find(spec.path)
        if found is None:
            return False
        others = active_claims(found.labels, context.clock.now()) - {context.claim}
        if found.kept or others:
            context.say(f"{spec.name} stays: it is in use, or about to be used")
            return True
        usage = _inspect_with_retries(context)
    except CloudNotFoundError:
        return False
    except HPSearchError as error:
        context.say(
            f"{spec.name} stays, because it is unknown whether it is in use ({error}). "
            "Remove it with dask-hpsearch down, or wait until it deletes itself when its "
            "ttl_hours are over"
        )
        return True
    names = [*(one.name for one in usage.dask_clusters), *usage.drivers]
    if names:
        context.say(f"{spec.name} stays: it is in use by {', '.join(names)}")
    return bool(names)


def _inspect_with_retries(context: DeployContext) -> GKEUsage:
    for _ in range(_INSPECT_ATTEMPTS - 1):
        try:
            return inspect(context)
        except ClusterError as error:
            _logger.warning("cannot inspect %s: %s", context.spec.path, error)
            context.clock.sleep(_INSPECT_INTERVAL)
    return inspect(context)


def _remove_rest(context: DeployContext, *, deleted: bool) -> DeprovisionResult:
    """Remove what belongs to a GKE cluster; list what remains in the project."""
    spec = context.spec
    with contextlib.suppress(OSError):
        kubeconfig_path(spec.path).unlink(missing_ok=True)
    images = remove_images(spec, registry=context.clients.registry)
    removed = [spec.path] if deleted else []
    removed += images.removed
    remaining = [f"{one}: others use it or have created it" for one in images.remaining]
    remaining += [
        f"{one.path}: another GKE cluster, {one.status}, of {one.owner}"
        for one in context.gke.list_managed()
    ]
    return DeprovisionResult(tuple(removed), tuple(remaining))
