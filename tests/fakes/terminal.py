"""A user's terminal: commands as programs of their own, which reach a project by TLS."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from tests.fakes.certificates import localhost_certificate
from tests.fakes.clock import RunningClock
from tests.fakes.cloud import Cloud, cloud
from tests.fakes.project import SERVICES, FakeProject, project_at
from tests.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.fakes.gke import Place

_LONG_AGO_S = 1e6  # how far the project's time is behind ours at first: it flies
# What a copy of cluster_specs/ says before anybody has edited it.
UNEDITED = {"project": "my-project", "store": "gs://my-bucket/searches"}


@dataclass(frozen=True, slots=True)
class Terminal:
    """A user's terminal.

    Attributes
    ----------
    project : Cloud
    spec : Path
        A spec whose project and store nobody has filled in.
    where : list of str
        The options that do.
    environment : dict
    addresses : list of str
        Options of ``up``: where IAM is.
    """

    project: Cloud
    spec: Path
    where: list[str]
    environment: dict[str, str]
    addresses: list[str]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "dask_hpsearch.cli", *arguments],
            env=os.environ | {"PYTHONPATH": str(ROOT)} | self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def about_spec(
        self, command: str, *arguments: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command that takes a spec, in the user's project."""
        if command == "up" and not any("--address" in one for one in arguments):
            arguments = (*arguments, *self.addresses)
        return self.run(command, str(self.spec), *arguments, *self.where)

    def shown(self, command: str, *arguments: str) -> str:
        """Return what a command that takes a spec prints; it must go well."""
        done = self.about_spec(command, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextlib.contextmanager
def terminal_of(
    content: Mapping[str, Any],
    storage_port: int,
    folder: Path,
    *,
    place: Place | None = None,
    environment: Mapping[str, str] | None = None,
    iam: FakeProject | None = None,
) -> Iterator[Terminal]:
    """Serve a project that has nothing yet, and in which time flies.

    Parameters
    ----------
    content : mapping
        Of the spec, with the project and store that commands are told of.
    storage_port : int
        Of the emulator that holds its buckets.
    folder : Path
        For the spec.
    place : Place, optional
        What new GKE clusters have as their Kubernetes API.
    environment : mapping, optional
        Of the commands, besides that of this process.
    iam : FakeProject, optional
        The project's REST services; default: nobody may read its policies.
    """
    roots = folder / "roots.pem"
    certificate = localhost_certificate(roots)
    flying = RunningClock(time.time() - _LONG_AGO_S)
    iam = iam or FakeProject(hidden={":getIamPolicy"})
    with (
        project_at(iam) as url,
        cloud(storage_port, place, time=flying, certificate=certificate) as project,
    ):
        file = folder / "spec.yaml"
        places = ("container", "cloudbuild", "artifactregistry")
        endpoints = dict.fromkeys(places, project.address)
        changed = {**content, **UNEDITED, "endpoints": endpoints}
        file.write_text(yaml.safe_dump(changed))
        where = [f"--{field}={content[field]}" for field in UNEDITED]
        trust = {"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(roots)}
        addresses = [f"--address={service}={url}" for service in SERVICES]
        variables = {**(environment or {}), **trust}
        yield Terminal(project, file, where, variables, addresses)
