"""How requests to Google's APIs are repeated, as options of their clients' methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.api_core import exceptions
from google.api_core.retry import Retry as GoogleRetry
from google.auth.exceptions import TransportError

if TYPE_CHECKING:
    from dask_hpsearch.stores.retry import Retry

# The service was busy, or its response was lost: the request may have been carried out.
# An exhausted quota is neither.
TRANSIENT = (
    exceptions.ServiceUnavailable,
    exceptions.DeadlineExceeded,
    exceptions.InternalServerError,
    TransportError,
)


def with_retries(retry: Retry) -> dict[str, Any]:
    """Return the options of an idempotent request: it is repeated.

    Parameters
    ----------
    retry : Retry
    """
    repeated = GoogleRetry(
        predicate=lambda error: isinstance(error, TRANSIENT),
        initial=retry.initial,
        maximum=retry.maximum,
        multiplier=2,
        timeout=retry.deadline,
    )
    return {"retry": repeated, "timeout": retry.timeout}


def without_retries(retry: Retry) -> dict[str, Any]:
    """Return the options of a request that must not be repeated blindly.

    Parameters
    ----------
    retry : Retry
    """
    return {"retry": None, "timeout": retry.timeout}
