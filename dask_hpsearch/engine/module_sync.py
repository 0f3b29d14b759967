"""Sends the user's modules to workers that lack them or have an older version."""

from __future__ import annotations

import importlib.util
import io
import logging
import os
import re
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from dask_hpsearch.slots.module_plugin import (
    ModulePlugin,
    outdated,
    source_digest,
    source_files,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from distributed import Client

    from dask_hpsearch.messages import Outcome

_MOST_BYTES = 50 * 2**20
_INSTALLED = ("site-packages", "dist-packages")
_NEVER = ("__main__", "dask_hpsearch")  # pickled by value; part of the image
_STANDARD_TEXT = sysconfig.get_paths()["stdlib"] + os.sep
_STANDARD = Path(_STANDARD_TEXT).resolve()
# Too many names do no harm: text in a string may look like an import.
_IMPORT = re.compile(
    rb"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import\b|import[ \t]+([\w., \t]+))",
    re.MULTILINE,
)
_logger = logging.getLogger(__name__)


class ModuleSender:
    """Sends a module to the workers once a task needs it and its worker lacks it.

    Before the first task that refers to a module, the workers are asked whether they have
    the same version. Installed packages are not sent: they are part of the workers' image.

    Parameters
    ----------
    client : Client
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._sent: dict[str, bool] = {}
        self._tried: set[tuple[int, str]] = set()
        self._compared: set[str] = set()
        self._own: dict[str, Path] | None = None

    def compare(self, payload: bytes) -> None:
        """Bring the workers up to date with the modules that a pickle refers to.

        Parameters
        ----------
        payload : bytes
            The pickle that is about to be sent.
        """
        if self._own is None:
            self._own = user_modules()
        own = self._own
        named = {name for name in own if name.encode() in payload} - self._compared
        if not named:
            return
        needed = with_imports(named, own) - self._compared
        self._compared |= needed
        digests = {name: source_digest(own[name]) for name in needed}
        for name in self._outdated(digests):
            self._sent[name] = self._send(name, own[name])

    def forget_compared(self) -> None:
        """Compare all modules again from now on: files may have been edited."""
        self._compared.clear()
        self._own = None

    def _outdated(self, digests: dict[str, str]) -> list[str]:
        try:
            answers = self._client.run(outdated, digests, on_error="ignore")
        except Exception as error:  # noqa: BLE001 (a lost client is reported elsewhere)
            _logger.debug("no worker answered which modules it has: %r", error)
            return []
        if not answers:  # later workers may have any version
            return sorted(digests)
        return sorted({name for names in answers.values() for name in names})

    def sent_for(self, outcome: Outcome) -> bool:
        """Send the module that a task could not import; return whether to run it again."""
        if outcome.status != "unreadable":
            return False
        top = outcome.payload.decode().partition(".")[0]
        if not top or (outcome.number, top) in self._tried:
            return False
        self._tried.add((outcome.number, top))
        if top not in self._sent:
            source = user_source(top)
            self._sent[top] = source is not None and self._send(top, source)
        return self._sent[top]

    def _send(self, module: str, source: Path) -> bool:
        archive = packed(source)
        if archive is None:
            return False
        _logger.info(
            "the workers lack this version of %s: sending it from %s", module, source
        )
        plugin = ModulePlugin(module, archive, source_digest(source))
        self._client.register_plugin(plugin, name=plugin.name)
        return True


def user_modules() -> dict[str, Path]:
    """Return the sources of the user modules that this process has imported."""
    tops = {name.partition(".")[0] for name in list(sys.modules)}
    found = {name: user_source(name) for name in sorted(tops.difference(_NEVER))}
    return {name: source for name, source in found.items() if source is not None}


def with_imports(names: Iterable[str], own: Mapping[str, Path]) -> set[str]:
    """Add the user modules that some user modules import, directly or not."""
    known: set[str] = set()
    new = set(names)
    while new:
        known |= new
        imported = {name for top in new for name in imported_by(own[top])}
        new = imported & own.keys() - known
    return known


def imported_by(source: Path) -> set[str]:
    """Return the top-level names that a module's files import, by their text."""
    found: set[str] = set()
    for path in source_files(source):
        if path.suffix == ".py":
            for one, several in _IMPORT.findall(path.read_bytes()):
                names = [one] if one else several.split(b",")
                found |= {_first_word(name) for name in names}
    return found


def _first_word(name: bytes) -> str:
    return name.strip().partition(b" ")[0].partition(b".")[0].decode(errors="replace")


def user_source(module: str) -> Path | None:
    """Return the file or folder of a user module.

    Returns
    -------
    Path or None
        None if the module is installed, built in, or cannot be found.
    """
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    origin = None if found is None else found.origin
    if origin is None or not origin.endswith(".py"):
        return None
    # The text of the path decides for most of them, in microseconds.
    if origin.startswith(_STANDARD_TEXT) or any(one in origin for one in _INSTALLED):
        return None
    path = Path(origin).resolve()
    if not path.is_file() or _is_installed(path):
        return None
    return path.parent if path.name == "__init__.py" else path


def _is_installed(path: Path) -> bool:
    in_environment = path.is_relative_to(sys.prefix) and sys.prefix != sys.base_prefix
    packages = any(name in path.parts for name in _INSTALLED)
    return packages or in_environment or path.is_relative_to(_STANDARD)


def packed(source: Path) -> bytes | None:
    """Pack a module's file or folder into a zip file; None if it is too large."""
    buffer = io.BytesIO()
    total = 0
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in source_files(source):
            total += path.stat().st_size
            if total > _MOST_BYTES:
                _logger.warning(
                    "%s is larger than 50 MiB and is not sent to the workers: install it there",
                    source,
                )
                return None
            # A fixed time: the same content is the same archive.
            entry = zipfile.ZipInfo(str(path.relative_to(source.parent)))
            archive.writestr(entry, path.read_bytes())
    return buffer.getvalue()
