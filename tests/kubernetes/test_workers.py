"""Workers that cannot work, and those that get what they lack."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import DaskSearchCV
from dask_hpsearch.exceptions import VersionSkewError
from tests.kubernetes.conftest import asked
from tests.kubernetes.estimators import Glutton, Sleeper
from tests.processes import ROOT, WAIT_S, script, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from dask_hpsearch.clusters.kubernetes.api import KubernetesApi
    from dask_hpsearch.clusters.kubernetes.cluster import SearchKubeCluster

X, y = np.arange(40.0).reshape(20, 2), np.arange(20) % 2
OLD = "/scratch/old"  # where a pod finds versions that its image does not have


def search(estimator: Any = None) -> GridSearchCV:
    """Make a small search."""
    own = estimator or Sleeper()
    return GridSearchCV(own, {"number": range(2)}, cv=2, error_score=-1.0)


def test_a_fit_that_uses_too_much_memory_fails_alone(
    cluster: SearchKubeCluster,
) -> None:
    """It is named as such; its pod goes on, and so do the other fits."""
    with cluster.get_client() as client:
        client.wait_for_workers(1, timeout=60)
        own = DaskSearchCV(search(Glutton()), client=client)
        with pytest.warns(FitFailedWarning) as caught:
            found = own.fit(X, y)

    scores = found.cv_results_["mean_test_score"]
    assert scores.tolist() == [1.0, -1.0]
    assert "more than its slot's share" in "".join(str(one.message) for one in caught)
    labels = f"dask.org/cluster-name={cluster.name},dask.org/component=worker"
    for pod in asked(lambda api: api.list("Pod", labels), cluster.namespace):
        [state] = pod["status"]["containerStatuses"]
        assert state["restartCount"] == 0


def test_workers_with_other_versions_do_not_join(
    cluster: SearchKubeCluster, namespace: str
) -> None:
    """They compare theirs with the scheduler's; the error has both lists and the way out."""
    name = f"{cluster.name}-old"
    metadata = "Metadata-Version: 2.1\\nName: joblib\\nVersion: 0.1\\n"
    setup = f"mkdir -p {OLD}/joblib-0.1.dist-info"
    setup += f" && printf '{metadata}' > {OLD}/joblib-0.1.dist-info/METADATA"

    async def add(api: KubernetesApi) -> None:
        group = await api.get("DaskWorkerGroup", f"{cluster.name}-default")
        assert group is not None
        worker = group["spec"]["worker"] | {"replicas": 1}
        [container] = worker["spec"]["containers"]
        # As if it began again in its container: else it empties its disk first.
        again = "export DASK_HPSEARCH_AGAIN=1"
        run = f'{setup} && {again} && PYTHONPATH={OLD}:$PYTHONPATH exec "$@"'
        container["args"] = ["sh", "-c", run, "sh", *container["args"]]
        labels = {"dask.org/cluster-name": cluster.name}
        await api.create(
            {
                "apiVersion": "kubernetes.dask.org/v1",
                "kind": "DaskWorkerGroup",
                "metadata": {"name": name, "labels": labels},
                "spec": {"cluster": cluster.name, "worker": worker},
            }
        )

    asked(add, namespace)
    try:
        with cluster.get_client() as client:
            wait_until(lambda: isinstance(cluster.why_no_workers(), VersionSkewError))
            told = str(cluster.why_no_workers(permanent=True))
            workers = client.scheduler_info(n_workers=-1)["workers"].values()
    finally:
        asked(lambda api: api.delete("DaskWorkerGroup", name), namespace)

    assert "Worker: joblib 0.1" in told
    assert "Scheduler: joblib" in told
    assert "dask-hpsearch image build" in told
    assert not [one for one in workers if str(one["name"]).startswith(name)]


ATTACH = """
import sys, warnings
warnings.filterwarnings("ignore", "Kubernetes version")
from dask_hpsearch import kube_cluster
kube_cluster(name=sys.argv[1], namespace=sys.argv[2], quiet=True)
"""


def test_a_client_with_other_versions_is_refused(
    cluster: SearchKubeCluster, namespace: str, tmp_path: Path
) -> None:
    """Before it sends anything; the error has both lists and the way out."""
    folder = tmp_path / "joblib-0.1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: joblib\nVersion: 0.1\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", ATTACH, cluster.name, namespace],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode != 0
    assert "VersionSkewError" in done.stderr
    assert "Client: joblib 0.1" in done.stderr
    assert "Image: joblib" in done.stderr
    assert "dask-hpsearch image build" in done.stderr


# What a user has in a notebook, and beside it; the module is edited between searches.
NOTEBOOK = '''
import importlib, os, sys, warnings
warnings.filterwarnings("ignore", "Kubernetes version")
from pathlib import Path
import numpy as np
from sklearn.model_selection import GridSearchCV
from dask_hpsearch import DaskSearchCV, kube_cluster

MINE = """
from sklearn.base import BaseEstimator
import my_constants
class Constant(BaseEstimator):
    def __init__(self, number=0):
        self.number = number
    def fit(self, X, y):
        return self
    def score(self, X, y):
        return my_constants.BASE + {more} - self.number
"""

def write(base, more):
    Path("my_constants.py").write_text(f"BASE = {base}\\n")
    Path("my_estimators.py").write_text(MINE.replace("{more}", more))

write("1.0", "0")
sys.path.insert(0, os.getcwd())
import my_constants, my_estimators
X, y = np.arange(40.0).reshape(20, 2), np.arange(20) % 2
name, namespace = os.environ["CLUSTER"].split()
with kube_cluster(name=name, namespace=namespace, quiet=True) as cluster:
    client = cluster.get_client()
    client.wait_for_workers(1, timeout=60)
    for base, more in (("1.0", "0"), ("10.0", "0"), ("10.0", "500"), ("1.0", "0")):
        write(base, more)
        importlib.reload(my_constants)
        importlib.reload(my_estimators)
        search = GridSearchCV(my_estimators.Constant(), {"number": [0, 1]}, cv=2)
        print(DaskSearchCV(search, client=client).fit(X, y).best_score_)
    client.close()
'''


def test_the_users_own_modules_reach_the_workers_as_they_are(
    cluster: SearchKubeCluster, namespace: str, tmp_path: Path
) -> None:
    """Without a manual step, and again when they, or what they import, were edited."""
    place = {"CLUSTER": f"{cluster.name} {namespace}", "PYTHONDONTWRITEBYTECODE": "1"}
    with script(NOTEBOOK, tmp_path, environment=place) as process:
        output, errors = process.communicate(timeout=2 * WAIT_S)

    assert not errors
    assert output.splitlines() == ["1.0", "10.0", "510.0", "1.0"]
