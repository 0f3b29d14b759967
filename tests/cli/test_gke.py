"""The commands about GKE clusters, as programs of their own that reach Google by TLS."""

from __future__ import annotations

import shlex
import time
from argparse import ArgumentParser
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from dask_hpsearch.cli.specs import add_spec, as_options, as_python, spec_of
from dask_hpsearch.gcp.gke import labels as ours
from tests.fakes.gke import TYPES
from tests.fakes.iam import FakePolicy
from tests.fakes.project import (
    NUMBER,
    OPERATIONS_ROLE,
    REAPER_ROLE,
    SERVICES,
    FakeProject,
    project_at,
)
from tests.fakes.serving import Refused
from tests.fakes.terminal import Terminal, terminal_of
from tests.fakes.tokens import token_service
from tests.gcp.specs import SMALL, spec
from tests.gcs.held import new_bucket

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.gcs.proxy import Proxy

PATH = "projects/some-project/locations/europe-west4-a/clusters/searches"


@pytest.fixture
def terminal(gcs: Proxy, tmp_path: Path) -> Iterator[Terminal]:
    """A project, and a terminal whose user has an account there."""
    content = {**SMALL, "store": f"gs://{new_bucket(gcs.port)}/runs"}
    with token_service("token") as tokens:
        environment = {
            "GOOGLE_APPLICATION_CREDENTIALS": str(tokens.credentials(tmp_path)),
            "DASK_HPSEARCH_HOME": str(tmp_path / "home"),
        }
        with terminal_of(
            content, gcs.port, tmp_path, environment=environment
        ) as terminal:
            yield terminal


def test_clusters_are_listed_swept_and_removed(terminal: Terminal) -> None:
    """What is over its time goes; down removes the rest, and says what is left."""
    project = terminal.project
    now = time.time()  # the commands' own
    for name, expires in (("searches", 1e6), ("old", -60.0)):
        labels = ours.for_cluster(
            spec(owner="ada"), expires_at=now + expires, creation=name
        )
        project.gke.add(PATH.replace("searches", name), resource_labels=labels)
    project.gke.add(PATH.replace("searches", "theirs"), resource_labels={})

    everywhere = ("--spec", str(terminal.spec), "--project", "some-project")
    listed = terminal.run("ls", *everywhere)
    shown = terminal.about_spec("status")
    swept = terminal.run("sweep", *everywhere)
    removed = terminal.about_spec("down")
    again = terminal.about_spec("down")

    assert f"{PATH}: RUNNING, 0 nodes, owner ada, expires 20" in listed.stdout, (
        listed.stderr
    )
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
        done = terminal.about_spec(command)

        assert done.returncode == 1
        line, _ = done.stderr.splitlines()
        assert "will not be modified" in line
    assert list(terminal.project.gke.clusters) == [PATH]


def test_what_is_not_there_is_told(terminal: Terminal) -> None:
    """With the command that makes it."""
    for arguments in (("status",), ("scale", "3")):
        done = terminal.about_spec(*arguments)

        assert done.returncode == 1
        assert PATH in done.stderr
        assert "dask-hpsearch up" in done.stderr


def test_up_that_fails_leaves_nothing(terminal: Terminal) -> None:
    """Price, image and cluster, in the project and the bucket that were named; undone."""
    stockout = Refused("RESOURCE_EXHAUSTED", "Quota 'N2_CPUS' exceeded.")
    terminal.project.gke.fails[TYPES.CREATE_CLUSTER] = stockout

    done = terminal.about_spec(
        "up", "--gke-name", "other", "--location", "europe-west4-b"
    )

    assert done.returncode == 1
    assert "N2_CPUS" in done.stderr
    assert "an hour for each worker" in done.stdout
    bucket = terminal.where[1].removeprefix("--store=gs://").partition("/")[0]
    (build,) = terminal.project.traffic.named("CreateBuild")
    assert build.build.source.storage_source.bucket == bucket
    (created,) = terminal.project.traffic.named("CreateCluster")
    assert created.parent == "projects/some-project/locations/europe-west4-b"
    assert created.cluster.name == "other"
    assert terminal.project.ours(bucket) == []


def test_up_sets_the_bindings_of_a_first_cluster(
    terminal: Terminal, tmp_path: Path
) -> None:
    """With the project's number, once its identity pool exists, and without a gcloud."""
    iam = FakeProject(policy=FakePolicy(), bucket_policy=FakePolicy(), pools=set())
    iam.own_roles.clear()
    terminal.project.gke.place.came = lambda made: iam.cluster_came(made.name)
    (tmp_path / "home").write_text("no folder: the step after it fails")

    with project_at(iam) as url:
        addresses = [f"--address={service}={url}" for service in SERVICES]
        done = terminal.about_spec("up", "--bind", *addresses)

    assert done.returncode == 1
    assert "setting the IAM bindings of its pods" in done.stdout, done.stderr
    assert "gcloud" not in done.stdout
    bound = [
        one
        for one in (*iam.policy.bindings, *iam.bucket_policy.bindings)
        if one["members"][0].startswith("principal")  # pods, not service accounts
    ]
    assert {one["role"] for one in bound} == {
        REAPER_ROLE,
        OPERATIONS_ROLE,
        "roles/storage.objectUser",
    }
    assert all(f"/projects/{NUMBER}/" in one["members"][0] for one in bound)


def test_a_command_is_told_as_it_was_given(terminal: Terminal) -> None:
    """What ``up`` tells to type next is about the same GKE cluster, in both languages."""
    parser = ArgumentParser()
    add_spec(parser)
    given = [str(terminal.spec), "--gke-name=other", *terminal.where]
    arguments = parser.parse_args(given)

    again = parser.parse_args(shlex.split(as_options(arguments)))

    assert spec_of(again) == spec_of(arguments)
    assert spec_of(again).path == PATH.replace("searches", "other")
    assert as_python(arguments).startswith(f"{str(terminal.spec)!r}, project='some-")


def test_no_project_is_no_list(terminal: Terminal) -> None:
    """It says which options name one."""
    done = terminal.run("ls")

    assert done.returncode == 2
    assert "--project --spec" in done.stderr


def test_more_workers_than_the_spec_allows_are_refused(terminal: Terminal) -> None:
    """Before anything is asked of Google."""
    done = terminal.about_spec("scale", "11")

    assert done.returncode == 1
    assert "at most 10 (dask.workers.max" in done.stderr
    assert terminal.project.traffic.calls == []


def test_without_credentials_the_way_to_log_in_is_told(
    terminal: Terminal, tmp_path: Path
) -> None:
    """In one line."""
    nowhere = {"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "none.json")}
    elsewhere = replace(terminal, environment=terminal.environment | nowhere)

    for arguments in (("up", str(terminal.spec)), ("gke-token",)):
        done = elsewhere.run(*arguments)

        assert done.returncode == 1
        line, _ = done.stderr.splitlines()
        assert "gcloud auth application-default login" in line
