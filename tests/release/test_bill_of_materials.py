"""`make sbom` refuses a bill of materials that is not that of a pinned installation."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.processes import ROOT
from tests.release.bill_of_materials import faults, pinned_versions

if TYPE_CHECKING:
    from pathlib import Path

PROJECT = {
    "name": "dask-hpsearch",
    "version": "0.1.0",
    "dependencies": ["numpy>=1.26", "scikit-learn>=1.9,<1.10"],
}
PINS = {"numpy": "2.4.6", "scikit-learn": "1.9.1", "scipy": "1.17.1"}


def bill(version: str = "0.1.0", **components: str) -> dict[str, Any]:
    """Return the parts of a CycloneDX file that are compared."""
    return {
        "metadata": {"component": {"name": "dask-hpsearch", "version": version}},
        "components": [
            {"name": name, "version": found} for name, found in components.items()
        ],
    }


def test_dependencies_and_what_they_need_are_accepted() -> None:
    """Names are compared as package registries compare them."""
    given = bill(NumPy="2.4.6", scikit_learn="1.9.1", scipy="1.17.1")

    assert faults(given, project=PROJECT, pins=PINS) == []


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (
            bill("0.2.0", numpy="2.4.6", scikit_learn="1.9.1"),
            "its main component has the version '0.2.0', not '0.1.0'",
        ),
        (
            bill(numpy="2.4.6"),
            "scikit-learn is missing, a dependency of the project",
        ),
        (
            bill(numpy="2.4.5", scikit_learn="1.9.1"),
            "it has numpy 2.4.5, and constraints.txt has 2.4.6",
        ),
        (
            bill(numpy="2.4.6", scikit_learn="1.9.1", left_over="1.0"),
            "it has left-over 1.0, and constraints.txt has no version",
        ),
    ],
)
def test_another_installation_is_refused(given: dict[str, Any], fault: str) -> None:
    """Of another version, incomplete, not pinned, or with packages besides."""
    assert faults(given, project=PROJECT, pins=PINS) == [fault]


def test_pins_are_read_with_markers_and_comments() -> None:
    """As constraints.txt has them."""
    text = '# Pins.\nPyYAML==6.0.4  # specs\npexpect==4.9.0; sys_platform != "win32"\n'

    assert pinned_versions(text) == {"pyyaml": "6.0.4", "pexpect": "4.9.0"}


def test_the_command_fails_with_every_fault(tmp_path: Path) -> None:
    """So does `make sbom`, which calls it."""
    path = tmp_path / "sbom.cdx.json"
    path.write_text(json.dumps(bill(pip="0.1")), encoding="utf-8")

    checked = subprocess.run(
        [sys.executable, "-m", "tests.release.bill_of_materials", str(path)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )

    assert checked.returncode == 1
    assert "numpy is missing" in checked.stderr
    assert "it has pip 0.1" in checked.stderr
