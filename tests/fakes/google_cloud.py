"""A project of Google Cloud as far as images go: fakes, and Google's clients for them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from google.cloud.artifactregistry_v1 import ArtifactRegistryClient
from google.cloud.artifactregistry_v1.services.artifact_registry.transports import (
    ArtifactRegistryGrpcTransport,
)
from google.cloud.devtools.cloudbuild_v1 import CloudBuildClient
from google.cloud.devtools.cloudbuild_v1.services.cloud_build.transports import (
    CloudBuildGrpcTransport,
)

from tests.fakes.artifact_registry import FakeRegistry
from tests.fakes.cloud_build import FakeBuilds
from tests.fakes.serving import Operations, Traffic, serving

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class ImageServices:
    """Cloud Build and Artifact Registry.

    Attributes
    ----------
    traffic : Traffic
        Of both.
    builds : FakeBuilds
    registry : FakeRegistry
    address : str
        Host and port of both.
    clients : dict
        What `ensure_image` takes: ``builds`` and ``registry``.
    """

    traffic: Traffic
    builds: FakeBuilds
    registry: FakeRegistry
    address: str
    clients: dict[str, Any]


@contextlib.contextmanager
def image_services(storage_port: int) -> Iterator[ImageServices]:
    """Serve both while the context lasts.

    Parameters
    ----------
    storage_port : int
        Of the emulator that holds sources and logs of builds.
    """
    operations = Operations()
    registry = FakeRegistry(operations)
    builds = FakeBuilds(operations, registry, storage_port)
    traffic = Traffic()
    with (
        serving(traffic, registry, builds, operations) as address,
        clients_for(address) as clients,
    ):
        yield ImageServices(traffic, builds, registry, address, clients)


@contextlib.contextmanager
def clients_for(address: str) -> Iterator[dict[str, Any]]:
    """Make Google's clients for fakes at an address."""
    with grpc.insecure_channel(address) as channel:
        yield clients_of(channel)


def clients_of(channel: grpc.Channel) -> dict[str, Any]:
    """Make Google's clients on a channel."""
    builds = CloudBuildGrpcTransport(channel=channel)
    registry = ArtifactRegistryGrpcTransport(channel=channel)
    return {
        "builds": CloudBuildClient(transport=builds),
        "registry": ArtifactRegistryClient(transport=registry),
    }
