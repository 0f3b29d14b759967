"""The examples run as they are."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed import LocalCluster

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name: str, *arguments: str) -> str:
    """Run an example; return what it prints."""
    paths = [str(EXAMPLES.parent), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )
    return done.stdout


def test_a_client_of_a_cluster_that_is_there(cluster: LocalCluster) -> None:
    """By its scheduler's address."""
    shown = example("connect_client.py", cluster.scheduler_address)

    assert "1 workers" in shown
    assert "best: {" in shown


def test_a_headless_run_is_fetched_by_its_url(tmp_path: Path) -> None:
    """By another process than the one that submitted it."""
    store, output = str(tmp_path / "store"), tmp_path / "found.pkl"

    url = example(
        "headless_run.py", "submit", "--store", store, "--n-iter", "2"
    ).strip()
    shown = example("headless_run.py", "fetch", url, "--output", str(output))

    assert "finished" in shown
    assert len(pickle.loads(output.read_bytes()).cv_results_["params"]) == 2
