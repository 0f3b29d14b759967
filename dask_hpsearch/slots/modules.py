"""Modules of the user's own, as workers get them that cannot import them."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from distributed import WorkerPlugin

if TYPE_CHECKING:
    from distributed import Worker


class ModulePlugin(WorkerPlugin):
    """Puts a module on a worker's path, for its slots; later workers get it too.

    Parameters
    ----------
    module : str
        Name of the module or package.
    archive : bytes
        A zip file with it.
    """

    idempotent = True

    def __init__(self, module: str, archive: bytes) -> None:
        digest = hashlib.sha256(archive).hexdigest()[:16]
        self.name = f"dask-hpsearch-module-{module}-{digest}"
        self._archive = archive

    def setup(self, worker: Worker) -> None:
        """Write the archive into the worker's folder; nothing of it is run here."""
        path = Path(worker.local_directory) / f"{self.name}.zip"
        path.write_bytes(self._archive)
        sys.path.append(str(path))

    def teardown(self, worker: Worker) -> None:
        """Take it from the path."""
        path = str(Path(worker.local_directory) / f"{self.name}.zip")
        if path in sys.path:
            sys.path.remove(path)
