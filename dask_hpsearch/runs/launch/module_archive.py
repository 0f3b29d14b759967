"""Modules of the user's own, for a driver on a machine that has not got them.

They are in the run's folder, sealed by its key: whoever goes on with the run finds there what
its pickles refer to.
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
from dask_hpsearch.journal.folder import SEARCH
from dask_hpsearch.security import signing
from dask_hpsearch.security.secret_scan import secret_in_file
from dask_hpsearch.slots.module_plugin import source_files

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from dask_hpsearch.journal.folder import RunFolder

_MODULES = "modules/"
# Ours is in every image; these two are pickled by value.
_LEFT_OUT = frozenset({"dask_hpsearch", "__main__", "__mp_main__"})


def keep_modules(folder: RunFolder) -> list[str]:
    """Put the modules that a run's search needs into its folder.

    Returns
    -------
    list of str
        Names of the objects, for `take_modules`.

    Raises
    ------
    SecretFoundError
        If a file of a module has a secret: whoever may read the run would have it.
    """
    sealed = folder.store.read(SEARCH)
    pickled = signing.unseal(folder.manifest.public, folder.run_id, SEARCH, sealed)
    names = []
    sources = needed(pickled)
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
                "everybody who may read the run would have it too. Move it out of the "
                "module's folder; pods get secrets by secrets: of the cluster's spec"
            )
            raise SecretFoundError(msg)


def take_modules(folder: RunFolder, names: Iterable[str], place: Path) -> None:
    """Put modules of a run on this process's path, before those that are installed.

    Parameters
    ----------
    folder : RunFolder
    names : iterable of str
        As `keep_modules` returned them.
    place : Path
        A folder that they are written to; they are sent on to workers from there.

    Raises
    ------
    UntrustedObjectError
        If one was altered.
    """
    place.mkdir(parents=True, exist_ok=True)
    for name in names:
        sealed = folder.store.read(name)
        content = signing.unseal(folder.manifest.public, folder.run_id, name, sealed)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            archive.extractall(place)
    if str(place) not in sys.path:
        sys.path.insert(0, str(place))


def needed(pickled: bytes) -> dict[str, Path]:
    """Find the user's own modules that a pickle refers to, and all that these import.

    A pickle names modules as text, among other texts; those that happen to be the name of
    a module of the user's own go along.

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
