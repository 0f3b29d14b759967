"""Wheel and sdist are complete, and an installed wheel works."""

from __future__ import annotations

import re
import site
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from typing import TYPE_CHECKING

import pytest

from tests.processes import ROOT

if TYPE_CHECKING:
    from pathlib import Path

BUILT = {"__pycache__", "_build", "auto_gallery", "generated"}
USE = """
import sys
from pathlib import Path
import dask_hpsearch
from dask_hpsearch import cli
from dask_hpsearch.images.context import _dockerfile

installed = Path(dask_hpsearch.__file__).parents[0]
assert installed.is_relative_to(sys.prefix), installed
assert (installed / "py.typed").exists()
assert _dockerfile().is_relative_to(installed)
for kind in ("local", "kubernetes", "gke"):
    assert cli.main(["init", kind, f"{kind}.yaml"]) == 0
for name in dask_hpsearch.exceptions.__all__:
    assert cli.main(["help", name]) == 0, name

from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

if __name__ == "__main__":
    X, y = load_iris(return_X_y=True)
    search = GridSearchCV(LogisticRegression(max_iter=500), {"C": [0.1, 1.0]}, cv=2)
    found = dask_hpsearch.DaskSearchCV(search, store="store").fit(X, y)
    print(sorted(found.best_params_))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build both, the wheel from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True)
    return folder


def project() -> dict[str, str]:
    """Return the project's table of pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    table: dict[str, str] = tomllib.loads(text)["project"]
    return table


@pytest.mark.timeout(300)
def test_the_wheel_has_the_package_and_its_data(built: Path) -> None:
    """Every file of it, the page of `help`, the Dockerfile, and the specs; and nothing else."""
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        described = Parser().parsestr(archive.read(metadata).decode())

    package = ROOT / "dask_hpsearch"
    expected = {
        path.relative_to(ROOT).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    added = {
        "dask_hpsearch/cli/troubleshooting.md",
        "dask_hpsearch/images/Dockerfile",
    } | {
        f"dask_hpsearch/config/specs/{name}.yaml"
        for name in ("gke-spot", "local-lab", "spot-nodes")
    }
    assert {name for name in names if ".dist-info/" not in name} == expected | added
    assert "dask_hpsearch/py.typed" in names
    assert described["Author"] == "dask-hpsearch developers"
    assert described["Description-Content-Type"] == "text/markdown"
    assert described.get_payload().startswith("# ")


@pytest.mark.timeout(300)
def test_the_sdist_can_be_built_tested_and_read(built: Path) -> None:
    """It has tests, manual, notebooks, examples, benchmarks, specs and the build's files."""
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    for name in (
        "CHANGELOG.md",
        "CITATION.cff",
        "LICENSE",
        "Makefile",
        "README.md",
        "SECURITY.md",
        "constraints.txt",
        "hatch_build.py",
        "image/Dockerfile",
        "pyproject.toml",
        "tests/conftest.py",
    ):
        assert name in names
    for folder in ("benchmarks", "cluster_specs", "docs", "examples", "notebooks"):
        expected = {
            path.relative_to(ROOT).as_posix()
            for path in (ROOT / folder).rglob("*")
            if path.is_file() and not BUILT & set(path.parts)
        }
        tracked = {name for name in expected if not name.endswith((".pyc", ".log"))}
        assert tracked - names == set()


@pytest.mark.timeout(400)
def test_an_installed_wheel_works(built: Path, tmp_path: Path) -> None:
    """In an environment of its own, with the packages that this one has."""
    (wheel,) = built.glob("*.whl")
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    python = str(venv / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, str(wheel)], check=True)
    # Behind its own packages, so that dask_hpsearch is that of the wheel.
    (own,) = (venv / "lib").glob("python*/site-packages")
    folders = [
        path for path in (*site.getsitepackages(), *sys.path) if "site-packages" in path
    ]
    (own / "others.pth").write_text(
        "".join(f"{path}\n" for path in dict.fromkeys(folders))
    )
    (tmp_path / "use.py").write_text(USE, encoding="utf-8")

    found = subprocess.run(
        [python, "use.py"], cwd=tmp_path, check=False, capture_output=True, text=True
    )
    command = subprocess.run(
        [str(venv / "bin" / "dask-hpsearch"), "--version"],
        check=True,
        capture_output=True,
        text=True,
    )

    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[-1] == "['C']"
    assert command.stdout.strip() == f"dask-hpsearch {project()['version']}"


def test_the_citation_has_the_version() -> None:
    """It is that of pyproject.toml."""
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")

    assert re.findall(r"^version: (\S+)$", text, flags=re.MULTILINE) == [
        project()["version"]
    ]
