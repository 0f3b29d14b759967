"""The pins with which `make test-lowest` installs."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from tests.lowest.pins import lowest_pins, tool_pins
from tests.processes import ROOT


def project(*dependencies: str, **extras: list[str]) -> dict[str, Any]:
    """Return the parts of pyproject.toml that pins are made of."""
    table = {
        "name": "dask-hpsearch",
        "dependencies": list(dependencies),
        "optional-dependencies": extras,
    }
    groups = {"test": ["pytest>=9.0", "pandas>=2.2"]}
    return {"project": table, "dependency-groups": groups}


def test_pins_are_the_lowest_versions() -> None:
    """Of dependencies and extras, whatever their upper bounds; tools keep theirs."""
    declared = project(
        "scikit-learn>=1.6,<1.10",
        "google_crc32c >= 1.5",
        tables=["pandas>=2.2"],
        all=["dask-hpsearch[tables]"],
    )

    assert lowest_pins(declared) == {
        "scikit-learn": "1.6",
        "google-crc32c": "1.5",
        "pandas": "2.2",
    }
    assert tool_pins(declared, "pandas==3.1.1\npytest==9.2.0\n") == {"pytest": "9.2.0"}


@pytest.mark.parametrize(
    ("dependencies", "said"),
    [(["numpy"], "'numpy' has no lowest"), (["a>=1", "A>=2"], "two lowest versions")],
)
def test_a_dependency_without_one_lowest_version_is_refused(
    dependencies: list[str], said: str
) -> None:
    """It could not be tested."""
    with pytest.raises(ValueError, match=said):
        lowest_pins(project(*dependencies))


def test_every_dependency_has_a_lowest_version() -> None:
    """And every tool a pin."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")

    assert len(lowest_pins(declared)) > 25
    assert "pytest" in tool_pins(declared, constraints)
