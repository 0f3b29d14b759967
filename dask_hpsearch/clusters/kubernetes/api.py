"""The calls to the Kubernetes API that clusters need, with mapped errors.

kr8s sends them: it reads kubeconfigs, tokens and certificates.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import kr8s

from dask_hpsearch.exceptions import (
    ClusterError,
    KubernetesRightsError,
    KubernetesUnreachableError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

Manifest = dict[str, Any]
FIELD_MANAGER = "dask-hpsearch"
_FORBIDDEN = 403
_UNAUTHORIZED = 401
_NOT_FOUND = 404
_RESPONSE_TIMEOUT = 30.0
_NO_CREDENTIALS = "Process exited"  # kr8s' message if the command for them has failed
_LOG_LINES = 5000
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
_logger = logging.getLogger(__name__)
# By kind: API version, name in URLs, whether it has a namespace.
_RESOURCES = {
    "ClusterRole": ("rbac.authorization.k8s.io/v1", "clusterroles", False),
    "ClusterRoleBinding": (
        "rbac.authorization.k8s.io/v1",
        "clusterrolebindings",
        False,
    ),
    "CustomResourceDefinition": (
        "apiextensions.k8s.io/v1",
        "customresourcedefinitions",
        False,
    ),
    "DaskAutoscaler": ("kubernetes.dask.org/v1", "daskautoscalers", True),
    "DaskCluster": ("kubernetes.dask.org/v1", "daskclusters", True),
    "DaskWorkerGroup": ("kubernetes.dask.org/v1", "daskworkergroups", True),
    "Deployment": ("apps/v1", "deployments", True),
    "Event": ("v1", "events", True),
    "Job": ("batch/v1", "jobs", True),
    "Namespace": ("v1", "namespaces", False),
    "NetworkPolicy": ("networking.k8s.io/v1", "networkpolicies", True),
    "Node": ("v1", "nodes", False),
    "Pod": ("v1", "pods", True),
    "ReplicaSet": ("apps/v1", "replicasets", True),
    "Role": ("rbac.authorization.k8s.io/v1", "roles", True),
    "RoleBinding": ("rbac.authorization.k8s.io/v1", "rolebindings", True),
    "Secret": ("v1", "secrets", True),
    "Service": ("v1", "services", True),
    "ServiceAccount": ("v1", "serviceaccounts", True),
}


@dataclass(frozen=True, slots=True)
class KubernetesApi:
    """A connection to the API, and a default namespace.

    Attributes
    ----------
    connection : kr8s.asyncio.Api
    namespace : str
        Empty: all namespaces.
    """

    connection: Any
    namespace: str

    def in_namespace(self, namespace: str) -> KubernetesApi:
        """Return the same connection with another default namespace; empty: all."""
        return KubernetesApi(self.connection, namespace)

    async def close(self) -> None:
        """Close its sockets; a later call opens new ones.

        kr8s 0.20 has no method for it.
        """
        session = self.connection._session  # noqa: SLF001
        if session is not None:
            await session.aclose()

    async def get(self, kind: str, name: str) -> Manifest | None:
        """Return an object; None if there is none."""
        try:
            found: Manifest = await self._call("GET", kind, name)
        except ObjectMissingError:
            return None
        return found

    async def list(
        self, kind: str, labels: str = "", fields: str = ""
    ) -> list[Manifest]:
        """Return the objects with some labels."""
        params = {"labelSelector": labels, "fieldSelector": fields}
        answer = await self._call(
            "GET", kind, params={key: value for key, value in params.items() if value}
        )
        return list(answer["items"])

    async def create(self, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        """Create an object; a `KubernetesConflictError` if there is one.

        A dry run creates nothing, and fails as the creation would.
        """
        created: Manifest = await self._call(
            "POST",
            manifest["kind"],
            body=manifest,
            params={"dryRun": "All"} if dry_run else None,
        )
        return created

    async def apply(self, manifest: Manifest) -> Manifest:
        """Create an object, or update the existing one (server-side apply)."""
        applied: Manifest = await self._call(
            "PATCH",
            manifest["kind"],
            manifest["metadata"]["name"],
            body=manifest,
            content_type="application/apply-patch+yaml",
            params={"fieldManager": FIELD_MANAGER, "force": "true"},
        )
        return applied

    async def patch(self, kind: str, name: str, change: Manifest) -> Manifest:
        """Change some fields of an object."""
        patched: Manifest = await self._call(
            "PATCH",
            kind,
            name,
            body=change,
            content_type="application/merge-patch+json",
        )
        return patched

    async def delete(self, kind: str, name: str, policy: str = "Background") -> bool:
        """Delete an object with what it owns; False if there was none."""
        try:
            await self._call("DELETE", kind, name, body={"propagationPolicy": policy})
        except ObjectMissingError:
            return False
        return True

    async def logs(self, pod: str, lines: int = 50, *, previous: bool = False) -> str:
        """Return the last lines of a pod's log, or of its container before a restart."""
        version, plural, _ = _RESOURCES["Pod"]
        params = {"tailLines": str(lines), "previous": str(previous).lower()}
        async with (
            map_kubernetes_errors(f"read the logs of pod {pod}"),
            self.connection.call_api(
                "GET",
                version=version,
                url=f"{plural}/{pod}/log",
                namespace=self.namespace,
                params=params,
            ) as response,
        ):
            text = str(response.text)
        return text  # noqa: RET504 (a context may end otherwise)

    async def log_lines(
        self, pod: str, *, since: str | None, follow: bool
    ) -> AsyncIterator[tuple[str, str]]:
        """Yield the lines of a pod's log with their times.

        Parameters
        ----------
        pod : str
        since : str, optional
            Time of a line to start from; default: the last few thousand lines.
        follow : bool
            Whether to wait for new lines, until the container ends.
        """
        version, plural, _ = _RESOURCES["Pod"]
        first = (
            {"tailLines": str(_LOG_LINES)} if since is None else {"sinceTime": since}
        )
        async with (
            map_kubernetes_errors(f"read the logs of pod {pod}"),
            self.connection.call_api(
                "GET",
                version=version,
                url=f"{plural}/{pod}/log",
                namespace=self.namespace,
                params={"timestamps": "true", "follow": str(follow).lower(), **first},
                stream=True,
                timeout=httpx.Timeout(_RESPONSE_TIMEOUT, read=None),
            ) as response,
        ):
            async for line in response.aiter_lines():
                found = split_log_line(line)
                if found is not None:
                    yield found
                elif line:
                    _logger.debug("no log of pod %s: %s", pod, line)

    async def _call(
        self,
        method: str,
        kind: str,
        name: str = "",
        *,
        body: Manifest | None = None,
        content_type: str = "application/json",
        params: dict[str, str] | None = None,
    ) -> Any:
        version, plural, namespaced = _RESOURCES[kind]
        named = (body or {}).get("metadata", {}).get("namespace")
        namespace = named or self.namespace
        verb = {"GET": "read", "POST": "create", "PATCH": "change"}.get(
            method, "delete"
        )
        where = f" in namespace {namespace}" if namespaced else ""
        async with (
            map_kubernetes_errors(f"{verb} {kind} {name}".rstrip() + where),
            self.connection.call_api(
                method,
                version=version,
                url=f"{plural}/{name}" if name else plural,
                namespace=namespace if namespaced else None,
                params=params,
                headers={"Content-Type": content_type},
                content=None if body is None else json.dumps(body),
            ) as response,
        ):
            content = response.json()
        return content  # noqa: RET504 (a context may end otherwise)


def split_log_line(line: str) -> tuple[str, str] | None:
    """Split a line of a log into time and text; None if it is a message of the kubelet.

    If it cannot read a log, it responds with the reason instead.
    """
    moment, _, text = line.partition(" ")
    return (moment, text) if _TIMESTAMP.match(moment) else None


class ObjectMissingError(ClusterError, LookupError):
    """Kubernetes has no such object, or no such resource."""


class KubernetesConflictError(ClusterError):
    """Kubernetes has such an object, or a newer version of it."""


class KubernetesRefusalError(ClusterError):
    """Kubernetes refuses an object; the message has the reason."""


async def connect(
    *,
    namespace: str | None = None,
    kubeconfig: str | None = None,
    context: str | None = None,
) -> KubernetesApi:
    """Connect to Kubernetes with the kubeconfig, or with a pod's service account.

    The connection becomes kr8s' default in this event loop.

    Raises
    ------
    KubernetesUnreachableError
        If there is no kubeconfig, no such context, or no response.
    """
    with _map_kubeconfig_errors(context):
        connection = await kr8s.asyncio.api(kubeconfig=kubeconfig, context=context)
        connection.timeout = _RESPONSE_TIMEOUT
    return KubernetesApi(connection, namespace or connection.namespace)


@contextlib.asynccontextmanager
async def connected(**where: Any) -> AsyncIterator[KubernetesApi]:
    """Connect to Kubernetes, as `connect` does; close the connection at the end."""
    api = await connect(**where)
    try:
        yield api
    finally:
        await api.close()


@contextlib.contextmanager
def _map_kubeconfig_errors(context: str | None) -> Iterator[None]:
    try:
        yield
    except KeyError as error:
        msg = f"the kubeconfig lacks {error}: fix it, or set KUBECONFIG to another one"
        raise KubernetesUnreachableError(msg) from error
    except (ValueError, OSError, IndexError) as error:
        named = f" with context {context!r}" if context else ""
        msg = (
            f"cannot connect to Kubernetes{named}: {error}. Check the kubeconfig "
            "(KUBECONFIG, ~/.kube/config) and its contexts"
        )
        raise KubernetesUnreachableError(msg) from error
    except (httpx.HTTPError, kr8s.APITimeoutError, kr8s.ServerError) as error:
        msg = f"Kubernetes does not respond: {error!r}. Check the kubeconfig"
        raise KubernetesUnreachableError(msg) from error
    except RuntimeError as error:
        if not str(error).startswith(_NO_CREDENTIALS):
            raise
        raise _credentials_error(error) from error


@contextlib.asynccontextmanager
async def map_kubernetes_errors(doing: str) -> AsyncIterator[None]:
    """Map errors of requests to Kubernetes to a `ClusterError`.

    Parameters
    ----------
    doing : str
        As "create Pod x in namespace y".

    Raises
    ------
    KubernetesRightsError, KubernetesUnreachableError, ObjectMissingError
    KubernetesConflictError, KubernetesRefusalError
    """
    try:
        yield
    except kr8s.ServerError as error:
        raise _refused(doing, error) from error
    except (httpx.HTTPError, kr8s.APITimeoutError, ssl.SSLError, OSError) as error:
        msg = (
            f"cannot {doing}: Kubernetes does not respond ({error!r}). Check the network "
            "and the kubeconfig"
        )
        raise KubernetesUnreachableError(msg) from error
    except RuntimeError as error:
        if not str(error).startswith(_NO_CREDENTIALS):
            raise
        raise _credentials_error(error) from error


def _credentials_error(error: RuntimeError) -> KubernetesRightsError:
    """Return the error of a failed command of the kubeconfig, a RuntimeError in kr8s."""
    said = str(error).strip().splitlines()[-1]
    msg = (
        f"the kubeconfig's command for credentials failed: {said}. Log in again, or use "
        "another context"
    )
    return KubernetesRightsError(msg)


def _refused(doing: str, error: kr8s.ServerError) -> ClusterError:
    code = error.response.status_code if error.response is not None else 0
    if code in (_FORBIDDEN, _UNAUTHORIZED) and "exceeded quota" not in str(error):
        msg = (
            f"not allowed to {doing}: {error}. Ask for the permission, or use another context "
            "of the kubeconfig"
        )
        return KubernetesRightsError(msg)
    if code == _NOT_FOUND:
        return ObjectMissingError(f"cannot {doing}: {error}")
    if code == httpx.codes.CONFLICT:
        return KubernetesConflictError(f"cannot {doing}: {error}")
    return KubernetesRefusalError(f"cannot {doing}: Kubernetes refuses it: {error}")
