"""A preload of workers that leaves them no memory: more than any limit of the tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed import Worker


def dask_setup(worker: Worker) -> None:
    """Eat."""
    worker.extensions["eaten"] = b"x" * (4 * 2**30)
