"""No secret, key or token is where somebody else could read it."""

from __future__ import annotations

import base64
import json
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV

from dask_hpsearch import DaskSearchCV
from dask_hpsearch.clusters.kubernetes import operator
from tests.kubernetes.accounts import own_kubeconfig, token_of
from tests.kubernetes.conftest import KINDS, PASSWORD, USERS_SECRET, asked
from tests.kubernetes.estimators import Sleeper

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dask_hpsearch.clusters.kubernetes.api import KubernetesApi
    from dask_hpsearch.clusters.kubernetes.cluster import SearchKubeCluster

X, y = np.arange(40.0).reshape(20, 2), np.arange(20) % 2
PRIVATE = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----(.*?)-----END", re.DOTALL)
SHOWN_TOO = ("Event", "ReplicaSet")


def key_texts(pem: str) -> Iterator[str]:
    """Yield what gives a private key away: its text, line by line and in one."""
    for body in PRIVATE.findall(pem):
        lines = [line for line in body.splitlines() if line]
        yield "".join(lines)
        yield from (line for line in lines if len(line) > 30)
        yield base64.b64decode("".join(lines)).hex()


@pytest.fixture(scope="module")
def secrets(
    cluster: SearchKubeCluster, namespace: str, home: Path, run_folder: Path
) -> dict[str, str]:
    """Return all secrets that there are, by what each is."""
    del run_folder  # whose key is one of them
    found = {"the user's own secret": PASSWORD}
    tls = asked(lambda api: api.get("Secret", f"{cluster.name}-tls"), namespace)
    for name, data in tls["data"].items():
        for number, text in enumerate(key_texts(base64.b64decode(data).decode())):
            found[f"{name} of the cluster, {number}"] = text
    for path in home.rglob("*"):
        if path.is_file():
            for number, text in enumerate(key_texts(path.read_text(errors="replace"))):
                found[f"{path.relative_to(home)}, {number}"] = text
    user = own_kubeconfig()["users"][0]["user"]
    for field in ("token", "client-key-data", "password"):
        if user.get(field):
            found[f"the kubeconfig's {field}"] = user[field]
    if "client-key" in user:
        for number, text in enumerate(key_texts(Path(user["client-key"]).read_text())):
            found[f"the kubeconfig's key, {number}"] = text
    with token_of(operator.NAMESPACE, operator.NAME) as token:
        found["a token of the operator"] = token
    return found


def given_away(secrets: dict[str, str], texts: dict[str, str]) -> list[str]:
    """Name the secrets that are in any of some texts, and which."""
    return [
        f"{what} is in {where}"
        for where, text in texts.items()
        for what, secret in secrets.items()
        if secret in text
        or base64.b64encode(secret.encode()).decode() in text
        or "PRIVATE KEY" in text
    ]


@pytest.fixture(scope="module")
def run_folder(
    cluster: SearchKubeCluster, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Fit a search on the cluster; return its store's folder."""
    store = tmp_path_factory.mktemp("store")
    search = GridSearchCV(Sleeper(), {"number": range(5000, 5002)}, cv=2)
    with cluster.get_client() as client:
        client.wait_for_workers(1, timeout=60)
        # The secret itself does reach the workers.
        found = client.run(lambda: __import__("os").environ.get("PASSWORD"))
        assert set(found.values()) == {PASSWORD}
        logger = logging.getLogger("dask_hpsearch")
        before = logger.level
        heard = logging.FileHandler(store / "heard-here.log")
        logger.addHandler(heard)
        logger.setLevel(logging.DEBUG)
        try:
            DaskSearchCV(search, client=client, store=str(store)).fit(X, y)
        finally:
            logger.setLevel(before)
            logger.removeHandler(heard)
            heard.close()
    return store


def test_there_are_secrets_to_look_for(secrets: dict[str, str]) -> None:
    """A search for nothing finds nothing."""
    kinds = " ".join(secrets)

    for name in (
        "scheduler.key",
        "worker.key",
        "client.key",
        "signing-key.pem",
        "token",
    ):
        assert name in kinds
    assert given_away(secrets, {"x": f"a {PASSWORD} b"})


def test_no_secret_is_in_a_log(
    cluster: SearchKubeCluster, secrets: dict[str, str]
) -> None:
    """Those of scheduler, workers and operator."""
    logs = {str(name): str(log) for name, log in cluster.get_logs().items()}

    async def of_operator(api: KubernetesApi) -> dict[str, str]:
        pods = await api.list("Pod", "dask-hpsearch/operator=true")
        names = [pod["metadata"]["name"] for pod in pods]
        return {name: await api.logs(name, 5000) for name in names}

    logs |= asked(of_operator, operator.NAMESPACE)

    assert len(logs) >= 3
    assert all(logs.values())
    assert given_away(secrets, logs) == []


def test_no_secret_is_in_what_kubernetes_shows(
    namespace: str, secrets: dict[str, str]
) -> None:
    """Nor in pods' environments: all objects but Secrets, and all events."""

    async def read(api: KubernetesApi) -> dict[str, str]:
        kinds = [kind for kind in (*KINDS, *SHOWN_TOO) if kind != "Secret"]
        return {kind: json.dumps(await api.list(kind)) for kind in kinds}

    shown: dict[str, str] = asked(read, namespace)

    assert USERS_SECRET in shown["Pod"]  # by name
    assert given_away(secrets, shown) == []


def test_no_secret_is_in_a_run_folder(
    run_folder: Path, secrets: dict[str, str]
) -> None:
    """Nor in what this process logged."""
    files = [path for path in run_folder.rglob("*") if path.is_file()]
    texts = {str(path): path.read_bytes().decode("latin-1") for path in files}

    assert any("manifest" in name for name in texts)
    assert given_away(secrets, texts) == []


def test_no_secret_is_shown(
    cluster: SearchKubeCluster, secrets: dict[str, str]
) -> None:
    """As text or as a notebook shows it: cluster, client, security, spec."""
    with cluster.get_client() as client:
        things: list[Any] = [cluster, client, cluster.security, cluster.spec]
        texts = {f"repr of {type(one).__name__}": repr(one) for one in things}
        texts |= {f"str of {type(one).__name__}": str(one) for one in things}
        texts |= {
            f"HTML of {type(one).__name__}": one._repr_html_()
            for one in things
            if hasattr(one, "_repr_html_")
        }
        texts["what another process is told"] = repr(cluster.attach_options)

    assert given_away(secrets, texts) == []
