"""User modules on workers: how they get there, and which versions are there."""

from __future__ import annotations

import hashlib
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed import WorkerPlugin

from dask_hpsearch.slots.plugin import PLUGIN_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from distributed import Worker

    from dask_hpsearch.slots.pool import SlotPool

_DIGITS = 16


class ModulePlugin(WorkerPlugin):
    """Gives a user module to a worker's slots; later workers get it too.

    The slots import it instead of any other version of the module.

    Parameters
    ----------
    module : str
        Name of the module or package.
    archive : bytes
        A zip file with it.
    digest : str
        Of its source, as `source_digest` makes it.
    """

    idempotent = False  # an earlier version may come again

    def __init__(self, module: str, archive: bytes, digest: str) -> None:
        self.name = f"dask-hpsearch-module-{module}"
        self._module = module
        self._archive = archive
        self._digest = digest

    def setup(self, worker: Worker) -> None:
        """Write the archive into the worker's folder; its code is not run here."""
        pool = _pool(worker)
        if (
            self._module not in pool.modules
            and _digest_here(self._module) == self._digest
        ):
            return
        path = Path(worker.local_directory) / f"{self.name}-{self._digest}.zip"
        path.write_bytes(self._archive)
        pool.put_module(self._module, str(path), self._digest)


def outdated(digests: Mapping[str, str], dask_worker: Worker) -> list[str]:
    """Return the modules of which this worker's slots would import another version.

    Missing modules are not among them. Slots that may have imported an older version of
    a file are replaced.

    Parameters
    ----------
    digests : mapping of str to str
        Digest of each module's source, at the client.
    """
    pool = _pool(dask_worker)
    found = {name: pool.modules.get(name) or _digest_here(name) for name in digests}
    here = {name: digest for name, digest in found.items() if digest is not None}
    pool.saw_modules(here)
    return [name for name, digest in here.items() if digest != digests[name]]


def source_digest(source: Path) -> str:
    """Return the digest of a module's file, or of all files of its folder."""
    digest = hashlib.sha256()
    for path in source_files(source):
        digest.update(str(path.relative_to(source.parent)).encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:_DIGITS]


def source_files(source: Path) -> Iterator[Path]:
    """Yield the files that a module consists of, in a fixed order."""
    if source.is_file():
        yield source
        return
    for path in sorted(source.rglob("*")):
        inside = path.relative_to(source).parts
        hidden = any(part.startswith(".") or part == "__pycache__" for part in inside)
        if path.is_file() and not hidden:
            yield path


def _digest_here(name: str) -> str | None:
    """Digest a module's source as an import would find it; None if there is none."""
    found = PathFinder.find_spec(name, sys.path)
    origin = Path(found.origin) if found and found.origin else None
    if origin is None or not origin.is_file():
        return None
    return source_digest(origin.parent if origin.name == "__init__.py" else origin)


def _pool(worker: Worker) -> SlotPool:
    plugin: Any = worker.plugins[PLUGIN_NAME]
    pool: SlotPool = plugin.pool
    return pool
