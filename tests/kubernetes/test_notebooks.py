"""The tutorial's notebooks on GKE: fakes of Google's services, real pods, a real bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dask_hpsearch.gcp.iam.conditions import one_folder
from tests.fakes.iam import FakePolicy
from tests.fakes.project import BUILDER, PODS, SERVICES, FakeProject, project_at
from tests.kubernetes.gke_lab import lab_project
from tests.notebooks.running import ROOT, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kubernetes.bucket import FarBucket

_POOL = PODS.partition("/namespace/")[0]
_ROLE = "roles/storage.objectUser"
SPECS = ROOT / "cluster_specs"
SETTINGS = """
import contextlib
from dask_hpsearch.gcp.clients import CloudClients
from dask_hpsearch.gcp.gke.operations import Timeouts
from tests.fakes.gke_service import SHORT, gke_client
from tests.fakes.google_cloud import clients_for

spec_file = {spec_file!r}
changes = {changes!r}
project, store = changes.pop("project"), changes.pop("store")
n_iter, regularisations, components = 4, [0.1, 1.0], [8]
workers, more_workers = 1, 2
addresses = {addresses!r}
options = {{"retry": SHORT, "timeouts": Timeouts(poll_interval=0.1)}}
stack = contextlib.ExitStack()
images = stack.enter_context(clients_for({address!r}))
clients = CloudClients(
    stack.enter_context(gke_client({address!r})), images["builds"], images["registry"]
)
"""


def any_namespace(store: str) -> FakePolicy:
    """Return the policy of a bucket whose store's folder pods of all namespaces may use."""
    name, _, folder = store.removeprefix("gs://").partition("/")
    bound = {
        "role": _ROLE,
        "members": [f"{_POOL}/*"],
        "condition": one_folder(name, folder).body,
    }
    return FakePolicy({_ROLE: [f"serviceAccount:{BUILDER}"]}, [bound])


@pytest.mark.timeout(420)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("02_gke_randomized_search", marks=pytest.mark.slow),
        pytest.param("03_gke_grid_search", marks=pytest.mark.slow),
        # This one needs an image with scikit-optimize: --extras bayes,gcp,kubernetes.
        pytest.param("04_gke_bayes_search", marks=pytest.mark.slow),
    ],
)
def test_a_notebook_goes_from_nothing_to_nothing(
    name: str,
    namespace: str,
    image: str,
    bucket: FarBucket,
    home: Path,
    tmp_path: Path,
) -> None:
    """Configure, build, create, submit, watch, scale, result, restore, logs, clean up."""
    policy = any_namespace(bucket.url)
    with (
        lab_project(bucket, namespace, tmp_path) as project,
        project_at(FakeProject(bucket_policy=policy)) as url,
    ):
        cloud = project.cloud
        cloud.gke.durations = dict.fromkeys(cloud.gke.durations, 0.0)
        settings = SETTINGS.format(
            spec_file=str(SPECS / "gke-spot.yaml"),
            changes=project.spec().model_dump(exclude_unset=True),
            addresses=dict.fromkeys(SERVICES, url),
            address=cloud.address,
        )

        shown = run(name, tmp_path, settings=settings, timeout_s=240)

        assert "no problems found" in shown
        assert "an hour for each worker" in shown
        assert "about $" in shown
        assert len(cloud.traffic.named("CreateBuild")) == 1
        (created,) = cloud.traffic.named("CreateCluster")
        assert created.cluster.name == project.spec().name
        # Other tests have Dask clusters on the same Kubernetes: then it stays.
        assert not cloud.gke.clusters or "stays: it is in use" in shown
