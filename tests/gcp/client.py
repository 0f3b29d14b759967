"""A client as a process of its own, to be killed."""

from __future__ import annotations

import sys
import time

from dask_hpsearch.gcp.images.images import ensure_image
from tests.fakes.google_cloud import clients_for
from tests.gcp.specs import spec


def main(address: str, store: str) -> None:
    """Ensure an image, and say what the build's log says."""

    def say(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    with clients_for(address) as clients:
        ensure_image(spec(store=store), say=say, wait=time.sleep, **clients)
