from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.nodes import can_isolate, isolated
from tests.processes import ROOT

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = """
import os, sys
from pathlib import Path

import numpy as np
from distributed import Client
from sklearn.model_selection import GridSearchCV
from sklearn.tree import DecisionTreeClassifier

from dask_hpsearch import DaskSearchCV, local_cluster

def refused():
    try:
        Path("/tmp/anything").touch()
    except OSError:
        return True

def files():
    return sorted(one.name for one in Path(os.environ["DASK_HPSEARCH_CACHE"]).iterdir())

if __name__ == "__main__":
    assert refused()
    X, y = np.load(sys.argv[1]), np.load(sys.argv[2])
    search = GridSearchCV(DecisionTreeClassifier(random_state=0), {"max_depth": [1, 2]})
    with local_cluster(1, 2, dashboard_address=None) as cluster:
        with Client(cluster, set_as_default=False) as client:
            assert all(client.run(refused).values())
            store = sys.argv[3]
            found = DaskSearchCV(search, client=client, store=store).fit(*sys.argv[1:3])
            assert found.best_score_ == search.fit(X, y).best_score_
            found = DaskSearchCV(search, client=client, store=store).fit(X, y)
            assert found.best_score_ == search.best_score_
    print(len(files()))
"""


def test_a_node_needs_one_folder_that_can_be_written(
    gcs_bucket: str, tmp_path: Path
) -> None:
    """All else may be read-only, as in a container: only memory is shared there."""
    if not can_isolate():
        pytest.skip("a file system that is read-only needs root and unshare")
    rng = np.random.default_rng(0)
    X = rng.random((60, 3))
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", (X[:, 0] > 0.5).astype(int))
    (tmp_path / "script.py").write_text(SCRIPT)
    writable = tmp_path / "writable"
    writable.mkdir()
    own = f"mount --bind {writable} {writable}"
    rest = (
        "for one in / /tmp /root /home /var; do if mountpoint -q $one; "
        "then mount -o remount,bind,ro $one || exit 9; fi; done"
    )
    environment = {
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "DASK_HPSEARCH_CACHE": str(writable / "cache"),
        "DASK_HPSEARCH_HOME": str(writable / "home"),
        "DASK_TEMPORARY_DIRECTORY": str(writable),
        "TMPDIR": str(writable),
        "HOME": str(writable),
    }
    command = [
        *isolated([], own, rest),
        sys.executable,
        "-W",
        "error",
        str(tmp_path / "script.py"),
        str(tmp_path / "X.npy"),
        str(tmp_path / "y.npy"),
        f"gs://{gcs_bucket}/read-only",
    ]
    done = subprocess.run(
        command,
        env=os.environ | environment,
        cwd=writable,
        check=False,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0
