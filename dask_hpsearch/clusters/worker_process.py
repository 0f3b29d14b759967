"""The program of a local worker: ``python -m dask_hpsearch.clusters.worker_process``.

Unlike a process that multiprocessing spawns, it does not import the user's main module,
so that a script needs no ``if __name__ == "__main__"``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

from distributed import Worker


async def _work(scheduler: str, options: dict[str, Any]) -> None:
    async with Worker(scheduler, **options) as worker:
        await worker.finished()


def main() -> None:
    """Run one Dask worker until its scheduler is gone."""
    settings = json.loads(sys.argv[1])
    logging.getLogger("distributed").setLevel(settings["log_level"])
    try:
        asyncio.run(_work(settings["scheduler"], settings["options"]))
    except (KeyboardInterrupt, OSError, TimeoutError):
        sys.exit(1)


if __name__ == "__main__":
    main()
