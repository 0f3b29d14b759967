"""Builds the Kubernetes objects of a Dask cluster from its spec: pure functions.

Pods run as an unprivileged user on a read-only file system, without a service account's token
and without capabilities. They write to one volume, which is deleted with them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from dask_hpsearch.clusters.kubernetes.network_policies import (
    scheduler_policy,
    worker_policy,
)
from dask_hpsearch.clusters.tls import pod_environment, role_files
from dask_hpsearch.config.quantities import memory_bytes
from dask_hpsearch.exceptions import ClusterNameError
from dask_hpsearch.localfs.node_cache import SIZE_VARIABLE
from dask_hpsearch.messages import IMAGE_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dask_hpsearch.clusters.tls import Certificates, Role
    from dask_hpsearch.config.cluster import ClusterSpec, NodeKind

Manifest = dict[str, Any]

COMM_PORT = 8786
HTTP_PORT = 8787
DASHBOARD_PORT = 8788  # on a pod's loopback: reached by port forwarding only
WORKER_HTTP_PORT = 8789
TUNNEL_PORT = 8790  # on a scheduler's loopback: the tunnel of clients' streams
SLOTS_VARIABLE = "DASK_HPSEARCH_SLOTS"  # slots of each worker, for the scheduler
OPERATOR_LABEL = "dask-hpsearch/operator"
CLUSTER_LABEL = "dask.org/cluster-name"
COMPONENT_LABEL = "dask.org/component"
SPEC_ANNOTATION = "dask-hpsearch/spec"
OWNER_ANNOTATION = "dask-hpsearch/owner"  # of a DaskCluster: USER@MACHINE
# Set on a DaskCluster that is deleted when no run needs it any more.
ENDS_ANNOTATION = "dask-hpsearch/ends-with-runs"
# Labels of a namespace in which Kubernetes refuses privileged pods.
POD_SECURITY = {
    "pod-security.kubernetes.io/enforce": "restricted",
    "pod-security.kubernetes.io/warn": "restricted",
}
SCRATCH = "/scratch"
CERTIFICATES = "/etc/dask-hpsearch/tls"
USER_ID = 1000
EXIT_REFUSED = 3  # a worker that its scheduler refuses
EXIT_SKEW = 4  # a worker with other versions than its scheduler
# The worker and its forkserver; the rest of a pod's memory is for the slots.
_WORKER_OVERHEAD = 320 * 2**20
_SCHEDULER_SCRATCH = "1Gi"
_SCHEDULER_GRACE = 5
_KILL_MARGIN = 3
# Of the objects named after a cluster, its scheduler's Service has the strictest rules.
_LONGEST_NAME = 63 - len("-scheduler")
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


def check_name(name: str) -> None:
    """Check the name of a Dask cluster.

    Raises
    ------
    ClusterNameError
        If Kubernetes would refuse the objects that are named after it.
    """
    if len(name) > _LONGEST_NAME or not _NAME.fullmatch(name):
        msg = (
            f"the name of a cluster must begin with a lowercase letter, contain lowercase "
            "letters, digits and hyphens only, not end with a hyphen, and have at most "
            f"{_LONGEST_NAME} characters, got {name!r}"
        )
        raise ClusterNameError(msg)


def dask_cluster(
    name: str, namespace: str, spec: ClusterSpec, n_workers: int
) -> Manifest:
    """Build the DaskCluster, from which the operator creates pods."""
    return {
        "apiVersion": "kubernetes.dask.org/v1",
        "kind": "DaskCluster",
        "metadata": {
            "name": name,
            "labels": labels_of(name, spec),
            # For clients that attach by name.
            "annotations": {SPEC_ANNOTATION: spec.model_dump_json(exclude_unset=True)},
        },
        "spec": {
            "idleTimeout": spec.idle_timeout or 0,
            "scheduler": {
                "spec": _scheduler_pod(name, spec),
                "service": _service(name),
            },
            "worker": {
                "replicas": n_workers,
                "spec": _worker_pod(name, namespace, spec),
            },
        },
    }


def companions(
    name: str, spec: ClusterSpec, certificates: Certificates, owner: Manifest
) -> list[Manifest]:
    """Build the objects that a DaskCluster owns: Secret, policies, service account.

    Parameters
    ----------
    name : str
    spec : ClusterSpec
    certificates : Certificates
    owner : dict
        The DaskCluster as Kubernetes has it.
    """
    metadata = {
        "labels": labels_of(name, spec),
        "ownerReferences": [
            {
                "apiVersion": owner["apiVersion"],
                "kind": owner["kind"],
                "name": name,
                "uid": owner["metadata"]["uid"],
            }
        ],
    }

    def build(kind: str, version: str, suffix: str, **content: Any) -> Manifest:
        return {
            "apiVersion": version,
            "kind": kind,
            "metadata": {"name": f"{name}{suffix}", **metadata},
            **content,
        }

    members = {CLUSTER_LABEL: name}
    manifests = [
        build(
            "Secret", "v1", "-tls", type="Opaque", stringData=dict(certificates.files)
        ),
        build(
            "NetworkPolicy",
            "networking.k8s.io/v1",
            "-scheduler",
            spec=scheduler_policy(
                _selector(name, "scheduler"),
                cluster=members,
                operator={OPERATOR_LABEL: "true"},
                comm_port=COMM_PORT,
                http_port=HTTP_PORT,
            ),
        ),
        build(
            "NetworkPolicy",
            "networking.k8s.io/v1",
            "-worker",
            spec=worker_policy(_selector(name, "worker"), cluster=members),
        ),
    ]
    if spec.service_account is None:
        manifests.append(
            build("ServiceAccount", "v1", "", automountServiceAccountToken=False)
        )
    return manifests


def scheduler_address(name: str, namespace: str) -> str:
    """Return the scheduler's address inside Kubernetes."""
    return f"tls://{name}-scheduler.{namespace}.svc:{COMM_PORT}"


def slot_memory(spec: ClusterSpec) -> int:
    """Return how many bytes of a worker's memory its slots share."""
    whole = memory_bytes(spec.workers.memory)
    return whole - min(_WORKER_OVERHEAD, whole // 2)


def cache_limit(spec: ClusterSpec) -> dict[str, str]:
    """Limit the node cache to a pod's volume: Kubernetes evicts a pod that exceeds it."""
    share = memory_bytes(spec.workers.cache) * 4 // 5
    return {} if SIZE_VARIABLE in spec.environment else {SIZE_VARIABLE: str(share)}


def node_kind(spec: ClusterSpec, nodes: str) -> NodeKind | None:
    """Return the selector and tolerations of a kind of nodes; None for any."""
    if nodes == "spot":
        return spec.nodes.spot
    return spec.nodes.on_demand if nodes == "on-demand" else None


def pod_security() -> Manifest:
    """Return the security context of a pod."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER_ID,
        "runAsGroup": USER_ID,
        "fsGroup": USER_ID,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Manifest:
    """Return the security context of a container."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "privileged": False,
        "readOnlyRootFilesystem": True,
    }


def _scheduler_pod(name: str, spec: ClusterSpec) -> Manifest:
    # Dask parses the values as Python literals.
    environment = {
        SLOTS_VARIABLE: str(spec.workers.slots),
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1000000",
        "DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES": str(
            [
                "distributed.http.health",
                "dask_hpsearch.clusters.kubernetes.scheduler_routes",
            ]
        ),
    }
    container = container_of("scheduler", spec, environment) | {
        "args": [
            *("dask-scheduler", "--host", "0.0.0.0"),  # noqa: S104 (in a pod)
            *("--port", str(COMM_PORT)),
            *("--no-dashboard", "--dashboard-address", f":{HTTP_PORT}"),
            *("--preload", "dask_hpsearch.clusters.kubernetes.scheduler_preload"),
        ],
        "ports": [
            {"name": "tcp-comm", "containerPort": COMM_PORT, "protocol": "TCP"},
            {"name": "http-dashboard", "containerPort": HTTP_PORT, "protocol": "TCP"},
        ],
        "readinessProbe": _health("http-dashboard", periodSeconds=1, timeoutSeconds=5),
        "livenessProbe": _health(
            "http-dashboard",
            initialDelaySeconds=60,
            periodSeconds=20,
            timeoutSeconds=10,
            failureThreshold=6,
        ),
        "resources": resources(spec.scheduler.cpu, spec.scheduler.memory),
    }
    return pod_of(
        name,
        spec,
        container,
        nodes=spec.scheduler.nodes,
        scratch=_SCHEDULER_SCRATCH,
        grace=_SCHEDULER_GRACE,
    )


def _worker_pod(name: str, namespace: str, spec: ClusterSpec) -> Manifest:
    environment = {
        "DASK_SCHEDULER_ADDRESS": scheduler_address(name, namespace),
        "DASK_DISTRIBUTED__WORKER__HTTP__ROUTES": str(["distributed.http.health"]),
        "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
        "MALLOC_TRIM_THRESHOLD_": "65536",
        **cache_limit(spec),
    }
    container = container_of("worker", spec, environment) | {
        "args": [
            *("python", "-m", "dask_hpsearch.clusters.kubernetes.worker_pod"),
            *("--slots", str(spec.workers.slots)),
            *("--memory", str(slot_memory(spec))),
            *("--notice", str(spec.workers.notice)),
            *("--disk", str(memory_bytes(spec.workers.cache))),
        ],
        "ports": [{"name": "http", "containerPort": WORKER_HTTP_PORT}],
        # A worker is ready when it has joined the scheduler.
        "readinessProbe": _health("http", periodSeconds=1, timeoutSeconds=5),
        "resources": resources(spec.workers.cpu, spec.workers.memory),
    }
    if spec.secrets:
        container["envFrom"] = [{"secretRef": {"name": one}} for one in spec.secrets]
    pod = pod_of(
        name,
        spec,
        container,
        nodes=spec.workers.nodes,
        scratch=spec.workers.cache,
        grace=spec.workers.notice + _KILL_MARGIN,
    )
    if spec.workers.one_per_node:
        term = {
            "labelSelector": {"matchLabels": _selector(name, "worker")},
            "topologyKey": "kubernetes.io/hostname",
        }
        pod["affinity"] = {
            "podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [term]
            }
        }
    return pod


def container_of(
    role: Role, spec: ClusterSpec, environment: Mapping[str, str]
) -> Manifest:
    """Build a container with the certificate of a role, and one writable folder."""
    variables = {
        **spec.environment,
        **pod_environment(role, CERTIFICATES),
        **environment,
        IMAGE_VARIABLE: spec.image,
        "DASK_TEMPORARY_DIRECTORY": SCRATCH,
        "HOME": SCRATCH,
        "TMPDIR": SCRATCH,
    }
    return {
        "name": role,
        "image": spec.image,
        "imagePullPolicy": "IfNotPresent",  # its tag or digest is fixed
        "env": [{"name": key, "value": value} for key, value in variables.items()],
        # Keeps the end of its log after the container has ended.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "scratch", "mountPath": SCRATCH},
            {"name": "tls", "mountPath": CERTIFICATES, "readOnly": True},
        ],
    }


def pod_of(
    name: str,
    spec: ClusterSpec,
    container: Manifest,
    *,
    nodes: str,
    scratch: str,
    grace: int,
) -> Manifest:
    """Build the pod of a container, without a service account's token.

    Parameters
    ----------
    name : str
        Of the Dask cluster.
    spec : ClusterSpec
    container : dict
        As `container_of` builds it.
    nodes : str
        The kind of nodes that it runs on.
    scratch : str
        Size of its volume.
    grace : int
        Seconds between SIGTERM and SIGKILL.
    """
    items = [{"key": file, "path": file} for file in role_files(container["name"])]
    secret = {"secretName": f"{name}-tls", "items": items, "defaultMode": 0o440}
    pod = {
        "automountServiceAccountToken": False,
        "containers": [container],
        "enableServiceLinks": False,
        "securityContext": pod_security(),
        "serviceAccountName": spec.service_account or name,
        "terminationGracePeriodSeconds": grace,
        "volumes": [
            {"name": "scratch", "emptyDir": {"sizeLimit": scratch}},
            {"name": "tls", "secret": secret},
        ],
    }
    if spec.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": one} for one in spec.image_pull_secrets]
    kind = node_kind(spec, nodes)
    if kind is not None:
        pod["nodeSelector"] = dict(kind.selector)
        pod["tolerations"] = [
            {
                "key": taint.key,
                "operator": "Exists" if taint.value is None else "Equal",
                **taint.model_dump(exclude={"key"}, exclude_none=True),
            }
            for taint in kind.tolerations
        ]
    return pod


def resources(cpu: str, memory: str) -> Manifest:
    """Return equal requests and limits."""
    amounts = {"cpu": cpu, "memory": memory}
    return {"limits": amounts, "requests": dict(amounts)}


def _health(port: str, **settings: int) -> Manifest:
    return {"httpGet": {"port": port, "path": "/health"}, **settings}


def _service(name: str) -> Manifest:
    return {
        "type": "ClusterIP",
        "selector": _selector(name, "scheduler"),
        "ports": [
            {
                "name": port_name,
                "protocol": "TCP",
                "port": port,
                "targetPort": port_name,
            }
            for port_name, port in (
                ("tcp-comm", COMM_PORT),
                ("http-dashboard", HTTP_PORT),
            )
        ],
    }


def _selector(name: str, component: str) -> dict[str, str]:
    return {CLUSTER_LABEL: name, COMPONENT_LABEL: component}


def labels_of(name: str, spec: ClusterSpec) -> dict[str, str]:
    """Return the labels of the objects of a Dask cluster."""
    return {
        **spec.labels,
        "app.kubernetes.io/managed-by": "dask-hpsearch",
        CLUSTER_LABEL: name,
    }
