"""Copies user modules for an image, without hidden files and secrets."""

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

_EXCLUDED = ("__pycache__", "*.pyc", ".*")
_KEY_STORES = frozenset({".p12", ".pfx", ".jks", ".keystore", ".kdbx"})


def copy_module(module: Path, target: Path) -> None:
    """Copy a module, without hidden and compiled files.

    Parameters
    ----------
    module : Path
        A file or folder.
    target : Path
        The destination folder.

    Raises
    ------
    ImageBuildError
        If it is missing or hidden, contains the user's home folder, or has a link that leads
        out of it.
    """
    module = Path(os.path.abspath(module))  # noqa: PTH100 (resolve() would change its name)
    if _is_excluded(module.name):
        msg = (
            f"a module of an image must be source code, but {module} is hidden or compiled: "
            "remove it from the modules"
        )
        raise ImageBuildError(msg)
    if module.is_file():
        shutil.copy(module, target / module.name)
        return
    if not module.is_dir():
        msg = f"there is no module {str(module)!r}: name a file or folder, or remove it from the modules"
        raise ImageBuildError(msg)
    if _has_home(module):
        msg = (
            f"{module} contains your home folder, with your credentials: name the folder of "
            "the module itself"
        )
        raise ImageBuildError(msg)
    for path in _files(module):
        copy = target / module.name / path.relative_to(module)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)


def _has_home(folder: Path) -> bool:
    try:
        home = Path.home()
    except RuntimeError:  # a user without a name, as containers have
        return False
    return home.resolve().is_relative_to(folder.resolve())


def _files(folder: Path) -> Iterator[Path]:
    inside = folder.resolve()
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _is_excluded(name))
        for name in sorted([*folders, *names]):
            path = Path(parent, name)
            if path.is_symlink():
                _check_link(path, folder, inside)
            if name in folders or _is_excluded(name):
                continue
            if not path.is_file():
                msg = f"{path} is not a regular file: move it out of {folder}"
                raise ImageBuildError(msg)
            yield path


def _check_link(link: Path, folder: Path, inside: Path) -> None:
    """Refuse a link that leads to a folder, or out of the module."""
    if _is_excluded(link.name):
        return
    target = link.resolve()
    if target.is_dir() or not target.is_relative_to(inside):
        where = "to a folder" if target.is_relative_to(inside) else f"out of {folder}"
        msg = (
            f"{link} is a link that leads {where}, and is not followed: replace it by the files, "
            "or remove it"
        )
        raise ImageBuildError(msg)
    if any(_is_excluded(part) for part in target.relative_to(inside).parts):
        msg = f"{link} is a link to a hidden file: remove it"
        raise ImageBuildError(msg)


def _is_excluded(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in _EXCLUDED)


def refuse_secrets(folder: Path) -> None:
    """Check that files for an image contain no secrets.

    Parameters
    ----------
    folder : Path
        Files of the image of one kind.

    Raises
    ------
    ImageBuildError
        If a file contains a secret of a known form; names the file and the kind of secret.
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
                f"{name} contains {kind}, which all users of the image could read: move it out "
                "of the module's folder. Pods get secrets from Secrets of Kubernetes "
                "(secrets: in the spec), or from their service account"
            )
            raise ImageBuildError(msg)
