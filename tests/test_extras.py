"""Without an extra, whatever needs it says so in one sentence, with the command."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from dask_hpsearch.extras import PACKAGES, extra_of, install_command
from tests.processes import ROOT, script

if TYPE_CHECKING:
    from pathlib import Path

# An interpreter in which packages cannot be imported, as if they were not installed.
WITHOUT = """
import importlib.abc, sys

class Refuses(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {packages!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refuses())
"""
IN_PYTHON = """
from pathlib import Path
from dask_hpsearch import *
from dask_hpsearch.exceptions import HPSearchError

assert DaskSearchCV and SearchRun and callable(kube_cluster) and callable(gke_cluster)
here = Path(sys.argv[0]).parent

def small(**options):
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    search = GridSearchCV(LogisticRegression(), {{"C": [1.0]}}, cv=2)
    return DaskSearchCV(search, store=here / "store", **options)

def trials():
    from dask_hpsearch.runs.views import trials
    return trials([])

def to_optuna():
    from dask_hpsearch.exports.optuna_study import to_study
    to_study([], None, storage=None, study_name="a", scoring=None, refit=None)

def to_mlflow():
    from dask_hpsearch.exports.mlflow_settings import check_installed
    check_installed("to_mlflow()")

calls = {{
    "to_optuna": to_optuna,
    "to_mlflow": to_mlflow,
    "tracker": lambda: small(tracker="mlflow").fit([[0.0]] * 8, [0, 1] * 4),
    "kube_cluster": lambda: kube_cluster("spec.yaml"),
    "gke_cluster": lambda: gke_cluster("spec.yaml"),
    "trials": trials,
    "store": lambda: SearchRun.list("gs://bucket/searches"),
    "upload": lambda: upload([1], store="gs://bucket/searches"),
    "url": lambda: small().fit("gs://bucket/X.npy", "gs://bucket/y.npy"),
    "parquet": lambda: small().fit(str(here / "table.parquet"), "label"),
    "csv": lambda: small().fit(str(here / "table.csv"), "label"),
    "plots": lambda: plots.SearchHistoryDisplay.from_search(
        {{"params": [{{"a": 1}}], "mean_test_score": [0.5]}}
    ).plot(),
    "dask-ml": lambda: small(backend="dask-ml").fit([[0.0]] * 8, [0, 1] * 4),
}}
try:
    calls[{call!r}]()
except HPSearchError as error:
    print(error)
"""
CALLS = [
    ("kubernetes", "kube_cluster"),
    ("kubernetes", "gke_cluster"),
    ("tables", "trials"),
    ("tables", "parquet"),
    ("tables", "csv"),
    ("gcp", "store"),
    ("gcp", "upload"),
    ("gcp", "url"),
    ("dask-ml", "dask-ml"),
    ("plots", "plots"),
    ("optuna", "to_optuna"),
    ("mlflow", "to_mlflow"),
    ("mlflow", "tracker"),
]
COMMANDS = [
    ("kubernetes", "operator status"),
    ("kubernetes", "operator install --image IMAGE"),
    ("kubernetes", "clusters"),
    ("kubernetes", "doctor SPEC"),
    ("kubernetes", "cost SPEC"),
    ("kubernetes", "up SPEC"),
    ("kubernetes", "status SPEC"),
    ("kubernetes", "scale SPEC 2"),
    ("kubernetes", "down SPEC"),
    ("kubernetes", "image context --spec SPEC folder"),
    ("gcp", "runs gs://bucket/searches"),
    ("gcp", "show gs://bucket/searches/runs/one"),
    ("gcp", "gc gs://bucket/searches"),
    ("gcp", "doctor SPEC"),
    ("gcp", "status SPEC"),
    ("gcp", "ls --project my-project"),
]


def without(extra: str) -> str:
    """Return the lines by which a script has not the packages of an extra."""
    return WITHOUT.format(packages=PACKAGES[extra])


def write_tables(folder: Path) -> None:
    """Write what a reader would open if it could."""
    rows = "a,label\n" + "0.5,1\n0.25,0\n" * 4
    (folder / "table.csv").write_text(rows, encoding="utf-8")
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"a": np.arange(8.0), "label": [0, 1] * 4})
    table.to_parquet(folder / "table.parquet")


@pytest.mark.parametrize(("extra", "call"), CALLS)
def test_what_needs_an_extra_names_it(extra: str, call: str, tmp_path: Path) -> None:
    """``from dask_hpsearch import *`` works, and the call says how to install it."""
    write_tables(tmp_path)
    text = without(extra) + IN_PYTHON.format(call=call)

    with script(text, tmp_path) as process:
        output, errors = process.communicate(timeout=100)

    assert not errors
    assert len(output.splitlines()) == 1, output
    assert output.strip().endswith(install_command(extra)), output


@pytest.mark.parametrize(("extra", "command"), COMMANDS)
def test_a_command_that_needs_an_extra_names_it(
    extra: str, command: str, tmp_path: Path
) -> None:
    """At the end of its first line, without a traceback."""
    spec = str(ROOT / "cluster_specs" / "gke-spot.yaml")
    arguments = command.replace("SPEC", spec).split()
    text = (
        without(extra)
        + f"from dask_hpsearch.cli import main\nsys.exit(main({arguments}))"
    )

    with script(text, tmp_path) as process:
        output, errors = process.communicate(timeout=100)

    assert process.returncode == 1, errors
    assert not output
    message, *notes = errors.splitlines()
    assert message.startswith("dask-hpsearch: ")
    assert message.endswith(install_command(extra)), errors
    assert notes == ["Help: dask-hpsearch help MissingExtraError"]


@pytest.mark.parametrize("command", ["--help", "--version", "help", "runs"])
def test_what_needs_no_extra_works_without_any(command: str, tmp_path: Path) -> None:
    """With the packages that are always there."""
    packages = tuple(one for extra in PACKAGES.values() for one in extra)
    # Dask itself has these.
    refused = tuple(one for one in packages if one not in {"packaging", "yaml"})
    text = WITHOUT.format(packages=refused)
    text += f"from dask_hpsearch.cli import main\nsys.exit(main([{command!r}]))"

    # Other tests have runs in the home of all tests.
    home = {"DASK_HPSEARCH_HOME": str(tmp_path / "home")}
    with script(text, tmp_path, environment=home) as process:
        _, errors = process.communicate(timeout=100)

    assert process.returncode == 0
    if command == "runs":
        assert errors.startswith("no runs of yours in ")
        assert len(errors.splitlines()) == 1
    else:
        assert not errors


def test_every_extra_is_known_and_installable() -> None:
    """Names in commands are those of the distribution."""
    offered = set(
        importlib.metadata.metadata("dask-hpsearch").get_all("Provides-Extra")
    )

    assert set(PACKAGES) | {"all"} == offered
    assert install_command("tables") == 'pip install "dask-hpsearch[tables]"'
    assert extra_of(ModuleNotFoundError(name="google.cloud.storage")) == "gcp"
    assert extra_of(ModuleNotFoundError(name="my_own_module")) is None


SEARCH = """
from dask_hpsearch import *
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

if __name__ == "__main__":
    X, y = load_iris(return_X_y=True)
    search = GridSearchCV(LogisticRegression(max_iter=500), {"C": [0.1, 1.0]}, cv=2)
    print(DaskSearchCV(search).fit(X, y).best_params_)
    try:
        kube_cluster("spec.yaml")
    except ImportError as error:
        print(error)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_environment_without_extras_fits(tmp_path: Path) -> None:
    """A real one, with what is installed alone."""
    venv = tmp_path / "venv"
    python = str(venv / "bin" / "python")
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    install = [python, "-m", "pip", "install", "--quiet"]
    constraints = str(ROOT / "constraints.txt")
    subprocess.run([*install, "--constraint", constraints, str(ROOT)], check=True)
    path = tmp_path / "search.py"
    path.write_text(SEARCH, encoding="utf-8")

    found = subprocess.run(
        [python, str(path)], check=True, capture_output=True, text=True, cwd=tmp_path
    )

    best, missing = found.stdout.splitlines()
    assert best.startswith("{'C':")
    assert missing.endswith(install_command("kubernetes"))
