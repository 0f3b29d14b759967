"""User modules in a run's folder, for a driver on a machine that does not have them.

Each is an archive that is sealed by the run's key: a driver that continues the run finds
there the modules that its pickles refer to.
"""

from __future__ import annotations

import hashlib
import io
import pickletools
import sys
import zipfile
from typing import TYPE_CHECKING

from dask_hpsearch.engine.module_sync import imported_by, packed, user_source
from dask_hpsearch.exceptions import SecretFoundError
from dask_hpsearch.security import signing
from dask_hpsearch.security.secret_scan import secret_in_file
from dask_hpsearch.slots.module_plugin import source_files

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from dask_hpsearch.journal.folder import RunFolder

_MODULES = "modules/"
# This package is in every image; the other two are pickled by value.
_LEFT_OUT = frozenset({"dask_hpsearch", "__main__", "__mp_main__"})


def store_modules(folder: RunFolder) -> list[str]:
    """Store the user modules that a run's search needs in the run's folder.

    Returns
    -------
    list of str
        Names of the objects, for `load_modules`.

    Raises
    ------
    SecretFoundError
        If a file of a module has a secret, which readers of the run would get.
    """
    names = []
    sources = needed_modules(folder.read_search_pickle())
    for source in sources.values():
        _refuse_secrets(source)
    for module, source in sources.items():
        archive = packed(source)
        if archive is None:
            continue
        digest = hashlib.sha256(archive).hexdigest()[:16]
        name = f"{_MODULES}{module}-{digest}.zip"
        key = folder.signing_key()
        folder.store.create(name, signing.seal(key, folder.run_id, name, archive))
        names.append(name)
    return names


def _refuse_secrets(source: Path) -> None:
    for path in source_files(source):
        kind = secret_in_file(path)
        if kind is not None:
            msg = (
                f"{path} has {kind}, and the run needs the module that it is a part of: "
                "all readers of the run would get it too. Move it out of the module's "
                "folder; pods get secrets by secrets: of the cluster's spec"
            )
            raise SecretFoundError(msg)


def load_modules(folder: RunFolder, names: Iterable[str], target: Path) -> None:
    """Put the user modules of a run on this process's path, before installed ones.

    Parameters
    ----------
    folder : RunFolder
    names : iterable of str
        As `store_modules` returned them.
    target : Path
        Folder to extract them to; workers get them from there.

    Raises
    ------
    UntrustedObjectError
        If one was altered.
    """
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        sealed = folder.store.read(name)
        content = signing.unseal(folder.manifest.public, folder.run_id, name, sealed)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            archive.extractall(target)
    if str(target) not in sys.path:
        sys.path.insert(0, str(target))


def needed_modules(pickled: bytes) -> dict[str, Path]:
    """Find the user modules that a pickle refers to, and those that these import.

    A pickle names modules as text, among other text. Text that happens to equal the name
    of a user module adds that module.

    Returns
    -------
    dict of str to Path
        File or folder of each, by its top-level name.
    """
    found: dict[str, Path] = {}
    waiting = _named_in(pickled)
    while waiting:
        module = waiting.pop()
        if module in found or module in _LEFT_OUT:
            continue
        source = user_source(module)
        if source is not None:
            found[module] = source
            waiting |= imported_by(source)
    return dict(sorted(found.items()))


def _named_in(pickled: bytes) -> set[str]:
    texts = (
        text for _, text, _ in pickletools.genops(pickled) if isinstance(text, str)
    )
    tops = (text.partition(" ")[0].partition(".")[0] for text in texts)
    return {top for top in tops if top.isidentifier()}
