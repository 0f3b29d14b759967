from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from sklearn.datasets import load_iris

from tests.oracle.comparison import Oracle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client


@pytest.fixture(scope="session")
def reader() -> Iterator[subprocess.Popen[str]]:
    """One interpreter without Dask, which loads every fitted search."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "tests.oracle.reader"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        yield process
        process.communicate()


@pytest.fixture
def oracle(
    client: Client,
    reader: subprocess.Popen[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Oracle:
    """Compare fits on the session's client with plain ones."""
    return Oracle(client, reader, tmp_path_factory.mktemp("searches"))


@pytest.fixture(scope="session")
def iris() -> tuple[np.ndarray, np.ndarray]:
    """120 flowers, in an order that mixes the classes."""
    X, y = load_iris(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))[:120]
    return X[order], y[order]
