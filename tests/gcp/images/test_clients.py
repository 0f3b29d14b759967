"""Whose quota the requests for an image count for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.fakes.project import FakeProject, project_at
from tests.fakes.terminal import terminal_of
from tests.fakes.tokens import users_login
from tests.gcp.specs import SMALL
from tests.gcs.held import new_bucket

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.gcs.proxy import Proxy


def test_a_users_builds_count_for_the_project(
    gcs: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a quota project, Google answers for the project of gcloud, or an old one."""
    monkeypatch.delenv("GOOGLE_CLOUD_QUOTA_PROJECT", raising=False)
    content = {**SMALL, "store": f"gs://{new_bucket(gcs.port)}/runs"}
    with (
        project_at(FakeProject()) as url,
        terminal_of(content, gcs.port, tmp_path) as terminal,
    ):
        login = {
            "GOOGLE_APPLICATION_CREDENTIALS": str(users_login(tmp_path, url)),
            "DASK_HPSEARCH_HOME": str(tmp_path / "home"),
        }
        terminal.environment.update(login)
        services = ("container", "cloudbuild", "artifactregistry")
        endpoints = dict.fromkeys(services, terminal.project.address)
        terminal.spec.write_text(json.dumps({**content, "endpoints": endpoints}))

        done = terminal.run("image", "build", "--cloud", "--spec", str(terminal.spec))

    assert done.returncode == 0, done.stderr
    traffic = terminal.project.traffic
    assert traffic.named("CreateBuild")
    assert traffic.named("CreateRepository")
    assert set(traffic.quota_projects) == {"some-project"}
