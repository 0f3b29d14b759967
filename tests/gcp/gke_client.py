"""A client as a process of its own, to be killed."""

from __future__ import annotations

import time

from dask_hpsearch.concurrency import Clock
from dask_hpsearch.gcp.gke.clusters import GKEClusters
from dask_hpsearch.gcp.gke.operations import Timeouts
from tests.fakes.gke_service import gke_client
from tests.gcp.specs import spec


def main(address: str) -> None:
    """Ensure a cluster; time stands still for GKE, so that it never ends."""
    with gke_client(address) as client:
        clusters = GKEClusters(
            client,
            "some-project",
            timeouts=Timeouts(poll_interval=0.05),
            clock=Clock(time.time, time.sleep),
        )
        clusters.ensure(spec())
