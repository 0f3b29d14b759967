"""The whole way on GKE: from an empty project to fitted searches, and back to nothing."""

from __future__ import annotations

import logging
import re
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from skopt import BayesSearchCV

from dask_hpsearch import DaskSearchCV, SearchRun, gke_cluster, kube_cluster, upload
from dask_hpsearch.config.load import load_spec
from dask_hpsearch.deploy.context import DeployContext
from dask_hpsearch.deploy.deprovision import deprovision, is_in_use
from dask_hpsearch.deploy.inspect import inspect
from dask_hpsearch.exceptions import PodStartError
from dask_hpsearch.gcp.auth import kubeconfig_path
from dask_hpsearch.gcp.doctor.doctor import examine
from dask_hpsearch.gcp.doctor.findings import Report
from tests.fakes.expected import check_calls
from tests.fakes.fresh import REGION, fresh_project
from tests.fakes.terminal import Terminal, terminal_of
from tests.gcs.held import content_of, names_in
from tests.kubernetes.conftest import SPEC, asked, objects_of
from tests.kubernetes.gke_lab import (
    LabProject,
    Owner,
    acting,
    lab_project,
    place,
    rest_of,
    restrict,
)
from tests.oracle.structure import difference
from tests.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from distributed import Client

    from dask_hpsearch.config.gke import GKESpec
    from dask_hpsearch.deploy.cluster import SearchGKECluster
    from tests.kubernetes.bucket import FarBucket

PATH = "projects/some-project/locations/europe-west4-a/clusters/searches"
X, y = load_iris(return_X_y=True)
SPACE = {"C": np.logspace(-2, 2, 50)}


def model() -> LogisticRegression:
    """What is searched for."""
    return LogisticRegression(max_iter=500)


@pytest.fixture
def project(
    image: str, namespace: str, bucket: FarBucket, home: Path, tmp_path: Path
) -> Iterator[LabProject]:
    """A project as a first user meets it, who is not its owner, with a namespace for Dask.

    It has neither identity pool nor repository, and must not build in its region.
    """
    own = f"gke-{uuid.uuid4().hex[:8]}"
    with lab_project(bucket, namespace, tmp_path) as found:
        restrict(found.cloud, found.iam)
        try:
            yield replace(found, namespace=own)
        finally:  # on GKE it goes with its cluster
            asked(lambda api: api.delete("Namespace", own))


def bucket_of(project: LabProject) -> str:
    """Return the bucket's name."""
    return project.spec().bucket


def randomized(project: LabProject, cluster: SearchGKECluster, client: Client) -> Any:
    """Submit a search on data in the bucket, scale while it runs, and take its result."""
    references = upload(X, y, store=project.bucket.url)
    search = RandomizedSearchCV(model(), SPACE, n_iter=12, cv=3, random_state=0)
    run = DaskSearchCV(search, client=client, store=project.bucket.url).submit(
        *references
    )
    cluster.scale(2)
    client.wait_for_workers(2)
    run.wait(200)
    assert difference(search.fit(X, y), run.result()) is None
    assert run.progress().cost_usd is not None
    return run


@pytest.mark.timeout(600)
def test_the_whole_way(project: LabProject, caplog: pytest.LogCaptureFixture) -> None:
    """Image, cluster, operator, workers, data, three searches; and nothing is left."""
    spec = project.spec()
    first = project.report()
    assert first.ok, first
    assert first.waiting
    grid = GridSearchCV(model(), {"C": [0.1, 1.0, 10.0]}, cv=3)
    bayes = BayesSearchCV(model(), {"C": (0.01, 100.0)}, n_iter=6, cv=3, random_state=0)

    with (
        caplog.at_level(logging.INFO),
        gke_cluster(spec, **project.options) as cluster,
    ):
        assert cluster.provisioned.created
        assert cluster.provisioned.image.startswith(f"{spec.image_name}@sha256:")
        with cluster.get_client() as client:
            run = randomized(project, cluster, client)
            store = project.bucket.url
            wide = DaskSearchCV(grid, client=client, store=store).fit(X, y)
            deep = DaskSearchCV(bayes, client=client, store=store).fit(X, y)
            assert difference(grid.fit(X, y), wide.search_) is None
            assert len(deep.cv_results_["params"]) == 6
            assert isinstance(deep.search_, BayesSearchCV)
        usage = inspect(_context(project, spec))
        own = [one for one in usage.dask_clusters if one.namespace == project.namespace]
        assert [(one.name, one.desired) for one in own] == [(cluster.name, 2)]

    _leave_to_others(project)
    assert project.cloud.ours(bucket_of(project)) == []
    assert objects_of(project.namespace) == []
    assert not kubeconfig_path(PATH).exists()
    assert SearchRun.attach(run.url).result().best_params_  # without any cluster
    check_calls(_without_refusal(project), spec)
    assert len(project.owner.acted) == 1
    assert project.report() == Report()
    _check_secret(project, caplog.text, run)


def _without_refusal(project: LabProject) -> list[tuple[str, Any]]:
    """Return the calls as if the region had built: the second build was in "global"."""
    calls = project.cloud.traffic.calls
    builds = [one for one in calls if one[0] == "CreateBuild"]
    places = [one.parent.rpartition("/")[2] for _, one in builds]
    assert places == [REGION, "global"]
    first, second = (one.build for _, one in builds)
    assert (first.source, first.steps) == (second.source, second.steps)
    looks = [one for one in calls if one[0] == "GetBuild"]
    assert all("/locations/global/builds/" in one.name for _, one in looks)
    return [one for one in calls if one is not builds[1] and one not in looks]


def _leave_to_others(project: LabProject) -> None:
    """Take down what stays because others have Dask clusters on the same Kubernetes.

    Those of other tests are there until the last test has ended.
    """
    context = _context(project, project.spec())
    if PATH in project.cloud.gke.clusters:
        others = {one.namespace for one in inspect(context).dask_clusters}
        assert others - {project.namespace}
        deprovision(context)


def _context(project: LabProject, spec: GKESpec) -> DeployContext:
    options = project.deployment_options
    return DeployContext(spec, project.cloud.clients, options=options)


def _check_secret(project: LabProject, log: str, run: SearchRun) -> None:
    """The token for Kubernetes is in no log, and in nothing that the bucket has."""
    assert project.token not in log
    bucket, port = bucket_of(project), project.bucket.port
    for name in names_in(port, bucket):
        assert project.token.encode() not in content_of(port, bucket, name)
    assert project.token not in repr(run)


@pytest.mark.timeout(400)
def test_dask_that_does_not_start_takes_all_with_it(project: LabProject) -> None:
    """The last step fails: image and GKE cluster, which were made for it, go too."""
    dask = project.spec().dask.model_dump(exclude_unset=True)
    dask["scheduler"] = {"cpu": 90, "memory": "512Mi"}
    pools = {"system": {"machine_type": "x9-giant-96"}}  # of a size that is not known
    spec = project.spec(dask=dask, pools=pools)

    with pytest.raises(PodStartError, match="finds no node"):
        gke_cluster(spec, timeout=30, **project.options)

    assert project.cloud.ours(bucket_of(project)) == []
    assert objects_of(project.namespace) == []


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_cluster_that_is_kept_stays_for_the_next_search(project: LabProject) -> None:
    """The next one neither builds nor creates; it stays until somebody removes it."""
    spec = project.spec()
    with gke_cluster(spec, keep_gke=True, n_workers=0, **project.options) as cluster:
        kubeconfig = cluster.provisioned.kubeconfig
        assert is_in_use(_context(project, spec))
    assert PATH in project.cloud.gke.clusters
    assert kubeconfig.exists()
    project.cloud.traffic.calls.clear()

    with gke_cluster(spec, n_workers=0, **project.options) as cluster:
        assert not cluster.provisioned.created

    changes = [name for name, _ in project.cloud.traffic.calls]
    assert not {"CreateCluster", "CreateBuild", "DeleteCluster"} & set(changes)
    assert PATH in project.cloud.gke.clusters
    assert PATH in deprovision(_context(project, spec)).removed
    assert project.cloud.ours(bucket_of(project)) == []
    wait_until(lambda: not kubeconfig.exists())


def up_to_down(terminal: Terminal, dask: str) -> None:
    """Walk through all commands; the Dask cluster is there already, without workers."""
    up = terminal.shown("up", "--bind")  # the user may not: the owner acts meanwhile
    assert "not all of them could be set" in up
    assert "Run these commands" in up
    assert "searches is ready, and expires 20" in up
    assert f"dask-hpsearch down {terminal.spec} --project=some-project" in up
    assert f"Dask cluster {dask}: 0 of 0 workers" in terminal.shown("status")

    scaled = terminal.shown("scale", "2", "--cluster", dask)

    assert f"scaled {dask} to 2 workers" in scaled
    status = terminal.shown("status")
    assert re.search(rf"Dask cluster {dask}: [0-2] of 2 workers", status), status
    assert "cost so far at least $" in status
    listed = terminal.run("ls", "--spec", str(terminal.spec), *terminal.where[:1])
    assert f"{PATH}: RUNNING" in listed.stdout, listed.stderr
    assert f"removed {PATH}" in terminal.shown("down")


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_terminal_goes_from_nothing_to_nothing(
    project: LabProject, namespace: str, image: str, bucket: FarBucket, tmp_path: Path
) -> None:
    """Up, status, scale, ls and down, in a project that the spec's file does not name."""
    spec = load_spec(SPEC, image=image, namespace=namespace)
    iam = fresh_project()
    owner = Owner(iam)
    with (
        terminal_of(
            project.content, bucket.port, tmp_path, place=place(iam), iam=iam
        ) as terminal,
        kube_cluster(spec, n_workers=0) as cluster,
        rest_of(iam) as rest,
        acting(owner, lambda: examine(project.spec(), rest=rest)),
    ):
        terminal.project.builds.digest = project.cloud.builds.digest
        restrict(terminal.project, iam)

        up_to_down(terminal, cluster.name)

        assert terminal.project.ours(bucket_of(project)) == []
        assert len(owner.acted) == 1
