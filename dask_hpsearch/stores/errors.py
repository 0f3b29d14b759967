"""Maps errors of storage to those of dask_hpsearch, which say the way out.

Storage is Google Cloud Storage (through google-cloud-storage, or gcsfs), a folder of this
machine, or memory.
"""

from __future__ import annotations

import contextlib
import errno
import re
from typing import TYPE_CHECKING, Any

from dask_hpsearch.exceptions import (
    BucketNotFoundError,
    StoreError,
    StoreFullError,
    StorePermissionError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_PERMISSIONS = {
    "read": "storage.objects.get",
    "create": "storage.objects.create",
    "list": "storage.objects.list",
    "touch": "storage.objects.update",
    "delete": "storage.objects.delete",
}
_READING = ("list", "open", "read")
_PERMISSION = re.compile(r"storage\.[a-z]+\.[a-zA-Z]+")
_ACCOUNT = re.compile(r"([\w.+-]+@[\w.-]+\w)")
_LONGEST = 500
_ROLE = "roles/storage.objectUser"
_UNAUTHORIZED = (401, "401")
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextlib.contextmanager
def map_storage_errors(
    doing: str, place: str, *, foreign: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Map errors of a storage, of the network or of credentials to a `StoreError`.

    Parameters
    ----------
    doing : str
        "open", "read", "list", "create", "write", "touch" or "delete".
    place : str
        Of the object or the folder: a ``gs://`` URL, another URL, or a local path.
    foreign : tuple of type
        Exceptions to map besides those of google-cloud-storage (``gs://``), or besides
        ``OSError`` (elsewhere).

    Raises
    ------
    StorePermissionError, BucketNotFoundError, StoreFullError, StoreError
    """
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        find = _bucket_error if place.startswith("gs://") else _file_error
        mapped = find(doing, place, error, foreign)
        if mapped is None:
            raise
        raise mapped from error


def bucket_not_found(bucket: str) -> BucketNotFoundError:
    """Return the error of a missing bucket."""
    return BucketNotFoundError(
        f"there is no bucket {bucket!r}: check its name, or create it with "
        f"gcloud storage buckets create gs://{bucket} --uniform-bucket-level-access "
        "--location=REGION, in the region of the workers"
    )


def _bucket_error(
    doing: str, url: str, error: Exception, foreign: tuple[type[Exception], ...]
) -> StoreError | None:
    from google.api_core import exceptions

    if isinstance(error, exceptions.NotFound):
        return bucket_not_found(_bucket_of(url))
    if isinstance(error, exceptions.RetryError):
        return _retries_failed(doing, url, error.cause)
    is_foreign = isinstance(error, foreign)
    if _is_forbidden(error, is_foreign=is_foreign):
        return _forbidden(doing, url, _short(error))
    if _is_unauthorized(error, is_foreign=is_foreign):
        return _no_credentials(doing, url, error)
    return _request_error(doing, url, error, is_foreign=is_foreign)


def _is_forbidden(error: Exception, *, is_foreign: bool) -> bool:
    from google.api_core import exceptions

    if is_foreign:  # gcsfs raises HttpError and OSError
        return isinstance(error, PermissionError) or "Forbidden" in _short(error)
    return isinstance(error, exceptions.Forbidden)


def _is_unauthorized(error: Exception, *, is_foreign: bool) -> bool:
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError

    if is_foreign and getattr(error, "code", None) in _UNAUTHORIZED:
        return True
    return isinstance(error, (exceptions.Unauthorized, GoogleAuthError))


def _request_error(
    doing: str, url: str, error: Exception, *, is_foreign: bool
) -> StoreError | None:
    import requests
    from google.api_core import exceptions

    if is_foreign:
        return _unreachable(doing, url, _short(error))
    if isinstance(error, (exceptions.GoogleAPIError, requests.RequestException)):
        return StoreError(
            f"cannot {doing} {url}: {_short(error)}; previously stored objects are intact"
        )
    return None


def _bucket_of(url: str) -> str:
    return url.removeprefix("gs://").partition("/")[0]


def _retries_failed(doing: str, url: str, cause: Exception | None) -> StoreError:
    from google.auth.exceptions import GoogleAuthError, TransportError

    if isinstance(cause, GoogleAuthError) and not isinstance(cause, TransportError):
        return _no_credentials(doing, url, cause)
    return StoreError(
        f"cannot {doing} {url}: after many retries still {_short(cause)}. Check "
        "the network and https://status.cloud.google.com; previously stored objects are "
        "intact"
    )


def _forbidden(doing: str, url: str, said: str) -> StorePermissionError:
    bucket = _bucket_of(url)
    found = _PERMISSION.search(said)
    permission = found[0] if found else _PERMISSIONS.get(doing, "storage.objects.get")
    account = _ACCOUNT.search(said)
    return StorePermissionError(
        f"not allowed to {doing} {url}: {permission} on gs://{bucket} is missing. Ask the "
        "bucket's owner to grant it: gcloud storage buckets add-iam-policy-binding "
        f"gs://{bucket} --member={_member(account and account[1])} --role={_ROLE}; or "
        f"choose another bucket. Google says: {said}"
    )


def _member(account: str | None) -> str:
    if account is None:
        return "user:YOU"
    service = account.endswith(".gserviceaccount.com")
    return f"{'serviceAccount' if service else 'user'}:{account}"


def _no_credentials(doing: str, url: str, error: Exception) -> StorePermissionError:
    return StorePermissionError(
        f"cannot {doing} {url}: there are no valid credentials for Google Cloud. Log in "
        "with gcloud auth application-default login, or set "
        "GOOGLE_APPLICATION_CREDENTIALS to the path of a key file; inside Google Cloud, "
        f"give the machine or the pod a service account. Google says: {_short(error)}"
    )


def _file_error(
    doing: str, place: str, error: Exception, foreign: tuple[type[Exception], ...]
) -> StoreError | None:
    if not isinstance(error, OSError):
        if not isinstance(error, foreign):
            return None
        return _unreachable(doing, place, _short(error))
    reason = error.strerror or str(error)
    elsewhere = (
        "" if doing in _READING else ", or choose a folder on another disk with store="
    )
    if error.errno in _FULL:
        return StoreFullError(
            f"no space left to {doing} {place}: free some there{elsewhere}; previously "
            "stored objects are intact"
        )
    if error.errno in _FORBIDDEN or isinstance(error, PermissionError):
        return StorePermissionError(
            f"not allowed to {doing} {place} ({reason}): check its owner and permissions"
            f"{elsewhere}"
        )
    return StoreError(
        f"cannot {doing} {place} ({reason}): check the folder and its disk{elsewhere}"
    )


def _unreachable(doing: str, place: str, text: str) -> StoreError:
    return StoreError(
        f"cannot {doing} {place} ({text}): check that the storage is reachable from here"
    )


def _short(error: Any) -> str:
    """Return the message of an error, without all of the request."""
    response = getattr(error, "response", None)
    if response is None:
        return f"{type(error).__name__}: {error}"[:_LONGEST]
    try:
        said = response.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        said = response.text
    return f"HTTP status {response.status_code}: {said}"[:_LONGEST]
