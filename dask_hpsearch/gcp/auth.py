"""Credentials for GKE without gcloud: tokens on demand, and a kubeconfig that asks for them.

No token is ever written down: the kubeconfig holds a command, which whoever speaks to
Kubernetes runs, and which prints a token that lasts an hour at most.
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
    from pathlib import Path

    from dask_hpsearch.gcp.gke.state import GKECluster

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_EXEC_VERSION = "client.authentication.k8s.io/v1beta1"  # kubectl since 1.10, and kr8s
_PRIVATE_FOLDER, _PRIVATE_FILE = 0o700, 0o600


def credentials() -> Any:
    """Return Application Default Credentials.

    Raises
    ------
    CloudRightsError
        If there are none.
    """
    import google.auth
    from google.auth.exceptions import GoogleAuthError

    try:
        with warnings.catch_warnings():
            # It asks for a project to bill requests to; GKE needs none.
            warnings.filterwarnings("ignore", message="Your application has authent")
            found, _ = google.auth.default(scopes=[SCOPE])
    except GoogleAuthError as error:
        doing = "find out who you are"
        raise no_credentials(doing, error) from error
    return found


def exec_credential(found: Any = None) -> str:
    """Return what an exec plug-in of Kubernetes prints: a token, and when it ends.

    Parameters
    ----------
    found : Credentials, optional
        Default: Application Default Credentials.

    Raises
    ------
    CloudRightsError
        If there are no credentials, or Google does not take them.
    """
    from google.auth.exceptions import GoogleAuthError
    from google.auth.transport.requests import Request

    found = found or credentials()
    try:
        found.refresh(Request())
    except GoogleAuthError as error:
        doing = "get a token for GKE"
        raise no_credentials(doing, error) from error
    status = {"token": found.token}
    if found.expiry is not None:  # without a zone, and in UTC
        ends = found.expiry.replace(tzinfo=dt.UTC)
        status["expirationTimestamp"] = ends.strftime("%Y-%m-%dT%H:%M:%SZ")
    asked = json.loads(os.environ.get("KUBERNETES_EXEC_INFO") or "{}")
    answer = {
        "apiVersion": asked.get("apiVersion", _EXEC_VERSION),
        "kind": "ExecCredential",
        "status": status,
    }
    return json.dumps(answer)


def kubeconfig(cluster: GKECluster) -> dict[str, Any]:
    """Return a kubeconfig for a GKE cluster: whom to ask for a token, and no token."""
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
    """Return where this user has the kubeconfig of a GKE cluster.

    Parameters
    ----------
    path : str
        As `GKESpec.path` has it.
    """
    _, project, _, location, _, name = path.split("/")
    file = f"{project.replace(':', '_')}.{location}.{name}.yaml"
    return data_folder() / "gke" / file


def write_kubeconfig(cluster: GKECluster) -> Path:
    """Write a kubeconfig that its owner alone can read.

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
