"""A worker's program with versions that its scheduler does not have."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import joblib
from distributed import Client

from dask_hpsearch.clusters import tls
from dask_hpsearch.clusters.kubernetes import manifests
from tests.clusters.test_tls import scheduler
from tests.processes import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def test_a_worker_with_other_versions_does_not_join(tmp_path: Path) -> None:
    """It ends with both lists, and the way out, as its last words."""
    folder = tmp_path / "certificates"
    tls.issue("own").save(folder)
    other = tmp_path / "installed"
    metadata = other / "joblib-0.1.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: joblib\nVersion: 0.1\n")
    environment = os.environ | tls.pod_environment("worker", str(folder))
    environment |= {
        "PYTHONPATH": f"{other}{os.pathsep}{ROOT}",
        manifests.IMAGE_VARIABLE: "image:1",
    }

    with scheduler(folder) as address:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "dask_hpsearch.clusters.kubernetes.worker_pod"),
                *("--slots", "1", "--memory", "1000000000", "--notice", "1"),
                *("--http-port", "0", "--scratch", str(tmp_path)),
            ],
            env=environment | {"DASK_SCHEDULER_ADDRESS": address},
            capture_output=True,
            text=True,
            check=False,
        )
        with Client(address, security=tls.client_security(folder)) as client:
            workers = client.scheduler_info()["workers"]

    assert done.returncode == manifests.EXIT_SKEW
    [said] = [line for line in done.stderr.splitlines() if line.startswith("refused: ")]
    assert "the image image:1 does not have the versions of this scheduler" in said
    assert f"Scheduler: joblib {joblib.__version__}. Worker: joblib 0.1." in said
    assert "dask-hpsearch image build" in said
    assert workers == {}
