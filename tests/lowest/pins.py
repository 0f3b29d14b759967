"""Print pins of the lowest versions that ``pyproject.toml`` declares, for pip's constraints.

Of the project's own dependencies and of its extras, that is the version after ``>=``; of the
test tools, which users do not need, the version in ``constraints.txt``.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

_ROOT = Path(__file__).parents[2]
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*>=\s*([0-9][0-9.]*)")
# Their newest versions need newer ones of the project's own dependencies: pip chooses.
_FREE = ("ipykernel", "ipython")


def lowest_pins(project: dict[str, Any]) -> dict[str, str]:
    """Return the lowest version of each dependency, by its name.

    Parameters
    ----------
    project : dict
        The content of ``pyproject.toml``.

    Raises
    ------
    ValueError
        If a dependency has no lowest version, or two.
    """
    name = project["project"]["name"]
    texts = list(project["project"]["dependencies"])
    for extra in project["project"]["optional-dependencies"].values():
        texts += [text for text in extra if not text.startswith(f"{name}[")]
    return _lowest(texts)


def _lowest(texts: Iterable[str]) -> dict[str, str]:
    pins: dict[str, str] = {}
    for text in texts:
        found = _REQUIREMENT.match(text)
        if found is None:
            msg = f"{text!r} has no lowest version: add one with >="
            raise ValueError(msg)
        name, version = _normal(found[1]), found[2]
        if pins.setdefault(name, version) != version:
            msg = f"{name} has two lowest versions, {pins[name]} and {version}"
            raise ValueError(msg)
    return pins


def tool_pins(project: dict[str, Any], constraints: str) -> dict[str, str]:
    """Return the versions of the test tools that `lowest_pins` does not have.

    Parameters
    ----------
    project : dict
        The content of ``pyproject.toml``.
    constraints : str
        The content of ``constraints.txt``.
    """
    names = [
        _normal(found[1])
        for text in project["dependency-groups"]["test"]
        if (found := _REQUIREMENT.match(text))
    ]
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)", constraints, flags=re.MULTILINE))
    versions = {_normal(name): version for name, version in pinned.items()}
    unpinned = {*lowest_pins(project), *_FREE}
    return {name: versions[name] for name in names if name not in unpinned}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    declared = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    tools = tool_pins(declared, (_ROOT / "constraints.txt").read_text(encoding="utf-8"))
    pins = sorted((lowest_pins(declared) | tools).items())
    sys.stdout.writelines(f"{package}=={lowest}\n" for package, lowest in pins)
