"""Checks a project before a GKE cluster is created there, and says how to fix it.

Nothing is changed. Each check requests a few facts from Google, and evaluates them. A check
that is not permitted is reported, and the others go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dask_hpsearch.exceptions import CloudRightsError
from dask_hpsearch.gcp.doctor import (
    builds,
    image_streaming,
    permissions,
    project,
    quotas,
    storage_network,
    versions,
)
from dask_hpsearch.gcp.doctor.findings import Finding, Report, UncheckedError
from dask_hpsearch.gcp.rest import CachedRest, connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from dask_hpsearch.config.gke import GKESpec
    from dask_hpsearch.gcp.rest import GoogleRest

    Check = Callable[[GKESpec, GoogleRest], Iterable[Finding]]

# In the order in which their findings should be fixed.
CHECKS: tuple[Check, ...] = (
    project.check_apis,
    project.check_billing,
    permissions.check_user,
    permissions.check_node_account,
    permissions.check_reaper,
    permissions.check_build_account,
    builds.check_act_as,
    builds.check_logs_bucket,
    image_streaming.check_image_streaming,
    storage_network.check_bucket,
    storage_network.check_pods_access,
    storage_network.check_network,
    versions.check_version,
    quotas.check_machines,
    quotas.check_quotas,
)


def examine(
    spec: GKESpec,
    *,
    rest: GoogleRest | None = None,
    addresses: Mapping[str, str] | None = None,
) -> Report:
    """Check everything that a spec needs of its project.

    Parameters
    ----------
    spec : GKESpec
    rest : GoogleRest, optional
        Default: Application Default Credentials, and Google's public endpoints.
    addresses : mapping, optional
        Of services with other endpoints, as `dask_hpsearch.gcp.rest.GoogleRest` takes them.

    Returns
    -------
    Report
        All problems, each with the command that fixes it.

    Raises
    ------
    CloudUnreachableError
        If Google does not respond.
    """
    from google.auth.exceptions import GoogleAuthError

    try:
        if rest is not None:
            return _check(spec, rest)
        own = connect(addresses, project=spec.project)
        with own.session:
            return _check(spec, own)
    except (GoogleAuthError, CloudRightsError) as error:
        return Report((_no_credentials(error),))


def _check(spec: GKESpec, rest: GoogleRest) -> Report:
    rest = CachedRest(
        rest.session, rest.addresses
    )  # several checks need the same facts
    first = tuple(project.check_project(spec, rest))
    if first:  # without a project there is nothing else to check
        return Report(first)
    findings: list[Finding] = []
    unchecked: list[str] = []
    for check in CHECKS:
        try:
            for finding in check(spec, rest):  # also those before an error
                findings.append(finding)  # noqa: PERF402
        except UncheckedError as error:
            if not error.disabled_api:
                unchecked.append(str(error))
            elif not any(error.disabled_api in one.command for one in findings):
                findings.append(project.not_enabled(spec, error.disabled_api))
    skipped = tuple(dict.fromkeys(unchecked))
    advice = tuple(one for one in findings if one.optional)
    findings = [one for one in findings if not one.optional]
    needing = tuple(one for one in findings if one.needs_pool)
    if not needing or project.pool_exists(spec, rest):
        return Report(tuple(findings), skipped, advice=advice)
    now = tuple(one for one in findings if not one.needs_pool)
    return Report(now, skipped, needing, advice)


def _no_credentials(error: Exception) -> Finding:
    said = " ".join(str(error.__cause__ or error).split())[:200]
    return Finding(
        "credentials",
        f"there are no valid credentials for Google Cloud ({said})",
        "gcloud auth application-default login",
    )
