"""Maps errors of Google's APIs to those of dask_hpsearch, with the command that helps."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any

from dask_hpsearch.exceptions import (
    CloudApiDisabledError,
    CloudError,
    CloudQuotaError,
    CloudRightsError,
    CloudUnreachableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_LONGEST = 600
_ACT_AS = "serviceAccountUser"
# GKE reports an exhausted quota with HTTP status 403.
_OUT_OF_QUOTA = re.compile(
    r"(insufficient|exceed)[^.]*quota|quota[^.]*exceed", re.IGNORECASE
)


@contextlib.contextmanager
def map_google_errors(
    doing: str, project: str, service: str, role: str
) -> Iterator[None]:
    """Map errors of a Google API, or of the credentials for it, to a `CloudError`.

    Parameters
    ----------
    doing : str
        What is attempted, as "create the repository 'x'".
    project : str
    service : str
        The API, as ``cloudbuild.googleapis.com``.
    role : str
        The IAM role that grants the permission.

    Raises
    ------
    CloudApiDisabledError, CloudRightsError, CloudQuotaError, CloudUnreachableError
        For errors with a remedy of their own.
    CloudError
        For all others. Each message includes Google's.
    """
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except exceptions.Forbidden as error:
        raise _forbidden(doing, project, service, role, error) from error
    except (exceptions.Unauthorized, GoogleAuthError) as error:
        raise no_credentials(doing, error) from error
    except exceptions.TooManyRequests as error:  # ResourceExhausted is one
        raise _quota_exhausted(doing, project, service, error) from error
    except (
        exceptions.ServerError,
        exceptions.RetryError,
        exceptions.DeadlineExceeded,
        TimeoutError,
    ) as error:
        msg = (
            f"cannot {doing}: {service} does not respond ({_short(error)}). Check "
            "https://status.cloud.google.com and try again: this continues an operation "
            "that has begun"
        )
        raise CloudUnreachableError(msg) from error
    except exceptions.GoogleAPIError as error:
        msg = f"cannot {doing} in project {project!r}: {_short(error)}"
        raise CloudError(msg) from error


def enable_command(project: str, *services: str) -> str:
    """Return the command that enables APIs."""
    return f"gcloud services enable {' '.join(services)} --project={project}"


def grant_command(project: str, role: str, member: str = "user:YOU") -> str:
    """Return the command that grants a role on a project."""
    # Without the last option, gcloud asks for a condition if another binding has one.
    return (
        f"gcloud projects add-iam-policy-binding {project} --member={member} "
        f"--role={role} --condition=None"
    )


def no_credentials(doing: str, error: Exception) -> CloudRightsError:
    """Return the error of missing or invalid credentials."""
    return CloudRightsError(
        f"cannot {doing}: there are no valid credentials for Google Cloud. Log in with "
        f"gcloud auth application-default login. Google says: {_short(error)}"
    )


def _forbidden(
    doing: str, project: str, service: str, role: str, error: Any
) -> CloudError:
    metadata = dict(error.metadata or {})
    said = _short(error)
    if error.reason == "SERVICE_DISABLED" or "SERVICE_DISABLED" in said:
        disabled = metadata.get("service", service)
        return CloudApiDisabledError(
            f"cannot {doing}: the API {disabled} is not enabled in project {project!r}. "
            f"Enable it: {enable_command(project, disabled)}. Google says: {said}"
        )
    if error.reason == "BILLING_DISABLED" or "billing" in said.lower():
        return CloudError(
            f"cannot {doing}: project {project!r} has no billing account. Link one: "
            f"gcloud billing projects link {project} --billing-account=ACCOUNT. Google "
            f"says: {said}"
        )
    if _OUT_OF_QUOTA.search(said):
        return _quota_exhausted(doing, project, service, error)
    if _ACT_AS in said:
        return CloudRightsError(
            f"cannot {doing}: you are not allowed to act as the service account. Ask its "
            "owner to grant it: gcloud iam service-accounts add-iam-policy-binding "
            f"ACCOUNT --member=user:YOU --role=roles/iam.{_ACT_AS} --project={project}. "
            f"Google says: {said}"
        )
    permission = metadata.get("permission", "")
    missing = f" ({permission})" if permission else ""
    return CloudRightsError(
        f"not allowed to {doing}{missing}. Ask the owner of project {project!r} to grant "
        f"it: {grant_command(project, role)}. Google says: {said}"
    )


def _quota_exhausted(
    doing: str, project: str, service: str, error: Any
) -> CloudQuotaError:
    return CloudQuotaError(
        f"cannot {doing}: a quota of project {project!r} is exhausted. Request more at "
        f"https://console.cloud.google.com/iam-admin/quotas?project={project}&service="
        f"{service}, or ask for fewer resources. Google says: {_short(error)}"
    )


def _short(error: Any) -> str:
    message = getattr(error, "message", None) or str(error)
    return f"{type(error).__name__}: {message}"[:_LONGEST]
