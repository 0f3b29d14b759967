"""Accounts of Kubernetes, and what each may do."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from dask_hpsearch.clusters.kubernetes import api as kubernetes_api
from tests.kubernetes.conftest import asked
from tests.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dask_hpsearch.clusters.kubernetes.api import KubernetesApi

RBAC = "rbac.authorization.k8s.io"
AUTHORIZATION = "authorization.k8s.io"
Right = tuple[str, str, str]  # verb, group, resource


@contextlib.contextmanager
def account(
    namespace: str, name: str, rules: Sequence[dict[str, Any]], folder: Path
) -> Iterator[str]:
    """Make an account with some rights in a namespace, and the kubeconfig of it."""

    async def make(api: KubernetesApi) -> None:
        metadata = {"name": name}
        subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
        role = {"apiGroup": RBAC, "kind": "Role", "name": name}
        for one in (
            {"apiVersion": "v1", "kind": "ServiceAccount"},
            {"apiVersion": f"{RBAC}/v1", "kind": "Role", "rules": list(rules)},
            {
                "apiVersion": f"{RBAC}/v1",
                "kind": "RoleBinding",
                "roleRef": role,
                "subjects": [subject],
            },
        ):
            await api.create(one | {"metadata": metadata})

    asked(make, namespace)
    try:
        with token_of(namespace, name) as token:
            yield kubeconfig_with(token, namespace, folder / f"{name}.yaml")
    finally:
        for kind in ("RoleBinding", "Role", "ServiceAccount"):
            asked(lambda api, kind=kind: api.delete(kind, name), namespace)


@contextlib.contextmanager
def token_of(namespace: str, name: str) -> Iterator[str]:
    """Have a token of an account for a while."""
    secret = f"{name}-test-token"
    manifest = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/service-account-token",
        "metadata": {
            "name": secret,
            "annotations": {"kubernetes.io/service-account.name": name},
        },
    }

    def data() -> dict[str, str]:
        found = asked(lambda api: api.get("Secret", secret), namespace)
        return dict((found or {}).get("data") or {})

    asked(lambda api: api.create(manifest), namespace)
    try:
        wait_until(lambda: data().get("token"))
        yield base64.b64decode(data()["token"]).decode()
    finally:
        asked(lambda api: api.delete("Secret", secret), namespace)


def kubeconfig_with(token: str, namespace: str, path: Path) -> str:
    """Write a kubeconfig for the same cluster, and another user."""
    own = own_kubeconfig()
    cluster = {"name": "c", "cluster": own["clusters"][0]["cluster"]}
    context = {"cluster": "c", "user": "u", "namespace": namespace}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [cluster],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": context}],
        "current-context": "x",
    }
    path.write_text(yaml.safe_dump(config))
    path.chmod(0o600)
    return str(path)


def own_kubeconfig() -> dict[str, Any]:
    """Read the kubeconfig of whoever runs the tests."""
    path = os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config"
    config: dict[str, Any] = yaml.safe_load(Path(path).read_text())
    return config


def granted(kubeconfig: str, namespace: str) -> set[Right]:
    """Return all that an account may do in a namespace, as Kubernetes resolves it."""

    async def ask() -> set[Right]:
        async with kubernetes_api.connected(kubeconfig=kubeconfig) as api:
            status = await _review(
                api, "selfsubjectrulesreviews", {"namespace": namespace}
            )
        return {right for rule in status["resourceRules"] for right in rights_of(rule)}

    return asyncio.run(ask())


def rights_of(rule: dict[str, Any]) -> set[Right]:
    """Take a rule apart."""
    return {
        (verb, group, resource)
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def may(account: str, right: Right, namespace: str) -> bool:
    """Ask Kubernetes whether an account may do something."""
    verb, group, resource = right
    resource, _, part = resource.partition("/")
    attributes = {
        "verb": verb,
        "group": group,
        "resource": resource,
        "subresource": part,
        "namespace": namespace,
    }
    spec = {
        "user": f"system:serviceaccount:{account}",
        "resourceAttributes": attributes,
    }
    status = asked(lambda api: _review(api, "subjectaccessreviews", spec))
    return bool(status["allowed"])


def tried(kubeconfig: str, method: str, url: str, namespace: str | None) -> int:
    """Make a request as an account; return the status of the answer."""
    version, _, path = url.rpartition(" ")

    async def ask() -> int:
        async with (
            kubernetes_api.connected(kubeconfig=kubeconfig) as api,
            api.connection.call_api(
                method,
                version=version or "v1",
                url=path,
                namespace=namespace,
                json={},
                raise_for_status=False,
            ) as response,
        ):
            return int(response.status_code)

    return asyncio.run(ask())


async def _review(api: KubernetesApi, kind: str, spec: dict[str, Any]) -> Any:
    words = {
        "selfsubjectrulesreviews": "SelfSubjectRulesReview",
        "subjectaccessreviews": "SubjectAccessReview",
    }
    version = f"{AUTHORIZATION}/v1"
    async with api.connection.call_api(
        "POST",
        version=version,
        url=kind,
        json={"apiVersion": version, "kind": words[kind], "spec": spec},
    ) as response:
        status: dict[str, Any] = response.json()["status"]
    return status
