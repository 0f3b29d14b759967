"""What is under test in this folder, made for a project of fakes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dask_hpsearch.deploy.provision import Provisioner
from tests.gcp.specs import spec

if TYPE_CHECKING:
    from tests.fakes.cloud import Cloud


def provisioner(project: Cloud, bucket: str, **changes: Any) -> Provisioner:
    """Return what is under test."""
    return Provisioner(
        spec(store=f"gs://{bucket}/runs", **changes),
        project.clients,
        project.said.append,
        project.options,
        timeout_s=0.1,
    )
