"""Looks at a project before anything is created there: what it lacks, and how to mend it.

Nothing is changed. Each check asks Google for a few facts, and judges them; one that may
not ask is reported, and stops no other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dask_hpsearch.gcp.doctor import permissions, project, quotas, storage_network
from dask_hpsearch.gcp.doctor.findings import Finding, Report, UnseenError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from dask_hpsearch.config.gke import GKESpec
    from dask_hpsearch.gcp.rest import GoogleRest

    Check = Callable[[GKESpec, GoogleRest], Iterable[Finding]]

# In the order in which one would mend what they find.
CHECKS: tuple[Check, ...] = (
    project.check_apis,
    project.check_billing,
    permissions.check_user,
    permissions.check_node_account,
    permissions.check_reaper,
    permissions.check_build_account,
    storage_network.check_bucket,
    storage_network.check_pods_access,
    storage_network.check_network,
    quotas.check_machines,
    quotas.check_quotas,
)


def examine(
    spec: GKESpec,
    *,
    rest: GoogleRest | None = None,
    addresses: Mapping[str, str] | None = None,
) -> Report:
    """Look at all that a spec needs of its project.

    Parameters
    ----------
    spec : GKESpec
    rest : GoogleRest, optional
        Default: Application Default Credentials, at Google's usual addresses.
    addresses : mapping, optional
        Of services that are elsewhere, as `dask_hpsearch.gcp.rest.GoogleRest` takes them.

    Returns
    -------
    Report
        Everything that is wrong, each with the command that mends it.

    Raises
    ------
    CloudUnreachableError
        If Google does not answer.
    """
    from google.auth.exceptions import GoogleAuthError

    from dask_hpsearch.gcp.rest import connect

    try:
        if rest is not None:
            return _look(spec, rest)
        own = connect(addresses)
        with own.session:
            return _look(spec, own)
    except GoogleAuthError as error:
        return Report((_no_credentials(error),))


def _look(spec: GKESpec, rest: GoogleRest) -> Report:
    first = tuple(project.check_project(spec, rest))
    if first:  # without a project there is nothing else to look at
        return Report(first)
    findings: list[Finding] = []
    unseen: list[str] = []
    for check in CHECKS:
        try:
            for finding in check(spec, rest):  # what it found before it could not go on
                findings.append(finding)  # noqa: PERF402
        except UnseenError as error:
            if not error.disabled_api:
                unseen.append(str(error))
            elif not any(error.disabled_api in one.command for one in findings):
                findings.append(project.not_enabled(spec, error.disabled_api))
    return Report(tuple(findings), tuple(dict.fromkeys(unseen)))


def _no_credentials(error: Exception) -> Finding:
    said = " ".join(str(error).split())[:200]
    return Finding(
        "credentials",
        f"there are no valid credentials for Google Cloud ({said})",
        "gcloud auth application-default login",
    )
