"""Labels of the resources that dask_hpsearch manages: owner, expiry, claims."""

from __future__ import annotations

import datetime as dt
import getpass
import re
import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dask_hpsearch.config.gke import GKESpec

MANAGED_BY, MANAGER = "managed-by", "dask-hpsearch"
OWNER = "owner"
EXPIRES_AT = "expires-at"
CREATION = "creation"  # distinguishes the attempts of several clients
KEPT = "kept"  # it stays after the search that created it
CLAIM = "claim-"  # and a name: a client is about to use it, until a time
_CLAIM_TIME = 3600.0  # longer than it takes from the claim to a Dask cluster
_TIME = "%Y-%m-%dt%H-%M-%Sz"  # a label may hold no capitals and no colons
_LONGEST = 63


def for_cluster(spec: GKESpec, *, expires_at: float, creation: str) -> dict[str, str]:
    """Return the labels of a new GKE cluster.

    Parameters
    ----------
    spec : GKESpec
    expires_at : float
        Seconds since the epoch.
    creation : str
        Identifies this attempt.
    """
    return {
        **spec.labels,
        MANAGED_BY: MANAGER,
        OWNER: owner(spec),
        EXPIRES_AT: time_text(expires_at),
        CREATION: creation,
    }


def is_managed(labels: Mapping[str, str]) -> bool:
    """Whether these are the labels of a resource that dask_hpsearch manages."""
    return labels.get(MANAGED_BY) == MANAGER


def new_claim() -> str:
    """Return the name of a label that identifies one client of a GKE cluster."""
    return f"{CLAIM}{uuid.uuid4().hex[:12]}"


def with_claim(
    labels: Mapping[str, str], claim: str | None, now: float
) -> dict[str, str]:
    """Return labels with another claim, and without expired ones."""
    valid = active_claims(labels, now)
    kept = {
        name: value
        for name, value in labels.items()
        if not name.startswith(CLAIM) or name in valid
    }
    return kept if claim is None else {**kept, claim: time_text(now + _CLAIM_TIME)}


def active_claims(labels: Mapping[str, str], now: float) -> set[str]:
    """Return the claims that have not expired."""
    return {
        name
        for name, value in labels.items()
        if name.startswith(CLAIM) and (_parse_time(value) or 0.0) > now
    }


def owner(spec: GKESpec) -> str:
    """Return the owner that a spec names, else the current user of this machine."""
    if spec.owner is not None:
        return spec.owner
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as containers have
        return "unknown"
    return re.sub(r"[^-_a-z0-9]", "-", name.lower())[:_LONGEST] or "unknown"


def time_text(seconds: float) -> str:
    """Format a time, in seconds since the epoch, as a label can hold it."""
    return dt.datetime.fromtimestamp(round(seconds), dt.UTC).strftime(_TIME)


def expiry(labels: Mapping[str, str]) -> float | None:
    """Return when a resource expires, in seconds since the epoch.

    Returns
    -------
    float or None
        None if there is no such label, or it holds no time.
    """
    return _parse_time(labels.get(EXPIRES_AT, ""))


def _parse_time(text: str) -> float | None:
    try:
        naive = dt.datetime.strptime(text, _TIME)  # noqa: DTZ007
    except ValueError:
        return None
    return naive.replace(tzinfo=dt.UTC).timestamp()
