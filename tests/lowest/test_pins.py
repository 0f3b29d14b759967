"""The versions with which `make test-lowest` runs are those that are declared."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.lowest.pins import lowest_versions
from tests.processes import ROOT


def pyproject(*dependencies: str, **extras: list[str]) -> dict[str, Any]:
    """Return the parts of pyproject.toml that have lowest versions."""
    return {
        "project": {
            "name": "dask-hpsearch",
            "dependencies": list(dependencies),
            "optional-dependencies": extras,
        }
    }


def declared() -> dict[str, Version]:
    """Return the lowest versions of this project."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return lowest_versions(tomllib.loads(text))


def installed_by_make() -> dict[str, Version]:
    """Return the versions that `make test-lowest` installs."""
    text = (ROOT / "tests" / "lowest" / "constraints.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    names = {}
    for requirement in map(Requirement, lines):
        (pin,) = requirement.specifier
        assert pin.operator == "==", requirement
        names[requirement.name] = Version(pin.version)
    return names


def test_lowest_versions_are_those_of_dependencies_and_extras() -> None:
    """Whatever their upper bounds, and however their names are written."""
    given = pyproject(
        "scikit-learn>=1.9,<1.10",
        "Google_CRC32c >= 1.5",
        tables=["pandas>=2.2"],
        all=["dask-hpsearch[tables]"],
    )

    assert lowest_versions(given) == {
        "scikit-learn": Version("1.9"),
        "google-crc32c": Version("1.5"),
        "pandas": Version("2.2"),
    }


@pytest.mark.parametrize(
    ("dependencies", "message"),
    [
        (["numpy"], "'numpy' has no lowest version"),
        (["numpy<3"], "'numpy<3' has no lowest version"),
        (["a>=1", "A>=2"], "a has two lowest versions, 1 and 2"),
    ],
)
def test_a_dependency_without_one_lowest_version_is_refused(
    dependencies: list[str], message: str
) -> None:
    """It could not be tested."""
    with pytest.raises(ValueError, match=message):
        lowest_versions(pyproject(*dependencies))


def test_make_installs_the_lowest_versions_that_are_declared() -> None:
    """A bound that is raised or lowered needs the constraints resolved again."""
    pinned = installed_by_make()

    assert {name: pinned.get(name) for name in declared()} == declared()


def test_the_module_prints_a_pin_of_each_dependency() -> None:
    """A resolver takes its output as constraints."""
    printed = subprocess.run(
        [sys.executable, "-m", "tests.lowest.pins"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )

    lines = printed.stdout.splitlines()
    assert [Requirement(line).name for line in lines] == sorted(declared())
    assert "scikit-learn==1.9" in lines


def test_the_support_window_has_the_bounds_of_the_project() -> None:
    """The manual and pyproject.toml state the same lowest versions."""
    page = (ROOT / "docs" / "guide" / "versions.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `?([\w-]+)`? \| ([\d.]+) \|", page, flags=re.MULTILINE)
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    python = tomllib.loads(text)["project"]["requires-python"]

    stated = {name: Version(version) for name, version in rows}

    assert f">={stated.pop('Python')}" == python
    assert {"dask", "numpy", "scikit-learn"} <= stated.keys()
    assert stated.items() <= declared().items()
