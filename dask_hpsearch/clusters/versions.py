"""Compares the installed versions of client, scheduler and workers."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from distributed.protocol.pickle import dumps, loads

from dask_hpsearch._version import __version__
from dask_hpsearch.exceptions import ClusterUnreachableError, VersionSkewError

# One side pickles their objects, the other loads them.
MATCHING = (
    "cloudpickle",
    "dask",
    "distributed",
    "joblib",
    "msgpack",
    "numpy",
    "pandas",
    "scikit-learn",
    "scipy",
)


def versions_here() -> dict[str, str]:
    """Return the relevant versions of this process."""
    found = {
        "dask-hpsearch": __version__,
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
    }
    for name in MATCHING:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


async def versions_of(scheduler: Any) -> dict[str, str]:
    """Request the versions of a scheduler.

    Parameters
    ----------
    scheduler : distributed.core.rpc

    Raises
    ------
    ClusterUnreachableError
        If it cannot return them.
    """
    response = await scheduler.run_function(function=dumps(versions_here))
    if response["status"] != "OK":
        msg = f"the scheduler cannot return its versions: {loads(response['exception'])!r}"
        raise ClusterUnreachableError(msg)
    versions: dict[str, str] = response["result"]
    return versions


def check_versions(client: dict[str, str], cluster: dict[str, str], image: str) -> None:
    """Check that a cluster's image has the client's versions.

    Raises
    ------
    VersionSkewError
        With both lists, and the command that builds a matching image.
    """
    _compare(("client", client), ("image", cluster), image)


def check_worker_versions(
    scheduler: dict[str, str], worker: dict[str, str], image: str
) -> None:
    """Check that a worker has the scheduler's versions.

    The clients have compared theirs with the scheduler's.

    Raises
    ------
    VersionSkewError
        With both lists, and the command that builds a matching image.
    """
    _compare(("scheduler", scheduler), ("worker", worker), image)


def _compare(
    one: tuple[str, dict[str, str]], other: tuple[str, dict[str, str]], image: str
) -> None:
    # Packages that only the image has are never pickled.
    (name, versions), (other_name, other_versions) = one, other
    differing = [key for key in versions if versions[key] != other_versions.get(key)]
    if not differing:
        return

    def listed(found: dict[str, str]) -> str:
        return ", ".join(f"{key} {found.get(key, 'none')}" for key in differing)

    msg = (
        f"the image {image} does not have the versions of this {name}. "
        f"{name.title()}: {listed(versions)}. {other_name.title()}: "
        f"{listed(other_versions)}. Build the image again from the client's environment: "
        "dask-hpsearch image build --local"
    )
    raise VersionSkewError(msg)
