"""Labels on what we create: that it is ours, whose, and until when it may be there."""

from __future__ import annotations

import datetime as dt
import getpass
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dask_hpsearch.config.gke import GKESpec

MANAGED_BY, OURS = "managed-by", "dask-hpsearch"
OWNER = "owner"
EXPIRES_AT = "expires-at"
CREATION = "creation"  # tells apart who of several clients created a resource
KEPT = "kept"  # it stays when the search that made it has ended
_TIME = "%Y-%m-%dt%H-%M-%Sz"  # all that a label may hold: no capitals, no colons
_LONGEST = 63


def for_cluster(spec: GKESpec, *, expires_at: float, creation: str) -> dict[str, str]:
    """Return the labels of a new GKE cluster.

    Parameters
    ----------
    spec : GKESpec
    expires_at : float
        Seconds since the epoch.
    creation : str
        A name of this one attempt.
    """
    return {
        **spec.labels,
        MANAGED_BY: OURS,
        OWNER: owner(spec),
        EXPIRES_AT: time_text(expires_at),
        CREATION: creation,
    }


def is_ours(labels: Mapping[str, str]) -> bool:
    """Whether dask_hpsearch has created what carries these labels."""
    return labels.get(MANAGED_BY) == OURS


def owner(spec: GKESpec) -> str:
    """Return whom a spec names as owner, else who is at work on this machine."""
    if spec.owner is not None:
        return spec.owner
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as containers have
        return "unknown"
    return re.sub(r"[^-_a-z0-9]", "-", name.lower())[:_LONGEST] or "unknown"


def time_text(seconds: float) -> str:
    """Write a time, in seconds since the epoch, as a label can hold it."""
    return dt.datetime.fromtimestamp(round(seconds), dt.UTC).strftime(_TIME)


def expiry(labels: Mapping[str, str]) -> float | None:
    """Read when something expires, in seconds since the epoch.

    Returns
    -------
    float or None
        None if there is no such label, or somebody has written something else there.
    """
    try:
        naive = dt.datetime.strptime(labels.get(EXPIRES_AT, ""), _TIME)  # noqa: DTZ007
    except ValueError:
        return None
    return naive.replace(tzinfo=dt.UTC).timestamp()
