"""A project of Google Cloud: clusters, builds, images, and one record of all calls."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dask_hpsearch.gcp.clients import CloudClients
from tests.fakes.artifact_registry import FakeRegistry
from tests.fakes.clock import FakeClock
from tests.fakes.cloud_build import FakeBuilds
from tests.fakes.gke import FakeClusters
from tests.fakes.gke_service import SHORT, gke_client
from tests.fakes.google_cloud import clients_for
from tests.fakes.serving import Operations, Traffic, serving
from tests.gcs.held import names_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    import grpc

    from tests.fakes.gke import Place


@dataclass(frozen=True, slots=True)
class Cloud:
    """What there is in the project, and what was asked for.

    Attributes
    ----------
    traffic : Traffic
    gke : FakeClusters
    builds : FakeBuilds
    registry : FakeRegistry
    time : FakeClock
    clients : CloudClients
    address : str
    storage_port : int
    said : list of str
    """

    traffic: Traffic
    gke: FakeClusters
    builds: FakeBuilds
    registry: FakeRegistry
    time: FakeClock
    clients: CloudClients
    address: str
    storage_port: int
    said: list[str] = field(default_factory=list)

    @property
    def options(self) -> dict[str, Any]:
        """Options of `DeployContext`, to wait in fake time."""
        return {"retry": SHORT, "clock": self.time.clock}

    def ours(self, bucket: str) -> list[str]:
        """Name all that carries our label, or lies in our folder of the bucket."""
        self.time.sleep(10_000.0)
        self.gke.settle()
        marked = [
            *((path, one.resource_labels) for path, one in self.gke.clusters.items()),
            *((name, one.labels) for name, one in self.registry.repositories.items()),
            *((name, one.annotations) for name, one in self.registry.versions.items()),
        ]
        found = [name for name, marks in marked if marks.get("managed-by")]
        running = [
            one.name
            for one in self.builds.builds.values()
            if one.status.name in ("QUEUED", "WORKING")
        ]
        files = [
            name
            for name in names_in(self.storage_port, bucket)
            if name.startswith("dask-hpsearch-builds/")
        ]
        return [*found, *running, *files]


@contextlib.contextmanager
def cloud(
    storage_port: int,
    place: Place | None = None,
    *,
    time: FakeClock | None = None,
    certificate: grpc.ServerCredentials | None = None,
) -> Iterator[Cloud]:
    """Serve a project that has nothing yet.

    Parameters
    ----------
    storage_port : int
        Of the emulator that holds its buckets.
    place : Place, optional
        What new GKE clusters have as their Kubernetes API.
    time : FakeClock, optional
    certificate : ServerCredentials, optional
        To serve it by TLS; then nobody but programs with clients of their own can use it.
    """
    operations, time, traffic = Operations(), time or FakeClock(), Traffic()
    registry = FakeRegistry(operations)
    builds = FakeBuilds(operations, registry, storage_port)
    gke = FakeClusters(time, place)
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(
            serving(traffic, gke, registry, builds, operations, certificate=certificate)
        )
        images = stack.enter_context(clients_for(address))
        clusters = stack.enter_context(gke_client(address))
        clients = CloudClients(clusters, images["builds"], images["registry"])
        yield Cloud(
            traffic, gke, builds, registry, time, clients, address, storage_port
        )
