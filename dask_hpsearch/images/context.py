"""Writes the folder from which an image is built, with this environment's versions."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import distribution, distributions
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

from dask_hpsearch._version import __version__
from dask_hpsearch.exceptions import ImageBuildError
from dask_hpsearch.images.module_files import copy_module, refuse_secrets
from dask_hpsearch.security.secret_scan import secret_in_address

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_PACKAGE = Path(__file__).parents[1]
_PROJECT = "dask-hpsearch"
# Extras that are useful in a pod; an image has those that the client has.
_USEFUL_EXTRAS = ("bayes", "dask-ml", "gcp", "kubernetes", "optuna")
# Optional packages that an image has if the client has them: dashboard, data frames.
_OPTIONAL = ("bokeh", "pandas", "pyarrow")


@dataclass(frozen=True, slots=True)
class Context:
    """A folder from which an image is built.

    Attributes
    ----------
    folder : Path
    tag : str
        Identifies the content: the package's version, and a digest of all files.
    python : str
        Version of Python, as ``3.11``.
    """

    folder: Path
    tag: str
    python: str


def lay_out(
    folder: Path,
    *,
    requirements: Sequence[str] = (),
    modules: Iterable[Path] = (),
    extras: Sequence[str] | None = None,
) -> Context:
    """Write the build context of an image into a folder.

    Parameters
    ----------
    folder : Path
        A new or empty folder.
    requirements : sequence of str
        Additional requirements.
    modules : iterable of Path
        Files and folders of Python modules to put on the image's path.
    extras : sequence of str, optional
        Extras of this package to install; default: those that this environment has.

    Raises
    ------
    ImageBuildError
        If the folder is not empty, or a module is missing; or if a file contains a secret,
        or a link leads out of its folder: then nothing is left in the folder.
    """
    if folder.exists() and any(folder.iterdir()):
        msg = f"{folder} is not empty: name a new folder for the image's files"
        raise ImageBuildError(msg)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _check_requirements(requirements)
        _add_modules(folder / "modules", modules)
        _fill(folder, requirements, extras)
    except BaseException:
        _empty(folder)
        raise
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    digest = _digest(folder, python)
    return Context(folder, f"{_PROJECT}:{__version__}-{digest[:12]}", python)


def _add_modules(folder: Path, modules: Iterable[Path]) -> None:
    folder.mkdir()
    _write(folder / "README", ["User modules."])
    for module in modules:
        copy_module(module, folder)
    refuse_secrets(folder)


def _fill(
    folder: Path, requirements: Sequence[str], extras: Sequence[str] | None
) -> None:
    versions = installed_versions()
    chosen = _extras_here(versions) if extras is None else tuple(extras)
    own = _own_requirements(chosen)
    own += [f"{name}=={versions[name]}" for name in _OPTIONAL if name in versions]
    _write(folder / "requirements.txt", [*own, *requirements])
    named = {Requirement(text).name.lower().replace("_", "-") for text in requirements}
    pins = [
        f"{name}=={version}"
        for name, version in sorted(versions.items())
        if name not in named  # the spec's requirements take precedence
    ]
    _write(folder / "constraints.txt", pins)
    shutil.copy(_dockerfile(), folder / "Dockerfile")
    copy_module(_PACKAGE, folder / "package")
    refuse_secrets(folder / "package")


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _check_requirements(requirements: Sequence[str]) -> None:
    for number, text in enumerate(requirements):
        kind = secret_in_address(text)
        if kind is not None:
            msg = (
                f"requirement {number} contains {kind}, visible in the image: remove it"
            )
            raise ImageBuildError(msg)


def installed_versions() -> dict[str, str]:
    """Return the versions of the installed packages that a registry may have."""
    found = {}
    for one in distributions():
        direct = json.loads(one.read_text("direct_url.json") or "{}")
        metadata = one.metadata  # each access parses the whole file
        name, version = metadata["Name"], metadata["Version"]
        name = name.lower().replace("_", "-")
        if "dir_info" not in direct and "+" not in version and name != "pip":
            found[name] = version
    return found


def _own_requirements(extras: Sequence[str]) -> list[str]:
    found = []
    for text in distribution(_PROJECT).requires or []:
        requirement = Requirement(text)
        applies = requirement.marker is None or any(
            requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras)
        )
        if applies and requirement.name.lower() != _PROJECT:
            requirement.marker = None
            found.append(str(requirement))
    return sorted(set(found))


def _extras_here(versions: dict[str, str]) -> tuple[str, ...]:
    core = set(_own_requirements(()))
    here = []
    for extra in _USEFUL_EXTRAS:
        names = [
            Requirement(text).name.lower().replace("_", "-")
            for text in _own_requirements((extra,))
            if text not in core
        ]
        if all(name in versions for name in names):
            here.append(extra)
    return tuple(here)


def _dockerfile() -> Path:
    """Return its path: beside this module (in a wheel), or in the repository."""
    for path in (
        Path(__file__).with_name("Dockerfile"),
        _PACKAGE.parent / "image" / "Dockerfile",
    ):
        if path.is_file():
            return path
    msg = "this installation of dask_hpsearch has no Dockerfile: install it again"
    raise ImageBuildError(msg)


def _write(path: Path, lines: Iterable[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _digest(folder: Path, python: str) -> str:
    digest = hashlib.sha256(python.encode())
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(str(path.relative_to(folder)).encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
