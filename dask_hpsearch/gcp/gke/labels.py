"""Labels on what we create: that it is ours, whose, and until when it may be there."""

from __future__ import annotations

import datetime as dt
import getpass
import re
import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dask_hpsearch.config.gke import GKESpec

MANAGED_BY, OURS = "managed-by", "dask-hpsearch"
OWNER = "owner"
EXPIRES_AT = "expires-at"
CREATION = "creation"  # tells apart who of several clients created a resource
KEPT = "kept"  # it stays when the search that made it has ended
CLAIM = "claim-"  # and a name: until when somebody is about to use it
_CLAIM_S = 3600.0  # longer than it takes from the claim to a Dask cluster
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


def new_claim() -> str:
    """Return the name of a label by which one user of a cluster is known."""
    return f"{CLAIM}{uuid.uuid4().hex[:12]}"


def claimed(labels: Mapping[str, str], claim: str | None, now: float) -> dict[str, str]:
    """Return labels with one claim more, and without those that are over."""
    valid = claims(labels, now)
    kept = {
        name: value
        for name, value in labels.items()
        if not name.startswith(CLAIM) or name in valid
    }
    return kept if claim is None else {**kept, claim: time_text(now + _CLAIM_S)}


def claims(labels: Mapping[str, str], now: float) -> set[str]:
    """Return the claims that are not over."""
    return {
        name
        for name, value in labels.items()
        if name.startswith(CLAIM) and (_read(value) or 0.0) > now
    }


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
    return _read(labels.get(EXPIRES_AT, ""))


def _read(text: str) -> float | None:
    try:
        naive = dt.datetime.strptime(text, _TIME)  # noqa: DTZ007
    except ValueError:
        return None
    return naive.replace(tzinfo=dt.UTC).timestamp()
