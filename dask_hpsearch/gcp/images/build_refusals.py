"""Explains refusals that are particular to builds, with the command that helps."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from google.api_core import exceptions

from dask_hpsearch.exceptions import CloudError, CloudRightsError
from dask_hpsearch.gcp.images.build_account import (
    act_as_command,
    bucket_commands,
    build_account_command,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.cloud.devtools import cloudbuild_v1 as builds_v1

# Google's refusal of a project with little billing history.
_RESTRICTED = re.compile(r"cannot run builds in this region", re.IGNORECASE)
_ACT_AS = re.compile(
    r"act as (the )?service account|serviceAccounts\.actAs", re.IGNORECASE
)
_NO_LOGS = re.compile(r"does not have access to (the )?logs bucket", re.IGNORECASE)
# An address, or the unique number that Google sometimes names instead; gcloud takes both.
_ACCOUNT = re.compile(r"[-a-z0-9.]+@[-a-z0-9.]+\.com|\b\d{18,25}\b")
_LONGEST = 300


class RestrictedRegionError(CloudError):
    """Cloud Build does not build in a region for this project."""


@contextlib.contextmanager
def map_build_refusals(
    build: builds_v1.Build, project: str, parent: str
) -> Iterator[None]:
    """Map refusals of a new build to errors that say how to go on.

    Parameters
    ----------
    build : Build
    project : str
    parent : str
        Resource name of the location.

    Raises
    ------
    RestrictedRegionError
        If the project may not build in this location.
    CloudRightsError
        If the user may not act as the account of builds, or that may not see the bucket.
    """
    try:
        yield
    except exceptions.FailedPrecondition as error:
        if not _RESTRICTED.search(str(error)):
            raise
        msg = (
            f"Cloud Build does not build in {parent.rpartition('/')[2]} for project "
            f"{project!r}, as for other projects with little billing history: set "
            "build_location: global in the spec"
        )
        raise RestrictedRegionError(msg) from error
    except exceptions.InvalidArgument as error:
        if not _NO_LOGS.search(str(error)):
            raise
        raise _no_logs(project, build, error) from error
    except exceptions.PermissionDenied as error:
        if not _ACT_AS.search(str(error)):
            raise
        raise _not_acting(project, build, error) from error


def _not_acting(
    project: str, build: builds_v1.Build, error: Exception
) -> CloudRightsError:
    """Return the error of a user who may not start builds that run as their account."""
    said = str(error)
    named = _ACCOUNT.search(said)
    account = build.service_account.rpartition("/")[2] or (named[0] if named else "")
    command = act_as_command(project, account or "ACCOUNT")
    bucket = build.logs_bucket.removeprefix("gs://").partition("/")[0]
    default = "" if build.service_account else " (Cloud Build's default account)"
    own = (
        ""
        if build.service_account
        else " Or create an account for builds alone, and name it in the spec "
        "(build_service_account): " + build_account_command(project, bucket)
    )
    return CloudRightsError(
        f"cannot start a build: builds run as {account or 'an account'}{default}, and you "
        f"lack iam.serviceAccounts.actAs on it. Ask its owner to grant it: {command}.{own}. "
        f"Google says: {said[:_LONGEST]}"
    )


def _no_logs(
    project: str, build: builds_v1.Build, error: Exception
) -> CloudRightsError:
    """Return the error of builds that may not look at the bucket of their logs."""
    account = build.service_account.rpartition("/")[2] or "ACCOUNT"
    bucket = build.logs_bucket.removeprefix("gs://").partition("/")[0]
    commands = " && ".join(bucket_commands(bucket, f"serviceAccount:{account}"))
    return CloudRightsError(
        f"cannot start a build: the account as which builds run in project "
        f"{project!r} has no access to the bucket {bucket!r} of their logs. Grant "
        f"it: {commands}. dask-hpsearch doctor names the account. Google says: "
        f"{str(error)[:_LONGEST]}"
    )
