"""The Kubernetes objects of a run's driver, made from its cluster's spec: pure values.

A Job, which starts the driver again when its pod is lost, and what belongs to it: the run's
private key in a Secret, an account that may do what the driver does and nothing else, and a
policy that lets nobody connect to it. All of that goes with the Job.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dask_hpsearch.clusters.kubernetes.manifests import (
    CERTIFICATES,
    CLUSTER_LABEL,
    COMPONENT_LABEL,
    SCRATCH,
    cache_limit,
    container_of,
    labels_of,
    pod_of,
    resources,
    scheduler_address,
)
from dask_hpsearch.clusters.kubernetes.network_policies import driver_policy
from dask_hpsearch.config.quantities import cpu_millis, memory_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dask_hpsearch.clusters.kubernetes.diagnosis import Problem
    from dask_hpsearch.config.cluster import ClusterSpec

Manifest = dict[str, Any]

COMPONENT = "driver"
RUN_LABEL = "dask-hpsearch/run"
KEY_FOLDER = "/etc/dask-hpsearch/run"
_KEY_FILE = "signing-key.pem"
# Pods that were lost count too: a run of days on nodes that come and go may lose some.
_MOST_FAILURES = 10
# A refit that needs more than there is needs it again.
_MOST_OOM_KILLS = 3
_GRACE_S = 30
# Of a Job that failed: one that ends well removes itself.
_KEPT_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class DriverRequest:
    """What a Job is to drive, and by which program.

    Attributes
    ----------
    run_id : str
    job : str
        Name of the Job, unique.
    module : str
        The driver's program, as ``python -m`` takes it.
    request : dict
        What the program is told, as JSON values; it can be read in the pod's spec.
    signing_key : str
        The run's private key, as PEM.
    """

    run_id: str
    job: str
    module: str
    request: dict[str, Any]
    signing_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class DriverEnd:
    """How a pod of a driver's Job has ended.

    Attributes
    ----------
    message, reason : str
        As of a `diagnosis.Problem`.
    memory : str
        The most that it could use.
    """

    message: str
    reason: str
    memory: str = ""


def end_of(pod: Manifest, problem: Problem) -> DriverEnd:
    """Describe how a driver's pod has ended."""
    limits = pod["spec"]["containers"][0].get("resources", {}).get("limits", {})
    return DriverEnd(problem.message, problem.reason, limits.get("memory", ""))


def why_given_up(ends: Sequence[DriverEnd], *, used: int, doing: str) -> str | None:
    """Say why a driver is not to be tried again; None if it may be.

    Parameters
    ----------
    ends : sequence of DriverEnd
        Of all its pods so far.
    used : int
        Bytes that it was seen to use; 0 if that is not known.
    doing : str
        What it was doing then.
    """
    killed = [end for end in ends if end.reason == "OOMKilled"]
    if len(killed) < _MOST_OOM_KILLS:
        return None
    limit = killed[-1].memory
    seen = f"; {used / 2**30:.2f} GiB were seen" if used else ""
    more = f"{math.ceil(2 * memory_bytes(limit) / 2**30)}Gi" if limit else "more"
    return (
        f"its driver was ended {len(killed)} times, each time since it used more memory than "
        f"its limit of {limit or 'its node'} (OOMKilled), {doing}{seen}. It needs more than "
        f"that: make a cluster whose spec has driver: {{memory: {more}}}, and resume(client) "
        "there; what has finished is kept"
    )


def driver_job(
    cluster: str, namespace: str, spec: ClusterSpec, order: DriverRequest
) -> Manifest:
    """Make the Job; it starts nothing before it is given a parallelism of 1.

    Parameters
    ----------
    cluster, namespace : str
        The Dask cluster on which it is to drive.
    spec : ClusterSpec
        That cluster's.
    order : DriverRequest
    """
    labels = _labels(cluster, spec, order)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": order.job, "labels": labels},
        "spec": {
            "parallelism": 0,
            "completions": 1,
            "backoffLimit": _MOST_FAILURES,
            "ttlSecondsAfterFinished": _KEPT_S,
            "template": {
                "metadata": {"labels": labels},
                "spec": _pod(cluster, namespace, spec, order),
            },
        },
    }


def companions(
    cluster: str, spec: ClusterSpec, order: DriverRequest, owner: Manifest
) -> list[Manifest]:
    """Make what a Job needs, and what ends with it.

    Parameters
    ----------
    cluster : str
    spec : ClusterSpec
    order : DriverRequest
    owner : dict
        The Job as Kubernetes has it.
    """
    account = spec.driver.service_account
    metadata = {
        "name": order.job,
        "labels": _labels(cluster, spec, order),
        "ownerReferences": [
            {
                "apiVersion": owner["apiVersion"],
                "kind": owner["kind"],
                "name": order.job,
                "uid": owner["metadata"]["uid"],
            }
        ],
    }

    def made(kind: str, version: str, **content: Any) -> Manifest:
        return {"apiVersion": version, "kind": kind, "metadata": metadata, **content}

    rbac = "rbac.authorization.k8s.io"
    role = {"apiGroup": rbac, "kind": "Role", "name": order.job}
    subject = {"kind": "ServiceAccount", "name": account or order.job}
    policy = driver_policy(_selector(order))
    made_for_all = [
        made("Secret", "v1", type="Opaque", stringData={_KEY_FILE: order.signing_key}),
        made("Role", f"{rbac}/v1", rules=driver_rules(cluster, order.job)),
        made("RoleBinding", f"{rbac}/v1", roleRef=role, subjects=[subject]),
        made("NetworkPolicy", "networking.k8s.io/v1", spec=policy),
    ]
    if account is None:
        own = made("ServiceAccount", "v1", automountServiceAccountToken=False)
        made_for_all.append(own)
    return made_for_all


def driver_rules(cluster: str, job: str) -> list[Manifest]:
    """Return what a driver does with Kubernetes: all else is refused.

    It keeps the logs of the cluster's pods, sees whether the cluster is still there and what
    keeps its pods from running, lets its workers go when the search has spent what it may, and ends the cluster, if that is asked,
    and its own Job.
    """
    return [
        {"apiGroups": [""], "resources": ["pods", "events"], "verbs": ["list"]},
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["list"]},
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
        {
            "apiGroups": ["kubernetes.dask.org"],
            "resources": ["daskclusters"],
            "resourceNames": [cluster],
            "verbs": ["get", "delete"],
        },
        {
            "apiGroups": ["kubernetes.dask.org"],
            "resources": ["daskautoscalers"],
            "resourceNames": [cluster],
            "verbs": ["delete"],
        },
        {
            "apiGroups": ["kubernetes.dask.org"],
            "resources": ["daskworkergroups"],
            "resourceNames": [workers_of(cluster)],
            "verbs": ["patch"],
        },
        {
            "apiGroups": ["batch"],
            "resources": ["jobs"],
            "resourceNames": [job],
            "verbs": ["delete"],
        },
    ]


def workers_of(cluster: str) -> str:
    """Return what the operator calls a cluster's own group of workers."""
    return f"{cluster}-default"


def _pod(
    cluster: str, namespace: str, spec: ClusterSpec, order: DriverRequest
) -> Manifest:
    cpu = spec.driver.cpu or spec.workers.cpu
    request = order.request | {
        "address": scheduler_address(cluster, namespace),
        "certificates": CERTIFICATES,
        "signing_key": f"{KEY_FOLDER}/{_KEY_FILE}",
        "scratch": SCRATCH,
        "place": {"cluster": cluster, "namespace": namespace, "job": order.job},
    }
    container = container_of(
        "client", spec, _threads(cpu, spec) | cache_limit(spec)
    ) | {
        "args": ["python", "-m", order.module, json.dumps(request)],
        "resources": resources(cpu, spec.driver.memory or spec.workers.memory),
    }
    # A refit may need what the fits do.
    container["envFrom"] = [{"secretRef": {"name": one}} for one in spec.secrets]
    pod = pod_of(
        cluster,
        spec,
        container,
        nodes=spec.driver.nodes,
        scratch=spec.workers.cache,
        grace=_GRACE_S,
    )
    container["name"] = COMPONENT
    mount = {"name": "run", "mountPath": KEY_FOLDER, "readOnly": True}
    container["volumeMounts"] = [*container["volumeMounts"], mount]
    secret = {"secretName": order.job, "defaultMode": 0o440}
    return pod | {
        "volumes": [*pod["volumes"], {"name": "run", "secret": secret}],
        "restartPolicy": "Never",  # another pod, which may go to another node
        "serviceAccountName": spec.driver.service_account or order.job,
        "automountServiceAccountToken": True,
    }


def _threads(cpu: str, spec: ClusterSpec) -> dict[str, str]:
    """Let a refit use the pod's CPUs; OpenMP would count those of the node."""
    name = "OMP_NUM_THREADS"
    count = math.ceil(cpu_millis(cpu) / 1000)
    return {} if name in spec.environment else {name: str(count)}


def _labels(cluster: str, spec: ClusterSpec, order: DriverRequest) -> dict[str, str]:
    return labels_of(cluster, spec) | _selector(order)


def _selector(order: DriverRequest) -> dict[str, str]:
    return {COMPONENT_LABEL: COMPONENT, RUN_LABEL: order.run_id}


def jobs_selector(cluster: str) -> str:
    """Select the drivers of a cluster, Jobs as well as pods, by their labels."""
    return f"{CLUSTER_LABEL}={cluster},{COMPONENT_LABEL}={COMPONENT}"
