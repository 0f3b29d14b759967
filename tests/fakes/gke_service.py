"""GKE of a project that has no clusters yet, and Google's client for it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
from google.cloud.container_v1 import ClusterManagerClient
from google.cloud.container_v1.services.cluster_manager.transports import (
    ClusterManagerGrpcTransport,
)

from dask_hpsearch.gcp.gke.clusters import GKEClusters
from dask_hpsearch.stores.retry import Retry
from tests.fakes.clock import FakeClock
from tests.fakes.gke import FakeClusters
from tests.fakes.serving import Traffic, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.cloud import container_v1 as v1

    from tests.fakes.gke import Place

SHORT = Retry(timeout=5, deadline=0.5, initial=0.01, maximum=0.05)


@dataclass(frozen=True, slots=True)
class GKEService:
    """GKE in fake time.

    Attributes
    ----------
    traffic : Traffic
    fake : FakeClusters
    time : FakeClock
    client : ClusterManagerClient
    address : str
    said : list of str
        What was told of progress.
    """

    traffic: Traffic
    fake: FakeClusters
    time: FakeClock
    client: Any
    address: str
    said: list[str] = field(default_factory=list)

    @property
    def options(self) -> dict[str, Any]:
        """Options of `GKEClusters` that wait in fake time."""
        return {"retry": SHORT, "clock": self.time.clock}

    def clusters(self, **options: Any) -> GKEClusters:
        """Return what is under test."""
        options = {**self.options, "say": self.said.append, **options}
        return GKEClusters(self.client, "some-project", **options)

    def there(self) -> dict[str, v1.Cluster]:
        """Return the clusters that are there once all operations have ended."""
        self.time.sleep(10_000.0)
        self.fake.settle()
        return dict(self.fake.clusters)

    def methods(self) -> list[str]:
        """Return the methods that were called, but for those that only look."""
        looks = ("Get", "List")
        return [name for name, _ in self.traffic.calls if not name.startswith(looks)]


@contextlib.contextmanager
def gke_service(
    place: Place | None = None, *, traffic: Traffic | None = None, **options: Any
) -> Iterator[GKEService]:
    """Serve it while the context lasts."""
    time, traffic = FakeClock(), traffic or Traffic()
    fake = FakeClusters(time, place, **options)
    with serving(traffic, fake) as address, gke_client(address) as client:
        yield GKEService(traffic, fake, time, client, address)


@contextlib.contextmanager
def gke_client(address: str) -> Iterator[ClusterManagerClient]:
    """Make Google's client for a fake at an address."""
    with grpc.insecure_channel(address) as channel:
        transport = ClusterManagerGrpcTransport(channel=channel)
        yield ClusterManagerClient(transport=transport)
