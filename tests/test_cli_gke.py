"""The commands about GKE clusters, as programs of their own that reach Google by TLS."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import yaml

from dask_hpsearch.gcp import labels as ours
from tests.fakes.certificates import localhost_certificate
from tests.fakes.clock import RunningClock
from tests.fakes.cloud import Cloud, cloud
from tests.fakes.tokens import token_service
from tests.gcp.specs import SMALL, spec
from tests.gcs.held import new_bucket
from tests.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.gcs.proxy import Proxy

PATH = "projects/some-project/locations/europe-west4-a/clusters/searches"


@dataclass(frozen=True, slots=True)
class Terminal:
    """A user's terminal."""

    project: Cloud
    spec: Path
    environment: dict[str, str]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "dask_hpsearch.cli", *arguments],
            env=os.environ | {"PYTHONPATH": str(ROOT)} | self.environment,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def terminal(gcs: Proxy, tmp_path: Path) -> Iterator[Terminal]:
    """A project in which time flies, and a terminal whose user has an account there."""
    roots = tmp_path / "roots.pem"
    certificate = localhost_certificate(roots)
    with (
        token_service("token") as tokens,
        cloud(
            gcs.port, time=RunningClock(time.time()), certificate=certificate
        ) as project,
    ):
        file = tmp_path / "spec.yaml"
        places = ("container", "cloudbuild", "artifactregistry")
        content = {
            **SMALL,
            "store": f"gs://{new_bucket(gcs.port)}/runs",
            "endpoints": dict.fromkeys(places, project.address),
        }
        file.write_text(yaml.safe_dump(content))
        environment = {
            "GOOGLE_APPLICATION_CREDENTIALS": str(tokens.credentials(tmp_path)),
            "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(roots),
            "DASK_HPSEARCH_HOME": str(tmp_path / "home"),
        }
        yield Terminal(project, file, environment)


def test_clusters_are_listed_swept_and_removed(terminal: Terminal) -> None:
    """What is over its time goes; down removes the rest, and says what is left."""
    project = terminal.project
    now = time.time()  # the commands' own; the project's flies ahead
    for name, expires in (("searches", 1e6), ("old", -60.0)):
        labels = ours.for_cluster(
            spec(owner="ada"), expires_at=now + expires, creation=name
        )
        project.gke.add(PATH.replace("searches", name), resource_labels=labels)
    project.gke.add(PATH.replace("searches", "theirs"), resource_labels={})

    listed = terminal.run("ls", "--spec", str(terminal.spec))
    shown = terminal.run("status", str(terminal.spec))
    swept = terminal.run("sweep", "--spec", str(terminal.spec))
    removed = terminal.run("down", str(terminal.spec))
    again = terminal.run("down", str(terminal.spec))

    assert f"{PATH}: RUNNING, 0 nodes, of ada, until 20" in listed.stdout, listed.stderr
    assert "theirs" not in listed.stdout
    assert "clusters/searches: RUNNING" in shown.stdout, shown.stderr
    assert "clusters/old: removed" in swept.stdout, swept.stderr
    assert f"removed {PATH}" in removed.stdout, removed.stderr
    assert "your runs and data" in removed.stdout
    assert "there was nothing to remove" in again.stdout
    assert [path.rpartition("/")[2] for path in project.gke.clusters] == ["theirs"]
    for done in (listed, swept, removed, again):
        assert done.returncode == 0, done.stderr


def test_a_strangers_cluster_is_refused_in_one_line(terminal: Terminal) -> None:
    """No command touches it."""
    terminal.project.gke.add(PATH, resource_labels={"team": "theirs"})

    for command in ("up", "down"):
        done = terminal.run(command, str(terminal.spec))

        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert "has not made" in line
    assert list(terminal.project.gke.clusters) == [PATH]


def test_what_is_not_there_is_told(terminal: Terminal) -> None:
    """With the command that makes it."""
    for arguments in (("status",), ("scale", "3")):
        command, *rest = arguments
        done = terminal.run(command, str(terminal.spec), *rest)

        assert done.returncode == 1
        assert "dask-hpsearch up" in done.stderr


def test_more_workers_than_the_spec_allows_are_refused(terminal: Terminal) -> None:
    """Before anything is asked of Google."""
    done = terminal.run("scale", str(terminal.spec), "11")

    assert done.returncode == 1
    assert "dask.workers.max, 10" in done.stderr
    assert terminal.project.traffic.calls == []


def test_without_credentials_the_way_to_log_in_is_told(
    terminal: Terminal, tmp_path: Path
) -> None:
    """In one line."""
    nowhere = {"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "none.json")}
    elsewhere = Terminal(
        terminal.project, terminal.spec, terminal.environment | nowhere
    )

    for arguments in (("up", str(terminal.spec)), ("gke-token",)):
        done = elsewhere.run(*arguments)

        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert "gcloud auth application-default login" in line
