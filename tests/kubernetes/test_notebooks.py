"""The tutorial's notebooks on GKE: fakes of Google's services, real pods, a real bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kubernetes.google_here import for_here, google_here
from tests.notebooks.running import ROOT, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kubernetes.bucket import FarBucket

SPECS = ROOT / "cluster_specs"
SETTINGS = """
import contextlib
from dask_hpsearch.gcp.clients import CloudClients
from dask_hpsearch.gcp.waiting import Limits
from tests.fakes.gke_service import SHORT, gke_client
from tests.fakes.google_cloud import clients_for

spec_file = {spec_file!r}
project = "some-project"
store = {store!r}
changes = {changes!r}
n_iter, regularisations, components = 4, [0.1, 1.0], [8]
workers, more_workers = 1, 2
addresses = {addresses!r}
options = {{"patience": SHORT, "limits": Limits(poll_s=0.1)}}
stack = contextlib.ExitStack()
images = stack.enter_context(clients_for({address!r}))
clients = CloudClients(
    stack.enter_context(gke_client({address!r})), images["builds"], images["registry"]
)
"""


@pytest.mark.timeout(420)
@pytest.mark.parametrize(
    "name",
    [
        "02_gke_randomized_search",
        pytest.param("03_gke_grid_search", marks=pytest.mark.slow),
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
    """Configure, create, upload, submit, watch, scale, result, restore, logs, clean up."""
    with google_here(namespace, bucket.port, tmp_path) as here:
        settings = SETTINGS.format(
            spec_file=str(SPECS / "gke-spot.yaml"),
            store=bucket.url,
            changes=for_here(namespace, image, bucket.environment),
            addresses=here.addresses,
            address=here.cloud.address,
        )

        shown = run(name, tmp_path, settings=settings, timeout_s=240)

        assert "an hour for each worker" in shown
        assert "about $" in shown
        # Other tests have Dask clusters on the same Kubernetes: then it stays.
        left = here.cloud.gke.clusters
        assert not left or "Dask clusters are on it" in shown
