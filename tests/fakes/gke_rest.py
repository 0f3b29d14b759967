"""What GKE's REST interface tells of a project: its clusters, and versions of GKE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.fakes.project import FakeProject

# Versions that new clusters get, by their release channel.
CHANNELS = {
    "RAPID": "1.36.1-gke.1043000",
    "REGULAR": "1.35.3-gke.1288000",
    "STABLE": "1.35.1-gke.1396000",
    "EXTENDED": "1.35.3-gke.1288000",
}


def clusters(project: FakeProject, *_: Any) -> Any:
    """List them."""
    project.need("container.clusters.list")
    return {"clusters": project.clusters} if project.clusters else {}


def server_config(project: FakeProject, *_: Any) -> Any:
    """Tell which version each release channel has, as ``getServerConfig`` does."""
    project.need("container.clusters.list")
    return {
        "channels": [
            {"channel": name, "defaultVersion": version, "validVersions": [version]}
            for name, version in project.channels.items()
        ]
    }
