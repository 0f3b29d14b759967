"""Checks what nodes need to start containers before their image is complete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dask_hpsearch.gcp.api_errors import grant_command
from dask_hpsearch.gcp.doctor.findings import Finding, UncheckedError
from dask_hpsearch.gcp.doctor.permissions import bindings_of
from dask_hpsearch.gcp.doctor.project import not_enabled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dask_hpsearch.config.gke import GKESpec
    from dask_hpsearch.gcp.rest import GoogleRest

API = "containerfilesystem.googleapis.com"
ROLE = "roles/serviceusage.serviceUsageConsumer"
_ENOUGH = (ROLE, "roles/serviceusage.serviceUsageAdmin", "roles/editor", "roles/owner")


def check_image_streaming(spec: GKESpec, rest: GoogleRest) -> Iterator[Finding]:
    """Check the API of image streaming, and that the nodes' account may use it.

    Without them nodes pull whole images first.
    """
    if not (spec.pools.system.image_streaming or spec.pools.workers.image_streaming):
        return
    path = f"/v1/projects/{spec.project}/services/{API}"
    response = rest.get("serviceusage", path)
    if not response.ok:
        raise UncheckedError.of(response, f"whether {API} is enabled")
    if response.body.get("state") != "ENABLED":
        yield not_enabled(spec, API)
    member = f"serviceAccount:{spec.nodes_run_as}"
    if not any(
        one["role"] in _ENOUGH and member in one.get("members", [])
        for one in bindings_of(spec, rest)
    ):
        yield Finding(
            "image streaming",
            f"{spec.nodes_run_as} lacks {ROLE} in project {spec.project!r}, which nodes need "
            "to stream images (or set image_streaming: false in the pools)",
            grant_command(spec.project, ROLE, member),
        )
