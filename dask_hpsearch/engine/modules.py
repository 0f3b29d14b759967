"""Sends modules of the user's own to workers that turn out to lack them."""

from __future__ import annotations

import importlib.util
import io
import logging
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from dask_hpsearch.slots.modules import ModulePlugin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client

    from dask_hpsearch.trials import Outcome

_MOST_BYTES = 50 * 2**20
_INSTALLED = ("site-packages", "dist-packages")
_logger = logging.getLogger(__name__)


class ModuleSender:
    """Sends each module once, when a task says that its worker has none of that name.

    What is installed here is left to the workers' own installation: their image.

    Parameters
    ----------
    client : Client
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._sent: dict[str, bool] = {}
        self._tried: set[tuple[int, str]] = set()

    def sent_for(self, outcome: Outcome) -> bool:
        """Send what a task could not import; return whether it may be tried again."""
        if outcome.status != "unreadable":
            return False
        top = outcome.payload.decode().partition(".")[0]
        if not top or (outcome.job, top) in self._tried:
            return False
        self._tried.add((outcome.job, top))
        if top not in self._sent:
            self._sent[top] = self._send(top)
        return self._sent[top]

    def _send(self, module: str) -> bool:
        source = own_source(module)
        archive = None if source is None else packed(source)
        if archive is None:
            return False
        _logger.info("the workers lack %s: sent from %s", module, source)
        plugin = ModulePlugin(module, archive)
        self._client.register_plugin(plugin, name=plugin.name)
        return True


def own_source(module: str) -> Path | None:
    """Return the file or folder of a module that is the user's own.

    Returns
    -------
    Path or None
        None for what is installed, built in, or not to be found here.
    """
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    origin = None if found is None else found.origin
    if origin is None or not origin.endswith(".py") or not Path(origin).is_file():
        return None
    path = Path(origin).resolve()
    standard = Path(sysconfig.get_paths()["stdlib"]).resolve()
    if any(name in path.parts for name in _INSTALLED) or path.is_relative_to(standard):
        return None
    if path.is_relative_to(sys.prefix) and sys.prefix != sys.base_prefix:
        return None
    return path.parent if path.name == "__init__.py" else path


def packed(source: Path) -> bytes | None:
    """Pack a module's file or folder into a zip file; None if it is too large."""
    buffer = io.BytesIO()
    total = 0
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in _files(source):
            total += path.stat().st_size
            if total > _MOST_BYTES:
                _logger.warning("%s is too large to be sent to workers", source)
                return None
            # A fixed time: the same content is the same archive, and is sent once.
            entry = zipfile.ZipInfo(str(path.relative_to(source.parent)))
            archive.writestr(entry, path.read_bytes())
    return buffer.getvalue()


def _files(source: Path) -> Iterator[Path]:
    if source.is_file():
        yield source
        return
    for path in sorted(source.rglob("*")):
        inside = path.relative_to(source).parts
        hidden = any(part.startswith(".") or part == "__pycache__" for part in inside)
        if path.is_file() and not hidden:
            yield path
