"""What Google Cloud refuses, as errors of ours that say the one command that mends it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.api_core import exceptions
from google.api_core.retry import Retry as GoogleRetry
from google.auth.exceptions import TransportError

from dask_hpsearch.exceptions import (
    CloudApiDisabledError,
    CloudError,
    CloudQuotaError,
    CloudRightsError,
    CloudUnreachableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LONGEST = 600
# An answer that may have been lost on its way. A quota that is used up is no such thing.
LOST = (
    exceptions.ServiceUnavailable,
    exceptions.DeadlineExceeded,
    exceptions.InternalServerError,
    TransportError,
)


@contextlib.contextmanager
def map_google_errors(
    doing: str, project: str, service: str, role: str
) -> Iterator[None]:
    """Turn what a service or the credentials refuse into our errors.

    Parameters
    ----------
    doing : str
        What is tried, as "create the repository 'x'".
    project : str
    service : str
        The API, as ``cloudbuild.googleapis.com``.
    role : str
        What gives the right to do it.

    Raises
    ------
    CloudApiDisabledError, CloudRightsError, CloudQuotaError, CloudUnreachableError
        For what has a way out of its own.
    CloudError
        For the rest; Google's words are in all of them.
    """
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except exceptions.Forbidden as error:
        raise _forbidden(doing, project, service, role, error) from error
    except (exceptions.Unauthorized, GoogleAuthError) as error:
        raise not_known(doing, error) from error
    except exceptions.TooManyRequests as error:  # ResourceExhausted is one
        raise _exhausted(doing, project, service, error) from error
    except (
        exceptions.ServerError,
        exceptions.RetryError,
        exceptions.DeadlineExceeded,
        TimeoutError,
    ) as error:
        msg = (
            f"cannot {doing}: {service} does not answer ({_short(error)}). Look at "
            "https://status.cloud.google.com and try again: what was begun is found then"
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
    return (
        f"gcloud projects add-iam-policy-binding {project} --member={member} "
        f"--role={role}"
    )


def not_known(doing: str, error: Exception) -> CloudRightsError:
    """Tell that there are no credentials, or none that Google takes."""
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
    permission = metadata.get("permission", "")
    lacking = f" ({permission})" if permission else ""
    return CloudRightsError(
        f"not allowed to {doing}{lacking}. Let the owner of project {project!r} grant "
        f"it: {grant_command(project, role)}. Google says: {said}"
    )


def _exhausted(doing: str, project: str, service: str, error: Any) -> CloudQuotaError:
    return CloudQuotaError(
        f"cannot {doing}: a quota of project {project!r} is used up. Ask for more at "
        f"https://console.cloud.google.com/iam-admin/quotas?project={project}&service="
        f"{service}, or ask for less. Google says: {_short(error)}"
    )


def _short(error: Any) -> str:
    message = getattr(error, "message", None) or str(error)
    return f"{type(error).__name__}: {message}"[:_LONGEST]


def with_credentials(doing: str, client: Callable[[], Any]) -> Any:
    """Make a client; tell how to log in if there are no credentials.

    Raises
    ------
    CloudRightsError
        If there are none.
    """
    from google.auth.exceptions import GoogleAuthError

    try:
        return client()
    except GoogleAuthError as error:
        raise not_known(doing, error) from error


@dataclass(frozen=True, slots=True)
class Retry:
    """How long to wait for answers.

    Attributes
    ----------
    timeout : float
        For the answer to one request.
    deadline : float
        For a request with its repetitions, and for the end of an operation.
    initial, maximum : float
        Before a repetition; doubled each time, and drawn at random below that.
    """

    timeout: float = 30.0
    deadline: float = 120.0
    initial: float = 0.25
    maximum: float = 8.0

    @property
    def reading(self) -> dict[str, Any]:
        """Options of a request that changes nothing, or the same thing once: repeated."""
        retry = GoogleRetry(
            predicate=lambda error: isinstance(error, LOST),
            initial=self.initial,
            maximum=self.maximum,
            multiplier=2,
            timeout=self.deadline,
        )
        return {"retry": retry, "timeout": self.timeout}

    @property
    def once(self) -> dict[str, Any]:
        """Options of a request that must not be repeated blindly."""
        return {"retry": None, "timeout": self.timeout}
