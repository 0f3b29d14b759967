"""The context of a deployment in a project of fakes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dask_hpsearch.deploy.context import DeployContext
from tests.gcp.specs import spec

if TYPE_CHECKING:
    from tests.fakes.cloud import Cloud


def context(project: Cloud, bucket: str, **changes: Any) -> DeployContext:
    """Return the context of a deployment into a bucket of its own."""
    return DeployContext(
        spec(store=f"gs://{bucket}/runs", **changes),
        project.clients,
        project.said.append,
        project.options,
        timeout=0.1,
    )
