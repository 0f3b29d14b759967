"""Every public name, error and environment variable is in the manual."""

from __future__ import annotations

import re
from types import ModuleType

import pytest

import dask_hpsearch
from dask_hpsearch import exceptions, plots
from tests.manual.pages import DOCS
from tests.processes import ROOT

REFERENCE = DOCS / "reference"
# Packages whose names users import; `dask_hpsearch.exceptions` is one page, with all of its names.
PUBLIC = (dask_hpsearch, plots)
ERRORS = [getattr(exceptions, name) for name in exceptions.__all__]
TROUBLESHOOTING = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")


def named() -> set[str]:
    """Names of the reference, with their modules: entries of the lists on its pages."""
    found = set()
    for page in REFERENCE.glob("*.md"):
        module = None
        for line in page.read_text(encoding="utf-8").splitlines():
            if start := re.fullmatch(r"\.\. currentmodule:: ([\w.]+)", line):
                module = start[1]
            elif start := re.fullmatch(r"\.\. automodule:: ([\w.]+)", line):
                names = getattr(__import__(start[1], fromlist=["_"]), "__all__", ())
                found |= {f"{start[1]}.{name}" for name in names}
            elif entry := re.fullmatch(r"   ([\w.]+)", line):
                found.add(f"{module}.{entry[1]}")
    return found


@pytest.mark.parametrize("package", PUBLIC, ids=lambda package: package.__name__)
def test_every_public_name_is_in_the_reference(package: ModuleType) -> None:
    """An error may be on the page of errors instead: add other names to docs/reference."""
    errors = {f"dask_hpsearch.exceptions.{name}" for name in exceptions.__all__}
    missing = [
        name
        for name in package.__all__
        if not isinstance(getattr(package, name), ModuleType)
        and name != "__version__"
        and f"{package.__name__}.{name}" not in named()
        and f"dask_hpsearch.exceptions.{name}" not in errors & named()
    ]

    assert missing == []


def test_every_public_module_is_known_here() -> None:
    """A new one needs a page of its own, and an entry in `PUBLIC`."""
    modules = {
        getattr(dask_hpsearch, name)
        for name in dask_hpsearch.__all__
        if isinstance(getattr(dask_hpsearch, name), ModuleType)
    }

    assert modules == {exceptions, plots}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_error_has_a_section_with_a_way_out(error: type[Exception]) -> None:
    """Under its name, which makes its anchor."""
    _, heading, text = TROUBLESHOOTING.partition(f"\n### {error.__name__}\n")

    assert heading
    assert len(text.partition("\n#")[0].split()) > 5


def test_every_section_is_of_an_error() -> None:
    """One that is gone needs none."""
    sections = re.findall(r"^### (\w+)$", TROUBLESHOOTING, flags=re.MULTILINE)

    assert sorted(sections) == sorted(exceptions.__all__)


def test_every_environment_variable_of_the_package_is_described() -> None:
    """Those that users set, and those that they must not set."""
    page = (REFERENCE / "environment.md").read_text(encoding="utf-8")
    pattern = r"DASK_HPSEARCH_[A-Z_]*[A-Z]"
    used = {
        name
        for path in (ROOT / "dask_hpsearch").rglob("*.py")
        for name in re.findall(pattern, path.read_text(encoding="utf-8"))
    }

    assert used == set(re.findall(pattern, page))
