from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dask_hpsearch import local_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import LocalCluster

os.environ["KERAS_BACKEND"] = "torch"  # here, and in all that is started

HERE = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    """Let the libraries warn, and raise and catch for reasons of their own, as users do."""
    config.addinivalue_line("filterwarnings", "ignore")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give time to imports: some libraries compile much of themselves."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """One worker with two slots, in a folder that catboost may write to."""
    with (
        contextlib.chdir(tmp_path_factory.mktemp("workers")),
        local_cluster(1, 2, dashboard_address=None) as cluster,
    ):
        yield cluster


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fit plainly, and start drivers, in such a folder too."""
    monkeypatch.chdir(tmp_path)
