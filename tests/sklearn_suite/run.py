"""Run scikit-learn's own tests of its searches with a joblib backend active.

::

    python tests/sklearn_suite/run.py                  # ours, without deselected.toml
    python tests/sklearn_suite/run.py --backend loky   # the baseline, whole
    python tests/sklearn_suite/run.py --compare        # both whole, and what differs

Further arguments go to pytest (``-k routing``, ``-x``, ``-n 2``). The exit status is pytest's;
for ``--compare`` it is 1 if a test passes under loky and not under ours.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import sklearn

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

HERE = Path(__file__).resolve().parent
SITE = Path(sklearn.__file__).resolve().parents[1]
FOLDER = "sklearn/model_selection/tests"
MODULES = ("test_search.py", "test_successive_halving.py", "test_validation.py")
# Several processes share the cores: more threads than those spin while others compute.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

Outcomes = dict[str, str]


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--backend", choices=("loky", "dask_hpsearch"), default="dask_hpsearch"
    )
    how.add_argument("--compare", action="store_true")
    options, pytest_args = parser.parse_known_args(argv)
    if options.compare:
        return compare(pytest_args)
    if options.backend == "loky":
        return measure_baseline(pytest_args)
    status, _ = run_pytest("dask_hpsearch", pytest_args, deselect=deselected())
    return status


def measure_baseline(pytest_args: Sequence[str]) -> int:
    """Run all under loky and hold ``deselected.toml`` to what fails there."""
    status, loky = run_pytest("loky", pytest_args)
    listed = set(deselected())
    failing = {test for test, outcome in loky.items() if outcome == "failed"}
    show("fail under loky and are not deselected", outside(failing, listed))
    innocent = [test for test in listed if set(cases(test, loky)) - failing]
    show("are deselected though they pass under loky", innocent)
    return 1 if innocent else status


def compare(pytest_args: Sequence[str]) -> int:
    """Run all under both backends and show where they differ."""
    _, loky = run_pytest("loky", pytest_args)
    _, ours = run_pytest("dask_hpsearch", pytest_args)
    passing = {test for test, outcome in loky.items() if outcome == "passed"}
    worse = [test for test in passing if ours.get(test) != "passed"]
    better = [
        test
        for test, outcome in ours.items()
        if outcome == "passed" and loky.get(test) == "failed"
    ]
    show("fail under loky and pass under dask_hpsearch", better)
    show("pass under loky and not under dask_hpsearch", worse)
    return 1 if worse or not passing else 0


def run_pytest(
    backend: str, pytest_args: Sequence[str], *, deselect: Iterable[str] = ()
) -> tuple[int, Outcomes]:
    """Run scikit-learn's modules in an interpreter of their own.

    No settings of this project or of scikit-learn's repository apply there, and
    nothing is written beside the installed modules.
    """
    with tempfile.TemporaryDirectory() as folder:
        outcomes = Path(folder, "outcomes.json")
        command = [
            *(sys.executable, "-m", "pytest", "-q", "-ra", "--color=no"),
            *("-c", os.devnull, "--rootdir", SITE, "--confcutdir", SITE / "sklearn"),
            *("-p", "no:cacheprovider", "-p", "sklearn_suite.plugin"),
            *("--disable-warnings", "--tb=short", "--timeout=300"),
            *("--joblib-backend", backend, "--outcomes", outcomes),
            *(f"--deselect={test}" for test in deselect),
            *pytest_args,
            *(f"{FOLDER}/{module}" for module in MODULES),
        ]
        environment = os.environ | ONE_THREAD
        environment["PYTHONPATH"] = os.pathsep.join(python_path())
        status = subprocess.run(command, cwd=SITE, env=environment, check=False)
        found = json.loads(outcomes.read_text()) if outcomes.exists() else {}
    return status.returncode, found


def python_path() -> list[str]:
    """Put the plugin's folder and the project's before what is set already."""
    already = os.environ.get("PYTHONPATH")
    return [str(HERE.parent), str(HERE.parents[1]), *([already] if already else [])]


def deselected() -> list[str]:
    """Read the tests to leave out, as pytest names them."""
    with (HERE / "deselected.toml").open("rb") as file:
        groups = tomllib.load(file)["group"]
    return [f"{FOLDER}/{test}" for group in groups for test in group["tests"]]


def cases(test: str, outcomes: Mapping[str, str]) -> list[str]:
    """Find the cases that a listed name stands for."""
    return [case for case in outcomes if case == test or case.startswith(f"{test}[")]


def outside(tests: Iterable[str], listed: set[str]) -> list[str]:
    """Keep the tests that no listed name stands for."""
    return [test for test in tests if not {test, test.partition("[")[0]} & listed]


def show(what: str, tests: Sequence[str]) -> None:
    """Print one finding with its tests."""
    sys.stdout.write(f"\n{len(tests)} tests {what}\n")
    sys.stdout.writelines(f"    {test}\n" for test in sorted(tests))


if __name__ == "__main__":
    sys.exit(main())
