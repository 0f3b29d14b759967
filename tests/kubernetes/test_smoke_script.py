"""The script that proves a project, all of its steps: fakes of Google, real pods."""

from __future__ import annotations

import contextlib
import json
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.cloud.container_v1 import ClusterManagerClient
from google.cloud.container_v1.services.cluster_manager.transports import (
    ClusterManagerGrpcTransport,
)

from dask_hpsearch import gke_cluster
from dask_hpsearch.config.load import load_gke_spec
from dask_hpsearch.gcp.clients import CloudClients
from dask_hpsearch.gcp.doctor.doctor import examine
from tests.fakes.fresh import fresh_project
from tests.fakes.google_cloud import clients_of
from tests.fakes.terminal import Terminal, terminal_of
from tests.kubernetes.conftest import asked
from tests.kubernetes.gke_lab import (
    LabProject,
    Owner,
    acting,
    lab_project,
    place,
    rest_of,
    restrict,
)
from tests.smoke import load_script

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dask_hpsearch.clusters.kubernetes.api import KubernetesApi
    from tests.kubernetes.bucket import FarBucket

_TYPE = "node.kubernetes.io/instance-type"


@pytest.fixture(scope="module")
def script() -> Iterator[Any]:
    """The script, as a module."""
    with load_script() as module:
        yield module


@dataclass(frozen=True, slots=True)
class Smoke:
    """A project in which the script runs.

    Attributes
    ----------
    terminal : Terminal
    spec : dict
        The script's, with pods that are small enough for the Kubernetes of the tests.
    owner : Owner
    clients : CloudClients
        For the step that is no command.
    """

    terminal: Terminal
    spec: dict[str, Any]
    owner: Owner
    clients: CloudClients

    def command(self, *arguments: str) -> tuple[int, str]:
        """Run a command."""
        asks_iam = arguments[0] in ("doctor", "up")
        more = self.terminal.addresses if asks_iam else []
        done = self.terminal.run(*arguments, *more)
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def smoke(
    script: Any,
    image: str,
    namespace: str,
    bucket: FarBucket,
    home: Path,
    tmp_path: Path,
) -> Iterator[Smoke]:
    """A project as a first user meets it, who is not its owner."""
    own = f"smoke-{uuid.uuid4().hex[:8]}"
    iam = fresh_project()
    owner = Owner(iam)
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(lab_project(bucket, namespace, tmp_path))
        stack.callback(asked, lambda api: api.delete("Namespace", own))
        spec = spec_of(script, replace(lab, namespace=own))
        at = place(iam)
        terminal = stack.enter_context(
            terminal_of(spec, bucket.port, tmp_path, place=at, iam=iam)
        )
        terminal.project.builds.digest = lab.cloud.builds.digest
        restrict(terminal.project, iam)
        address = terminal.project.address
        endpoints = dict.fromkeys(
            ("container", "cloudbuild", "artifactregistry"), address
        )
        terminal.spec.write_text(json.dumps({**spec, "endpoints": endpoints}))
        rest = stack.enter_context(rest_of(iam))
        roots = (tmp_path / "roots.pem").read_bytes()
        security = grpc.ssl_channel_credentials(roots)
        channel = stack.enter_context(grpc.secure_channel(address, security))
        transport = ClusterManagerGrpcTransport(channel=channel)
        images = clients_of(channel)
        clients = CloudClients(
            ClusterManagerClient(transport=transport),
            images["builds"],
            images["registry"],
            rest,
        )
        loaded = load_gke_spec(spec)
        stack.enter_context(acting(owner, lambda: examine(loaded, rest=rest)))
        stack.enter_context(nodes_of_type("e2-standard-2"))
        yield Smoke(terminal, spec, owner, clients)


def spec_of(script: Any, lab: LabProject) -> dict[str, Any]:
    """Return the script's spec for the Kubernetes of the tests."""
    content = lab.content
    spec: dict[str, Any] = script.spec_for(
        content["project"], content["store"], content["location"]
    )
    fields = ("owner", "reaper", "control_plane", "dask")
    return spec | {name: content[name] for name in fields}


@contextlib.contextmanager
def nodes_of_type(machine_type: str) -> Iterator[None]:
    """Let the nodes be of a machine type that has as many CPUs."""

    async def label(api: KubernetesApi, value: str | None) -> None:
        for node in await api.list("Node"):
            change = {"metadata": {"labels": {_TYPE: value}}}
            await api.patch("Node", node["metadata"]["name"], change)

    asked(lambda api: label(api, machine_type))
    try:
        yield
    finally:
        asked(lambda api: label(api, None))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_script_proves_a_fresh_project(script: Any, smoke: Smoke) -> None:
    """Ten steps; the owner runs the commands that the user may not."""

    def start_dask(trial: Any) -> str:
        trial.cluster = gke_cluster(
            trial.file,
            n_workers=1,
            keep_gke=True,
            timeout=script.WAIT_S,
            clients=smoke.clients,
        )
        trial.client = trial.cluster.get_client()
        trial.client.wait_for_workers(1, timeout=script.WAIT_S)
        return f"{len(trial.client.scheduler_info()['workers'])} worker"

    steps = [
        replace(one, function=start_dask) if one.name == "Dask" else one
        for one in script.STEPS
    ]
    trial = script.Trial(smoke.spec, smoke.terminal.spec, smoke.command)

    outcomes = script.run_steps(steps, trial, say=print)  # shown if it fails

    seen = {one.step.name: one.seen for one in outcomes}
    assert [one.state for one in outcomes] == ["ok"] * 10, seen
    assert "bindings wait" in seen["doctor"]
    assert "does not build in europe-west4" in seen["image"]
    assert "e2-standard-2: cpu 2" in seen["nodes"]
    assert "finished" in seen["submit"]
    assert len(smoke.owner.acted) == 1
    assert smoke.terminal.project.gke.clusters == {}
