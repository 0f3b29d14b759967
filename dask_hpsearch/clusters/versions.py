"""Compares what a client and a cluster's image have installed."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version

from dask_hpsearch.errors import VersionSkewError
from dask_hpsearch.release import __version__

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


def check_versions(client: dict[str, str], cluster: dict[str, str], image: str) -> None:
    """Refuse a cluster whose image does not load what the client pickles.

    Raises
    ------
    VersionSkewError
        With both lists, and how to build an image that fits.
    """
    # What the image has and the client lacks is never sent there, nor comes back.
    differing = [name for name in client if client[name] != cluster.get(name)]
    if not differing:
        return

    def listed(versions: dict[str, str]) -> str:
        return ", ".join(f"{name} {versions.get(name, 'none')}" for name in differing)

    msg = (
        f"the image {image} does not have the versions of this client. "
        f"Client: {listed(client)}. Image: {listed(cluster)}. Build the image anew from "
        "this environment: dask-hpsearch image build --local"
    )
    raise VersionSkewError(msg)
