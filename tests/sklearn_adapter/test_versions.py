"""The versions of scikit-learn that are accepted are those that are declared."""

from __future__ import annotations

import tomllib

import pytest
from packaging.requirements import Requirement

from dask_hpsearch.exceptions import UnsupportedVersionError
from dask_hpsearch.sklearn_adapter.searches import BEYOND, OLDEST, check_version
from tests.processes import ROOT


def test_the_range_is_that_of_pyproject() -> None:
    """An installer and the check at run time agree."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    declared = map(Requirement, tomllib.loads(text)["project"]["dependencies"])
    (specifier,) = (one.specifier for one in declared if one.name == "scikit-learn")

    oldest, beyond = (".".join(map(str, one)) for one in (OLDEST, BEYOND))
    assert set(map(str, specifier)) == {f">={oldest}", f"<{beyond}"}


@pytest.mark.parametrize("version", ["1.8.0", "1.10.0"])
def test_another_version_is_refused(version: str) -> None:
    """The error names the range."""
    with pytest.raises(UnsupportedVersionError, match=r">=1\.9,<1\.10"):
        check_version(version)


def test_the_installed_version_is_accepted() -> None:
    """With which the tests run."""
    check_version()
