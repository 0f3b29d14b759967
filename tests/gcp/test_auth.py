"""Credentials without gcloud: a token on demand, and nowhere else."""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import yaml

from dask_hpsearch.exceptions import CloudRightsError
from dask_hpsearch.gcp.auth import (
    credentials,
    exec_credential,
    kubeconfig,
    kubeconfig_path,
    write_kubeconfig,
)
from tests.fakes.tokens import TokenService, token_service
from tests.gcp.specs import spec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dask_hpsearch.gcp.gke.state import GKECluster
    from tests.fakes.gke_service import GKEService

TOKEN = "ya29.a-secret-token"  # noqa: S105 (made up)


@pytest.fixture
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TokenService]:
    """Application Default Credentials for which a token is to be had."""
    with token_service(TOKEN) as service:
        file = service.credentials(tmp_path)
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
        monkeypatch.delenv("KUBERNETES_EXEC_INFO", raising=False)
        yield service


@pytest.fixture
def cluster(
    gke: GKEService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> GKECluster:
    """A cluster that is there, for a user with a home of his own."""
    monkeypatch.setenv("DASK_HPSEARCH_HOME", str(tmp_path / "home"))
    return gke.clusters().ensure(spec()).cluster


def test_a_token_is_printed_for_kubernetes(tokens: TokenService) -> None:
    """What an exec plug-in answers: a token, and when it ends."""
    answer = json.loads(exec_credential())

    assert answer["kind"] == "ExecCredential"
    assert answer["apiVersion"] == "client.authentication.k8s.io/v1beta1"
    assert answer["status"]["token"] == TOKEN
    ends = dt.datetime.fromisoformat(answer["status"]["expirationTimestamp"])
    assert ends > dt.datetime.now(dt.UTC)
    assert tokens.asked == 1


def test_tokens_for_kubernetes_show_whose_they_are(tokens: TokenService) -> None:
    """The scopes of Google's own plug-in: GKE names a user by the e-mail address."""
    exec_credential()

    (scope,) = tokens.scopes
    assert set(scope.split()) == {
        "https://www.googleapis.com/auth/cloud-platform",
        "https://www.googleapis.com/auth/userinfo.email",
    }


def test_a_service_account_keeps_its_own_quota(tokens: TokenService) -> None:
    """It belongs to a project, and may not be allowed to use another one's."""
    assert tokens.asked == 0

    assert credentials("some-project").quota_project_id is None


def test_the_version_that_is_asked_for_is_answered(
    tokens: TokenService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kubernetes says which one it speaks."""
    asked = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential"}
    monkeypatch.setenv("KUBERNETES_EXEC_INFO", json.dumps(asked))

    answer = json.loads(exec_credential())

    assert answer["apiVersion"] == "client.authentication.k8s.io/v1"


def test_no_token_is_logged(
    tokens: TokenService, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even where everything is."""
    with caplog.at_level(logging.DEBUG):
        exec_credential()

    assert TOKEN not in caplog.text
    assert tokens.asked == 1


def test_the_kubeconfig_is_its_owners_and_holds_no_token(
    tokens: TokenService, cluster: GKECluster
) -> None:
    """It holds a command, which whoever speaks to Kubernetes runs."""
    file = write_kubeconfig(cluster)

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert file == kubeconfig_path(cluster.path)
    text = file.read_text()
    assert TOKEN not in text
    assert "token:" not in text
    assert "client-key" not in text
    config = yaml.safe_load(text)
    assert config == kubeconfig(cluster)
    assert config["clusters"][0]["cluster"] == {"server": cluster.server}
    assert tokens.asked == 0


def test_a_kubeconfig_that_others_could_read_is_closed(cluster: GKECluster) -> None:
    """Whatever was there before: it is replaced, with the right mode."""
    write_kubeconfig(cluster).chmod(0o644)

    assert stat.S_IMODE(write_kubeconfig(cluster).stat().st_mode) == 0o600


def test_its_command_prints_the_token(
    tokens: TokenService, cluster: GKECluster, tmp_path: Path
) -> None:
    """The very command of the kubeconfig works, from any folder."""
    plugin = kubeconfig(cluster)["users"][0]["user"]["exec"]

    done = subprocess.run(
        [plugin["command"], *plugin["args"]],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
    )

    assert json.loads(done.stdout)["status"]["token"] == TOKEN
    assert TOKEN not in done.stderr


def test_an_address_of_its_own_comes_with_its_authority(gke: GKEService) -> None:
    """By name, the certificate is one that everybody knows; by address it is not."""
    plane = {
        "dns_endpoint": False,
        "ip_endpoint": True,
        "authorized_networks": ["203.0.113.0/24"],
    }
    found = gke.clusters().ensure(spec(control_plane=plane)).cluster

    assert kubeconfig(found)["clusters"][0]["cluster"] == {
        "server": "https://192.0.2.1",
        "certificate-authority-data": "Y2VydGlmaWNhdGU=",
    }


def test_a_key_that_google_does_not_take_is_told(tokens: TokenService) -> None:
    """The error says how to log in."""
    tokens.refuses = True

    with pytest.raises(CloudRightsError, match="gcloud auth application-default login"):
        exec_credential()


def test_missing_credentials_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is not there is no credentials."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))

    with pytest.raises(CloudRightsError, match="gcloud auth application-default login"):
        exec_credential()
