"""Check the bill of materials that `make sbom` has written.

The generator validates the file by CycloneDX' schema; this module compares its content with
``pyproject.toml`` and ``constraints.txt``.
"""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_ROOT = Path(__file__).parents[2]


def faults(
    bill: dict[str, Any], *, project: dict[str, Any], pins: dict[str, str]
) -> list[str]:
    """Return how a bill of materials differs from the project; empty if it does not.

    Parameters
    ----------
    bill : dict
        The content of a CycloneDX file.
    project : dict
        The ``project`` table of ``pyproject.toml``.
    pins : dict
        Versions of ``constraints.txt`` by normalized name.
    """
    root = bill["metadata"]["component"]
    found = [
        f"its main component has the {key} {root.get(key)!r}, not {project[key]!r}"
        for key in ("name", "version")
        if root.get(key) != project[key]
    ]
    versions = {
        canonicalize_name(component["name"]): component["version"]
        for component in bill["components"]
    }
    for text in project["dependencies"]:
        name = canonicalize_name(Requirement(text).name)
        if name not in versions:
            found.append(f"{name} is missing, a dependency of the project")
    for name, version in versions.items():
        if pins.get(name) != version:
            pin = pins.get(name, "no version")
            found.append(f"it has {name} {version}, and constraints.txt has {pin}")
    return found


def pinned_versions(constraints: str) -> dict[str, str]:
    """Return the pins of constraints by normalized name."""
    pins = {}
    for line in constraints.splitlines():
        text = line.partition("#")[0].strip()
        if text:
            requirement = Requirement(text)
            (pin,) = requirement.specifier
            pins[canonicalize_name(requirement.name)] = pin.version
    return pins


def main(path: str) -> None:
    """Check the file at `path`, and exit with its faults if it has any."""
    pyproject = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    constraints = (_ROOT / "constraints.txt").read_text(encoding="utf-8")
    bill = json.loads(Path(path).read_text(encoding="utf-8"))
    found = faults(
        bill, project=pyproject["project"], pins=pinned_versions(constraints)
    )
    if found:
        sys.exit(f"{path} is wrong:\n" + "\n".join(found))
    root = bill["metadata"]["component"]
    sys.stdout.write(
        f"{path}: {root['name']} {root['version']} and {len(bill['components'])} packages\n"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
