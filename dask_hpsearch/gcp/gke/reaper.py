"""Deletes GKE clusters that have expired.

A *reaper* runs in the GKE cluster itself, in a pod that needs no driver, scheduler, operator
or notebook. A *sweep* can be started from anywhere, for GKE clusters that lost their reaper,
or never had one because their creation was given up.

The reaper is a program of its own that imports little: its pod has little CPU.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dask_hpsearch.concurrency import Clock
from dask_hpsearch.exceptions import CloudError
from dask_hpsearch.gcp.gke.operations import Timeouts
from dask_hpsearch.stores.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dask_hpsearch.gcp.gke.clusters import GKEClusters
    from dask_hpsearch.gcp.gke.state import GKECluster

_logger = logging.getLogger(__name__)
CHECK_INTERVAL = 30.0
# Removing the workers comes first, and must not delay the rest.
TIMEOUTS = Timeouts(change=60.0, delete=2400.0)
# It checks again anyway, and logs its errors at once.
RETRY = Retry(timeout=15.0, deadline=30.0)
# Of its IAM roles: what it needs to delete its own GKE cluster, nothing else. IAM does not
# know which GKE cluster an operation belongs to, so the second role has no condition.
CLUSTER_PERMISSIONS = (
    "container.clusters.get",
    "container.clusters.update",  # to remove the worker nodes
    "container.clusters.delete",
)
OPERATION_PERMISSIONS = ("container.operations.get",)
PERMISSIONS = (*CLUSTER_PERMISSIONS, *OPERATION_PERMISSIONS)


@dataclass(frozen=True, slots=True)
class SweptCluster:
    """An expired GKE cluster, and what a sweep did with it.

    Attributes
    ----------
    cluster : GKECluster
    error : str or None
        Why it is still there; None: it was deleted.
    """

    cluster: GKECluster
    error: str | None = None


def reap(clusters: GKEClusters, path: str, clock: Clock) -> bool:
    """Delete a GKE cluster if it has expired: the worker nodes first, then all of it.

    Returns
    -------
    bool
        Whether it is gone.

    Raises
    ------
    CloudError
        If Google refuses, or it is not managed by dask_hpsearch.
    """
    found = clusters.find(path)
    if found is None:
        return True
    if not found.has_expired(clock.now()):
        return False
    _logger.warning("%s has expired", path)
    try:
        clusters.remove_workers(path)
    except CloudError as error:  # the nodes are deleted with the GKE cluster
        _logger.warning("its worker nodes stay for the moment: %s", error)
    return _delete_expired(clusters, path, clock)


def watch(
    clusters: GKEClusters,
    path: str,
    clock: Clock,
    *,
    ready: Callable[[], None] = lambda: None,
    alive: Callable[[], None] = lambda: None,
    interval: float = CHECK_INTERVAL,
) -> None:
    """Check repeatedly whether a GKE cluster has expired; delete it then.

    Errors are logged, and the check is repeated: a reaper that has no permissions yet works
    as soon as it has them.

    Parameters
    ----------
    clusters : GKEClusters
    path : str
    clock : Clock
    ready : callable
        Called after every successful check.
    alive : callable
        Called after every check, also one that was refused.
    interval : float
        Seconds between two checks.
    """
    while True:
        try:
            if reap(clusters, path, clock):
                return
            ready()
        except CloudError as error:
            _logger.warning("cannot check %s: %s", path, error)
        alive()
        clock.sleep(interval)


def sweep(
    clusters: GKEClusters, clock: Clock, *, dry_run: bool = False
) -> list[SweptCluster]:
    """Delete the managed GKE clusters of a project that have expired.

    Parameters
    ----------
    clusters : GKEClusters
    clock : Clock
    dry_run : bool
        Whether to list them only.

    Returns
    -------
    list of SweptCluster

    Raises
    ------
    CloudError
        If they cannot be listed.
    """
    expired = [one for one in clusters.list_managed() if one.has_expired(clock.now())]
    if dry_run:
        return [SweptCluster(one, "expired, not deleted (dry run)") for one in expired]
    return [_swept(clusters, one, clock) for one in expired]


def _swept(clusters: GKEClusters, one: GKECluster, clock: Clock) -> SweptCluster:
    try:
        gone = _delete_expired(clusters, one.path, clock)
    except CloudError as error:
        return SweptCluster(one, str(error))
    return SweptCluster(one, None if gone else "in use by a new search")


def _delete_expired(clusters: GKEClusters, path: str, clock: Clock) -> bool:
    """Delete a GKE cluster, unless a client extends its time to live meanwhile."""

    def is_extended() -> bool:
        found = clusters.find(path)
        return found is not None and not found.has_expired(clock.now())

    return clusters.delete_unused(path, is_extended)


def main(argv: Sequence[str] | None = None) -> int:
    """Run in a pod until its GKE cluster has expired, then delete the GKE cluster."""
    from dask_hpsearch.gcp.clients import cluster_manager
    from dask_hpsearch.gcp.gke.clusters import GKEClusters

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("path", help="projects/P/locations/L/clusters/C")
    parser.add_argument("--endpoint", help="endpoint of GKE's API")
    parser.add_argument(
        "--ready",
        type=Path,
        required=True,
        help="file whose time is that of the last successful check",
    )
    parser.add_argument(
        "--alive",
        type=Path,
        help="file whose time is that of the last check, also one that failed",
    )
    parser.add_argument(
        "--every", type=float, default=CHECK_INTERVAL, help="seconds between two checks"
    )
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    project, clock = arguments.path.split("/")[1], Clock()
    client = cluster_manager(arguments.endpoint)
    clusters = GKEClusters(client, project, retry=RETRY, clock=clock, timeouts=TIMEOUTS)
    watch(
        clusters,
        arguments.path,
        clock,
        ready=arguments.ready.touch,
        alive=(arguments.alive or arguments.ready.with_name("alive")).touch,
        interval=arguments.every,
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
