"""Copies modules for an image, and keeps out what nobody else may have."""

from __future__ import annotations

import os
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from dask_hpsearch.exceptions import ImageBuildError
from dask_hpsearch.security.secret_scan import secret_in_file

if TYPE_CHECKING:
    from collections.abc import Iterator

_LEFT_OUT = ("__pycache__", "*.pyc", ".*")
_KEY_STORES = frozenset({".p12", ".pfx", ".jks", ".keystore", ".kdbx"})


def copy_module(module: Path, target: Path) -> None:
    """Copy a module, without what is hidden and what Python has compiled.

    Parameters
    ----------
    module : Path
        A file or folder.
    target : Path
        The folder that it goes into.

    Raises
    ------
    ImageBuildError
        If it is not there, is hidden, holds the user's home, or has a link that leads out
        of it.
    """
    module = Path(os.path.abspath(module))  # noqa: PTH100 (resolve() would change its name)
    if _is_left_out(module.name):
        msg = (
            f"{module} is hidden or compiled, and no module for an image: leave it out"
        )
        raise ImageBuildError(msg)
    if module.is_file():
        shutil.copy(module, target / module.name)
        return
    if not module.is_dir():
        msg = f"there is no module {str(module)!r}: name a file or folder, or leave it out"
        raise ImageBuildError(msg)
    if _has_home(module):
        msg = (
            f"{module} is more than a module: your home folder is in it, with your "
            "credentials; name the folder of the module itself"
        )
        raise ImageBuildError(msg)
    for path in _files(module):
        place = target / module.name / path.relative_to(module)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)


def _has_home(folder: Path) -> bool:
    try:
        home = Path.home()
    except RuntimeError:  # a user without a name, as containers have
        return False
    return home.resolve().is_relative_to(folder.resolve())


def _files(folder: Path) -> Iterator[Path]:
    inside = folder.resolve()
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _is_left_out(name))
        for name in sorted([*folders, *names]):
            path = Path(place, name)
            if path.is_symlink():
                _check_link(path, folder, inside)
            if name in folders or _is_left_out(name):
                continue
            if not path.is_file():
                msg = f"{path} is no ordinary file: move it out of {folder}"
                raise ImageBuildError(msg)
            yield path


def _check_link(link: Path, folder: Path, inside: Path) -> None:
    """Refuse a link by which something from elsewhere would get into the image."""
    if _is_left_out(link.name):
        return
    target = link.resolve()
    if target.is_dir() or not target.is_relative_to(inside):
        where = "to a folder" if target.is_relative_to(inside) else f"out of {folder}"
        msg = (
            f"{link} is a link that leads {where}, and is not followed: put what is "
            "needed there instead, or remove the link"
        )
        raise ImageBuildError(msg)
    if any(_is_left_out(part) for part in target.relative_to(inside).parts):
        msg = f"{link} is a link to a hidden file: remove it"
        raise ImageBuildError(msg)


def _is_left_out(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in _LEFT_OUT)


def refuse_secrets(folder: Path) -> None:
    """Keep out of an image what whoever may pull it must not have.

    Parameters
    ----------
    folder : Path
        With all that goes into the image of one kind, as its name says.

    Raises
    ------
    ImageBuildError
        If a file has a secret of a known form. It says which file and what kind of secret,
        and not the secret.
    """
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        kind = secret_in_file(path)
        if path.suffix.lower() in _KEY_STORES:
            kind = "a store of keys"
        if kind is not None:
            name = path.relative_to(folder.parent)
            msg = (
                f"{name} has {kind}, and everybody who may pull the image would have it "
                "too: move it out of the module's folder. Pods get secrets from Secrets "
                "of Kubernetes, by the names in secrets: of the spec, or act as accounts "
                "of their own"
            )
            raise ImageBuildError(msg)
