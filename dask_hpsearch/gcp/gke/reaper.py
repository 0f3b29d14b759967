"""The end of GKE clusters whose time is over.

Two look after it. A *reaper* runs in the cluster itself, in a pod of its own that needs
neither driver nor scheduler nor operator, nor anybody's notebook. A *sweep* can be started
from anywhere, for clusters of which the reaper is lost (or never came: a creation that was
given up).

The reaper is a program of its own: it loads little, since its pod has little of a CPU.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dask_hpsearch.exceptions import CloudError
from dask_hpsearch.gcp.api_errors import Retry
from dask_hpsearch.gcp.gke.operations import Clock, Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dask_hpsearch.gcp.gke.clusters import GKEClusters
    from dask_hpsearch.gcp.gke.state import GKECluster

_logger = logging.getLogger(__name__)
LOOK_EVERY_S = 30.0
# Emptying the pool comes first, and must not hold up the rest.
LIMITS = Limits(change_s=60.0, delete_s=2400.0)
# It looks again anyway, and says at once in its log why it cannot.
RETRY = Retry(timeout=15.0, deadline=30.0)
# What a reaper does with Google's API, and may do: with its own cluster, nothing else.
PERMISSIONS = (
    "container.clusters.get",
    "container.clusters.update",  # pools of nodes to zero
    "container.clusters.delete",
    "container.operations.get",
)


@dataclass(frozen=True, slots=True)
class Swept:
    """What became of a GKE cluster whose time is over.

    Attributes
    ----------
    cluster : GKECluster
    error : str or None
        Why it is still there; None: it is gone.
    """

    cluster: GKECluster
    error: str | None = None


def reap(clusters: GKEClusters, path: str, clock: Clock) -> bool:
    """End a GKE cluster if its time is over: the workers' nodes first, then all of it.

    Returns
    -------
    bool
        Whether it is gone.

    Raises
    ------
    CloudError
        If Google refuses, or it is not ours.
    """
    found = clusters.find(path)
    if found is None:
        return True
    if not found.has_expired(clock.now()):
        return False
    _logger.warning("the time of %s is over", path)
    try:
        clusters.empty(path)
    except CloudError as error:  # then the nodes go with the cluster
        _logger.warning("its workers' nodes stay for the moment: %s", error)
    return _delete_expired(clusters, path, clock)


def watch(
    clusters: GKEClusters,
    path: str,
    clock: Clock,
    *,
    ready: Callable[[], None] = lambda: None,
    every_s: float = LOOK_EVERY_S,
) -> None:
    """Look again and again whether a GKE cluster's time is over; end it then.

    Whatever goes wrong is logged, and tried again.

    Parameters
    ----------
    clusters : GKEClusters
    path : str
    clock : Clock
    ready : callable
        Called after every look that went well.
    every_s : float
        Seconds between two looks.
    """
    while True:
        try:
            if reap(clusters, path, clock):
                return
            ready()
        except CloudError as error:
            _logger.warning("cannot look after %s: %s", path, error)
        clock.sleep(every_s)


def sweep(clusters: GKEClusters, clock: Clock, *, dry_run: bool = False) -> list[Swept]:
    """Delete the GKE clusters of ours in a project whose time is over.

    Parameters
    ----------
    clusters : GKEClusters
    clock : Clock
    dry_run : bool
        Whether to look only.

    Returns
    -------
    list of Swept

    Raises
    ------
    CloudError
        If they cannot be listed.
    """
    over = [one for one in clusters.list_ours() if one.has_expired(clock.now())]
    if dry_run:
        return [Swept(one, "only looked at") for one in over]
    return [_swept(clusters, one, clock) for one in over]


def _swept(clusters: GKEClusters, one: GKECluster, clock: Clock) -> Swept:
    try:
        gone = _delete_expired(clusters, one.path, clock)
    except CloudError as error:
        return Swept(one, str(error))
    return Swept(one, None if gone else "somebody has found it for a new search")


def _delete_expired(clusters: GKEClusters, path: str, clock: Clock) -> bool:
    """Delete a GKE cluster, unless somebody lets it live longer at this moment."""

    def is_in_time() -> bool:
        found = clusters.find(path)
        return found is not None and not found.has_expired(clock.now())

    return clusters.delete_unused(path, is_in_time)


def main(argv: Sequence[str] | None = None) -> int:
    """Look after one GKE cluster, in a pod, until its time is over."""
    from dask_hpsearch.gcp.clients import cluster_manager
    from dask_hpsearch.gcp.gke.clusters import GKEClusters

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("path", help="projects/P/locations/L/clusters/C")
    parser.add_argument("--endpoint", help="where GKE's API is reached")
    parser.add_argument(
        "--ready", type=Path, required=True, help="file that is as old as the last look"
    )
    parser.add_argument(
        "--every", type=float, default=LOOK_EVERY_S, help="seconds between two looks"
    )
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    project, clock = arguments.path.split("/")[1], Clock()
    client = cluster_manager(arguments.endpoint)
    clusters = GKEClusters(client, project, retry=RETRY, clock=clock, limits=LIMITS)
    ready, every_s = arguments.ready.touch, arguments.every
    watch(clusters, arguments.path, clock, ready=ready, every_s=every_s)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
