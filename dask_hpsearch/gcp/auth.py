"""Credentials for GKE without gcloud: tokens on demand, and a kubeconfig for them.

No token is stored: the kubeconfig holds a command, which Kubernetes clients run, and which
prints a token that is valid for an hour at most.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

import yaml

from dask_hpsearch.gcp.api_errors import no_credentials
from dask_hpsearch.localfs.atomic import replaced_whole
from dask_hpsearch.paths import data_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dask_hpsearch.gcp.gke.state import GKECluster

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
# Those that gke-gcloud-auth-plugin asks for: GKE names users by their e-mail address.
KUBERNETES_SCOPES = (SCOPE, "https://www.googleapis.com/auth/userinfo.email")
_QUOTA_PROJECT = "GOOGLE_CLOUD_QUOTA_PROJECT"
_EXEC_VERSION = "client.authentication.k8s.io/v1beta1"  # kubectl since 1.10, and kr8s
_PRIVATE_FOLDER, _PRIVATE_FILE = 0o700, 0o600


def credentials(project: str | None = None, *, scopes: Sequence[str] = (SCOPE,)) -> Any:
    """Return Application Default Credentials.

    Parameters
    ----------
    project : str, optional
        The quota project of a user's credentials, unless the environment variable
        ``GOOGLE_CLOUD_QUOTA_PROJECT`` names another. Without one, some APIs answer for the
        project of gcloud itself, where they are disabled. Credentials of service accounts
        stay as they are: they belong to a project.
    scopes : sequence of str

    Raises
    ------
    CloudRightsError
        If there are none.
    """
    import google.auth
    from google.auth.exceptions import GoogleAuthError

    found: Any
    try:
        with warnings.catch_warnings():
            # It warns about a missing quota project, which is set below.
            warnings.filterwarnings("ignore", message="Your application has authent")
            found, _ = google.auth.default(scopes=list(scopes))
    except GoogleAuthError as error:
        doing = "find your credentials"
        raise no_credentials(doing, error) from error
    if project is None or os.environ.get(_QUOTA_PROJECT) or not _is_users(found):
        return found
    return found.with_quota_project(project)


def _is_users(found: Any) -> bool:
    from google.auth import external_account_authorized_user
    from google.oauth2 import credentials as user_credentials

    users = (user_credentials.Credentials, external_account_authorized_user.Credentials)
    return isinstance(found, users)


def exec_credential(found: Any = None) -> str:
    """Return the output of an exec plug-in of Kubernetes: a token and its expiry.

    Parameters
    ----------
    found : Credentials, optional
        Default: Application Default Credentials.

    Raises
    ------
    CloudRightsError
        If there are no credentials, or Google does not accept them.
    """
    from google.auth.exceptions import GoogleAuthError
    from google.auth.transport.requests import Request

    found = found or credentials(scopes=KUBERNETES_SCOPES)
    try:
        found.refresh(Request())
    except GoogleAuthError as error:
        doing = "get a token for GKE"
        raise no_credentials(doing, error) from error
    status = {"token": found.token}
    if found.expiry is not None:  # naive, in UTC
        expiry = found.expiry.replace(tzinfo=dt.UTC)
        status["expirationTimestamp"] = expiry.strftime("%Y-%m-%dT%H:%M:%SZ")
    request = json.loads(os.environ.get("KUBERNETES_EXEC_INFO") or "{}")
    response = {
        "apiVersion": request.get("apiVersion", _EXEC_VERSION),
        "kind": "ExecCredential",
        "status": status,
    }
    return json.dumps(response)


def kubeconfig(cluster: GKECluster) -> dict[str, Any]:
    """Return a kubeconfig for a GKE cluster, with a command for tokens."""
    name = f"gke_{cluster.project}_{cluster.location}_{cluster.name}"
    server: dict[str, Any] = {"server": cluster.server}
    if cluster.ca_certificate:
        server["certificate-authority-data"] = cluster.ca_certificate
    plugin = {
        "apiVersion": _EXEC_VERSION,
        "command": sys.executable,
        "args": ["-m", "dask_hpsearch.cli", "gke-token"],
        "interactiveMode": "Never",
        "provideClusterInfo": False,
        "installHint": "pip install 'dask-hpsearch[gcp]'",
    }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": server}],
        "users": [{"name": name, "user": {"exec": plugin}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }


def kubeconfig_path(path: str) -> Path:
    """Return the path of this user's kubeconfig of a GKE cluster.

    Parameters
    ----------
    path : str
        As `GKESpec.path` has it.
    """
    _, project, _, location, _, name = path.split("/")
    file = f"{project.replace(':', '_')}.{location}.{name}.yaml"
    return data_folder() / "gke" / file


def write_kubeconfig(cluster: GKECluster) -> Path:
    """Write a kubeconfig that only its owner can read.

    Returns
    -------
    Path

    Raises
    ------
    OSError
        If it cannot be written.
    """
    file = kubeconfig_path(cluster.path)
    file.parent.mkdir(parents=True, exist_ok=True, mode=_PRIVATE_FOLDER)
    with replaced_whole(file) as opened:
        os.fchmod(opened.fileno(), _PRIVATE_FILE)
        opened.write(yaml.safe_dump(kubeconfig(cluster), sort_keys=False).encode())
    return file
