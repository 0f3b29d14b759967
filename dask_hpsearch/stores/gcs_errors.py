"""What Google Cloud Storage refuses, as errors that say the way out."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any

from dask_hpsearch.exceptions import (
    BucketNotFoundError,
    StoreError,
    StorePermissionError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_NEEDS = {
    "read": "storage.objects.get",
    "create": "storage.objects.create",
    "list": "storage.objects.list",
    "touch": "storage.objects.update",
    "delete": "storage.objects.delete",
}
_PERMISSION = re.compile(r"storage\.[a-z]+\.[a-zA-Z]+")
_ACCOUNT = re.compile(r"([\w.+-]+@[\w.-]+\w)")
_LONGEST = 500
_ROLE = "roles/storage.objectUser"


def no_bucket(bucket: str) -> BucketNotFoundError:
    """Tell that a bucket is missing."""
    return BucketNotFoundError(
        f"there is no bucket {bucket!r}: check its name, or create it with "
        f"gcloud storage buckets create gs://{bucket} --uniform-bucket-level-access "
        "--location=REGION, in the region of the workers"
    )


@contextlib.contextmanager
def map_storage_errors(doing: str, bucket: str, name: str = "") -> Iterator[None]:
    """Turn what the storage, the network or the credentials refuse into our errors.

    Parameters
    ----------
    doing : str
        "open", "read", "create", "list", "touch" or "delete".
    bucket, name : str
        Of the object.
    """
    import requests
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError, TransportError

    what = f"gs://{bucket}/{name}".removesuffix("/")
    try:
        yield
    except exceptions.Forbidden as error:
        raise _forbidden(doing, bucket, what, _short(error)) from error
    except (exceptions.Unauthorized, GoogleAuthError) as error:
        raise _not_known(doing, what, error) from error
    except exceptions.NotFound as error:
        raise no_bucket(bucket) from error
    except exceptions.RetryError as error:
        cause = error.cause
        if isinstance(cause, GoogleAuthError) and not isinstance(cause, TransportError):
            raise _not_known(doing, what, cause) from error
        msg = (
            f"cannot {doing} {what}: after many repetitions still {_short(cause)}. Check "
            "the network and https://status.cloud.google.com; what was stored before "
            "is whole"
        )
        raise StoreError(msg) from error
    except (exceptions.GoogleAPIError, requests.RequestException) as error:
        msg = f"cannot {doing} {what}: {_short(error)}; what was stored before is whole"
        raise StoreError(msg) from error


def _forbidden(doing: str, bucket: str, what: str, said: str) -> StorePermissionError:
    permission = _PERMISSION.search(said)
    needed = permission[0] if permission else _NEEDS.get(doing, "storage.objects.get")
    account = _ACCOUNT.search(said)
    return StorePermissionError(
        f"not allowed to {doing} {what}: {needed} on gs://{bucket} is missing. Let the "
        "bucket's owner grant it: gcloud storage buckets add-iam-policy-binding "
        f"gs://{bucket} --member={_member(account and account[1])} --role={_ROLE}; or "
        f"choose another place with store=. Google says: {said}"
    )


def _member(account: str | None) -> str:
    if account is None:
        return "user:YOU"
    service = account.endswith(".gserviceaccount.com")
    return f"{'serviceAccount' if service else 'user'}:{account}"


def _not_known(doing: str, what: str, error: Exception) -> StorePermissionError:
    return StorePermissionError(
        f"cannot {doing} {what}: there are no valid credentials for Google Cloud. Log in "
        "with gcloud auth application-default login, or let "
        "GOOGLE_APPLICATION_CREDENTIALS name a key file; inside Google Cloud, give the "
        f"machine or the pod a service account. Google says: {_short(error)}"
    )


def _short(error: Any) -> str:
    """Say what an error says, without all of the request."""
    response = getattr(error, "response", None)
    if response is None:
        return f"{type(error).__name__}: {error}"[:_LONGEST]
    try:
        said = response.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        said = response.text
    return f"HTTP status {response.status_code}: {said}"[:_LONGEST]
