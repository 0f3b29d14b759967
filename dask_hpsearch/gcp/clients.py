"""Creates Google's clients for a spec, with Application Default Credentials."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dask_hpsearch.extras import map_import_errors
from dask_hpsearch.gcp.auth import credentials
from dask_hpsearch.gcp.rest import connect

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dask_hpsearch.config.gke_parts import Endpoints
    from dask_hpsearch.gcp.rest import GoogleRest


@dataclass(frozen=True, slots=True)
class CloudClients:
    """Clients of the services that a GKE cluster and its image need.

    Attributes
    ----------
    clusters : ClusterManagerClient
    builds : CloudBuildClient or None
    registry : ArtifactRegistryClient or None
        None: created when an image is needed.
    rest : GoogleRest or None
        For the project's IAM bindings. None: they are neither checked nor made.
    """

    clusters: Any
    builds: Any = None
    registry: Any = None
    rest: GoogleRest | None = None


def cloud_clients(
    endpoints: Endpoints,
    *,
    project: str | None = None,
    addresses: Mapping[str, str] | None = None,
) -> CloudClients:
    """Create the clients; no request is sent yet.

    Parameters
    ----------
    endpoints : Endpoints
        Endpoints of Google's APIs that differ from the public ones.
    project : str, optional
        The quota project of a user's credentials, as for
        `dask_hpsearch.gcp.auth.credentials`.
    addresses : mapping, optional
        URLs of REST services that differ from the public ones, as
        `dask_hpsearch.gcp.rest.GoogleRest` takes them.

    Raises
    ------
    CloudRightsError
        If there are no credentials.
    MissingExtraError
        If Google's packages are not installed.
    """
    with map_import_errors("GKE"):
        from google.cloud.artifactregistry_v1 import ArtifactRegistryClient
        from google.cloud.container_v1 import ClusterManagerClient
        from google.cloud.devtools.cloudbuild_v1 import CloudBuildClient
    found = credentials(project)
    return CloudClients(
        _client(ClusterManagerClient, found, endpoints.container),
        _client(CloudBuildClient, found, endpoints.cloudbuild),
        _client(ArtifactRegistryClient, found, endpoints.artifactregistry),
        connect(addresses, project=project),
    )


def cluster_manager(endpoint: str | None = None, *, project: str | None = None) -> Any:
    """Create the client of GKE, which the reaper needs.

    Parameters
    ----------
    endpoint : str, optional
        Endpoint of its API; default: the public one.
    project : str, optional
        As for `cloud_clients`.
    """
    from google.cloud.container_v1 import ClusterManagerClient

    return _client(ClusterManagerClient, credentials(project), endpoint)


def builds_client(endpoint: str | None = None, *, project: str | None = None) -> Any:
    """Create the client of Cloud Build; as `cluster_manager`."""
    from google.cloud.devtools.cloudbuild_v1 import CloudBuildClient

    return _client(CloudBuildClient, credentials(project), endpoint)


def registry_client(endpoint: str | None = None, *, project: str | None = None) -> Any:
    """Create the client of Artifact Registry; as `cluster_manager`."""
    from google.cloud.artifactregistry_v1 import ArtifactRegistryClient

    return _client(ArtifactRegistryClient, credentials(project), endpoint)


def _client(kind: Any, found: Any, endpoint: str | None) -> Any:
    options = None if endpoint is None else {"api_endpoint": endpoint}
    return kind(credentials=found, client_options=options)
