"""Checks that new GKE clusters get a version that knows what a spec asks for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dask_hpsearch.gcp.doctor.findings import Finding, UncheckedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dask_hpsearch.config.gke import GKESpec
    from dask_hpsearch.gcp.rest import GoogleRest

_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)-gke\.(\d+)")
# Of kubelet_config.shutdown_grace_period_seconds: GKE's release notes.
_GRACE_SINCE = "1.35.0-gke.1171000"


def check_version(spec: GKESpec, rest: GoogleRest) -> Iterator[Finding]:
    """Check that nodes of the release channel can have a longer notice of preemption."""
    if spec.pools.workers.grace is None:
        return
    response = rest.get("container", f"/v1/{spec.parent}/serverConfig")
    if response.missing:
        return
    if not response.ok:
        raise UncheckedError.of(response, "the versions of GKE")
    channels = response.body.get("channels", [])
    versions = {one.get("channel"): str(one.get("defaultVersion")) for one in channels}
    version = versions.get(spec.release_channel, "")
    if not _VERSION.match(version) or _numbers(version) >= _numbers(_GRACE_SINCE):
        return
    yield Finding(
        "GKE version",
        f"the release channel {spec.release_channel} creates GKE {version}; pools.workers.grace "
        f"{spec.pools.workers.grace} needs {_GRACE_SINCE} or later: choose another channel, or "
        "set grace: null. The versions of all channels:",
        f"gcloud container get-server-config --project={spec.project} "
        f"--location={spec.location} --format='yaml(channels)'",
    )


def _numbers(version: str) -> tuple[int, ...]:
    match = _VERSION.match(version)
    return tuple(map(int, match.groups())) if match else ()
