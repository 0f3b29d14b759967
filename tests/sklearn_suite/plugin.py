"""A pytest plugin that runs every test with one joblib backend active.

``run.py`` loads it with ``-p`` into a pytest session over scikit-learn's installed
test modules, which know nothing of it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

N_SLOTS = 2


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the command line choose the backend, and a file for the outcomes."""
    group = parser.getgroup("joblib backend")
    group.addoption(
        "--joblib-backend", choices=("loky", "dask_hpsearch"), required=True
    )
    group.addoption("--outcomes", type=Path, help="write {test: outcome} here as JSON")


def pytest_configure(config: pytest.Config) -> None:
    """Note the outcomes for whoever asked, in the process that hears of them all."""
    path = config.getoption("outcomes")
    if path is not None and not hasattr(config, "workerinput"):  # of pytest-xdist
        config.pluginmanager.register(Outcomes(path))


def pytest_report_header(config: pytest.Config) -> str:
    """Say at the top which backend is under test."""
    return f"joblib backend: {config.getoption('joblib_backend')}, {N_SLOTS} processes"


@pytest.fixture(scope="session")
def joblib_settings(request: pytest.FixtureRequest) -> Iterator[Mapping[str, Any]]:
    """Settings for ``joblib.parallel_config``; for ours, one cluster for all tests."""
    if request.config.getoption("joblib_backend") == "loky":
        yield {"backend": "loky", "n_jobs": N_SLOTS}
        return
    from dask_hpsearch import local_cluster

    cluster = local_cluster(
        n_workers=1, slots_per_worker=N_SLOTS, dashboard_address=None
    )
    with cluster, cluster.get_client() as client:
        yield {"backend": "dask_hpsearch", "client": client}


@pytest.fixture(autouse=True)
def _active_backend(joblib_settings: Mapping[str, Any]) -> Iterator[None]:
    """Activate the backend around each test, in the thread that runs it."""
    with joblib.parallel_config(**joblib_settings):
        yield


class Outcomes:
    """Writes what becomes of each test to a file.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note an outcome; whichever phase does not pass decides."""
        if report.when == "call" or report.outcome != "passed":
            self._found[report.nodeid] = report.outcome

    def pytest_sessionfinish(self) -> None:
        """Write them."""
        self._path.write_text(json.dumps(self._found, indent=1))
