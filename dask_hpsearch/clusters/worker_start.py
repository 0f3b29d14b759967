"""How a worker starts, on this machine or in a pod: its forkserver first.

The forkserver's imports run beside those of Dask. A worker joins its cluster only once
slots can be forked in milliseconds: one that is there takes fits at once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from distributed import Worker

    from dask_hpsearch.slots.slot import Forkserver

_FORKSERVER_WAIT_S = 60.0


async def make_worker(
    scheduler: str,
    forkserver: Forkserver,
    *,
    extensions: Mapping[str, Callable[[Worker], Any]] | None = None,
    **options: Any,
) -> Worker:
    """Make a worker that takes over a forkserver, once that is ready.

    Parameters
    ----------
    scheduler : str
        Address of the scheduler.
    forkserver : Forkserver
    extensions : mapping of str to callable, optional
        What the worker's slots take over besides, see `dask_hpsearch.slots.plugin`.
    **options
        Options of `distributed.Worker`.

    Returns
    -------
    Worker
        It joins when it is awaited.
    """
    from distributed import Worker
    from distributed.worker import DEFAULT_EXTENSIONS

    from dask_hpsearch.slots.plugin import EARLY_FORKSERVER

    await asyncio.to_thread(forkserver.wait_until_ready, _FORKSERVER_WAIT_S)
    all_extensions: Any = {
        **DEFAULT_EXTENSIONS,
        EARLY_FORKSERVER: lambda _worker: forkserver,
        **(extensions or {}),
    }
    return Worker(scheduler, extensions=all_extensions, **options)
