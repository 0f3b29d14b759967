"""Compares what a client, a scheduler and workers have installed."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from distributed.protocol.pickle import dumps, loads

from dask_hpsearch._version import __version__
from dask_hpsearch.exceptions import ClusterUnreachableError, VersionSkewError

# What one side pickles, and the other loads.
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
    """Return the versions that matter, of this process."""
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
    """Ask a scheduler for its versions.

    Parameters
    ----------
    scheduler : distributed.core.rpc

    Raises
    ------
    ClusterUnreachableError
        If it cannot tell them.
    """
    answer = await scheduler.run_function(function=dumps(versions_here))
    if answer["status"] != "OK":
        msg = f"the scheduler cannot tell its versions: {loads(answer['exception'])!r}"
        raise ClusterUnreachableError(msg)
    versions: dict[str, str] = answer["result"]
    return versions


def check_versions(client: dict[str, str], cluster: dict[str, str], image: str) -> None:
    """Refuse a cluster whose image does not load what the client pickles.

    Raises
    ------
    VersionSkewError
        With both lists, and how to build an image that fits.
    """
    _compare(("client", client), ("image", cluster), image)


def check_worker_versions(
    scheduler: dict[str, str], worker: dict[str, str], image: str
) -> None:
    """Refuse to be a worker of a scheduler with other versions.

    A scheduler's versions are its clients', who have compared them.

    Raises
    ------
    VersionSkewError
        With both lists, and how to build an image that fits.
    """
    _compare(("scheduler", scheduler), ("worker", worker), image)


def _compare(
    one: tuple[str, dict[str, str]], other: tuple[str, dict[str, str]], image: str
) -> None:
    # What the image has and the client lacks is never sent there, nor comes back.
    (mine, here), (theirs, there) = one, other
    differing = [name for name in here if here[name] != there.get(name)]
    if not differing:
        return

    def listed(versions: dict[str, str]) -> str:
        return ", ".join(f"{name} {versions.get(name, 'none')}" for name in differing)

    msg = (
        f"the image {image} does not have the versions of this {mine}. "
        f"{mine.title()}: {listed(here)}. {theirs.title()}: {listed(there)}. Build the "
        "image anew from the client's environment: dask-hpsearch image build --local"
    )
    raise VersionSkewError(msg)
