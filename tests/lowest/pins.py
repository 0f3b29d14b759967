"""Print the lowest versions that ``pyproject.toml`` declares, as pins.

They are an input of ``tests/lowest/constraints.txt``: see CONTRIBUTING.md, "Renewing the pins".
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

_ROOT = Path(__file__).parents[2]


def lowest_versions(pyproject: dict[str, Any]) -> dict[str, Version]:
    """Return the lowest version of each dependency, those of the extras included.

    Parameters
    ----------
    pyproject : dict
        The content of ``pyproject.toml``.

    Returns
    -------
    dict
        Versions by normalized name.

    Raises
    ------
    ValueError
        If a dependency has no lowest version, or two.
    """
    project = pyproject["project"]
    texts = list(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        texts += extra
    lowest: dict[str, Version] = {}
    for text in texts:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        if name == canonicalize_name(project["name"]):
            continue  # an extra that is made of others
        version = _lowest_version(requirement)
        if lowest.setdefault(name, version) != version:
            msg = f"{name} has two lowest versions, {lowest[name]} and {version}: keep one"
            raise ValueError(msg)
    return lowest


def _lowest_version(requirement: Requirement) -> Version:
    bounds = [part.version for part in requirement.specifier if part.operator == ">="]
    if len(bounds) != 1:
        msg = f"{str(requirement)!r} has no lowest version: add one with >="
        raise ValueError(msg)
    return Version(bounds[0])


def main() -> None:
    """Print a pin for each dependency, sorted by name."""
    text = (_ROOT / "pyproject.toml").read_text(encoding="utf-8")
    pins = sorted(lowest_versions(tomllib.loads(text)).items())
    sys.stdout.writelines(f"{name}=={version}\n" for name, version in pins)


if __name__ == "__main__":
    main()
