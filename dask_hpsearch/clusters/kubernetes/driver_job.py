"""The Kubernetes Job of a run's driver, built from the cluster's spec: pure values.

The Job starts another pod when the driver's pod is lost. It owns a Secret with the run's
private key, a service account with the rights that the driver needs, and a network policy
that allows no connection to the pod. Kubernetes deletes these with the Job.
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
    from collections.abc import Mapping, Sequence
    from typing import Self

    from dask_hpsearch.clusters.kubernetes.diagnosis import Problem
    from dask_hpsearch.config.cluster import ClusterSpec

Manifest = dict[str, Any]

COMPONENT = "driver"
RUN_LABEL = "dask-hpsearch/run"
KEY_FOLDER = "/etc/dask-hpsearch/run"
_KEY_FILE = "signing-key.pem"
# Lost pods count too: a run of several days on spot nodes may lose some.
_BACKOFF_LIMIT = 10
# A refit that exceeds its memory limit does so again.
_MAX_OOM_KILLS = 3
_GRACE_S = 30
# For a Job that has failed: one that has succeeded deletes itself.
_TTL_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class DriverJobSpec:
    """The run that a Job drives, and the program that drives it.

    Attributes
    ----------
    run_id : str
    job : str
        Name of the Job, unique.
    module : str
        The driver's program, as ``python -m`` takes it.
    request : dict
        The program's argument as JSON values; it can be read in the pod's spec.
    signing_key : str
        The run's private key, as PEM.
    """

    run_id: str
    job: str
    module: str
    request: dict[str, Any]
    signing_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class PodEnvironment:
    """What a driver finds in its pod.

    Attributes
    ----------
    address : str
        Of the scheduler.
    certificates, signing_key, scratch : str
        Paths of the client's certificates, of the run's private key, and of the folder
        to write to.
    cluster, namespace, job : str
        Names of the Dask cluster and of the Job.
    """

    address: str
    certificates: str
    signing_key: str
    scratch: str
    cluster: str
    namespace: str
    job: str

    def to_json(self) -> dict[str, Any]:
        """Return JSON values to add to those of a driver's request."""
        return {
            "address": self.address,
            "certificates": self.certificates,
            "signing_key": self.signing_key,
            "scratch": self.scratch,
            "place": {
                "cluster": self.cluster,
                "namespace": self.namespace,
                "job": self.job,
            },
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_json` returned."""
        return cls(
            address=values["address"],
            certificates=values["certificates"],
            signing_key=values["signing_key"],
            scratch=values["scratch"],
            **values["place"],
        )


@dataclass(frozen=True, slots=True)
class DriverEnd:
    """How a pod of a driver's Job has ended.

    Attributes
    ----------
    message, reason : str
        As of a `diagnosis.Problem`.
    memory : str
        The pod's memory limit; empty if it had none.
    """

    message: str
    reason: str
    memory: str = ""


def end_of(pod: Manifest, problem: Problem) -> DriverEnd:
    """Describe how a driver's pod has ended."""
    limits = pod["spec"]["containers"][0].get("resources", {}).get("limits", {})
    return DriverEnd(problem.message, problem.reason, limits.get("memory", ""))


def why_given_up(ends: Sequence[DriverEnd], *, used: int, doing: str) -> str | None:
    """Return why another pod of a driver cannot help; None if it may.

    Parameters
    ----------
    ends : sequence of DriverEnd
        Of all pods so far.
    used : int
        The most memory that the driver has noted, in bytes; 0 if unknown.
    doing : str
        What the driver did when it ended.
    """
    killed = [end for end in ends if end.reason == "OOMKilled"]
    if len(killed) < _MAX_OOM_KILLS:
        return None
    limit = killed[-1].memory
    seen = f"; it used up to {used / 2**30:.2f} GiB" if used else ""
    more = f"{math.ceil(2 * memory_bytes(limit) / 2**30)}Gi" if limit else "more"
    return (
        f"its driver was killed {len(killed)} times because it used more memory than "
        f"{f'its limit of {limit}' if limit else 'its node has'} (OOMKilled), {doing}{seen}. "
        f"Create a cluster whose spec has driver: {{memory: {more}}}, and call "
        "resume(client) with its client; finished fits are kept"
    )


def driver_job(
    cluster: str, namespace: str, spec: ClusterSpec, job: DriverJobSpec
) -> Manifest:
    """Build the Job; it starts no pod before it gets a parallelism of 1.

    Parameters
    ----------
    cluster, namespace : str
        The Dask cluster that runs the fits.
    spec : ClusterSpec
        Of that cluster.
    job : DriverJobSpec
    """
    labels = _labels(cluster, spec, job)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": job.job, "labels": labels},
        "spec": {
            "parallelism": 0,
            "completions": 1,
            "backoffLimit": _BACKOFF_LIMIT,
            "ttlSecondsAfterFinished": _TTL_S,
            "template": {
                "metadata": {"labels": labels},
                "spec": _pod(cluster, namespace, spec, job),
            },
        },
    }


def companions(
    cluster: str, spec: ClusterSpec, job: DriverJobSpec, owner: Manifest
) -> list[Manifest]:
    """Build the objects that a Job owns.

    Parameters
    ----------
    cluster : str
    spec : ClusterSpec
    job : DriverJobSpec
    owner : dict
        The Job as Kubernetes returned it.
    """
    account = spec.driver.service_account
    metadata = {
        "name": job.job,
        "labels": _labels(cluster, spec, job),
        "ownerReferences": [
            {
                "apiVersion": owner["apiVersion"],
                "kind": owner["kind"],
                "name": job.job,
                "uid": owner["metadata"]["uid"],
            }
        ],
    }

    def made(kind: str, version: str, **content: Any) -> Manifest:
        return {"apiVersion": version, "kind": kind, "metadata": metadata, **content}

    rbac = "rbac.authorization.k8s.io"
    role = {"apiGroup": rbac, "kind": "Role", "name": job.job}
    subject = {"kind": "ServiceAccount", "name": account or job.job}
    policy = driver_policy(_selector(job))
    made_for_all = [
        made("Secret", "v1", type="Opaque", stringData={_KEY_FILE: job.signing_key}),
        made("Role", f"{rbac}/v1", rules=driver_rules(cluster, job.job)),
        made("RoleBinding", f"{rbac}/v1", roleRef=role, subjects=[subject]),
        made("NetworkPolicy", "networking.k8s.io/v1", spec=policy),
    ]
    if account is None:
        own = made("ServiceAccount", "v1", automountServiceAccountToken=False)
        made_for_all.append(own)
    return made_for_all


def driver_rules(cluster: str, job: str) -> list[Manifest]:
    """Return the rights of a driver.

    It reads the logs of the cluster's pods, looks whether the cluster exists and why its
    pods do not run, scales its workers down at the search's cost limit, deletes the cluster
    if the user has asked for that, and deletes its own Job.
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
    """Return the name of a cluster's default worker group."""
    return f"{cluster}-default"


def _pod(
    cluster: str, namespace: str, spec: ClusterSpec, job: DriverJobSpec
) -> Manifest:
    cpu = spec.driver.cpu or spec.workers.cpu
    container = container_of(
        "client", spec, _threads(cpu, spec) | cache_limit(spec)
    ) | {
        "args": ["python", "-m", job.module, _argument(cluster, namespace, job)],
        "resources": resources(cpu, spec.driver.memory or spec.workers.memory),
    }
    # A refit may need the same secrets as the fits.
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
    secret = {"secretName": job.job, "defaultMode": 0o440}
    return pod | {
        "volumes": [*pod["volumes"], {"name": "run", "secret": secret}],
        "restartPolicy": "Never",  # but another pod, perhaps on another node
        "serviceAccountName": spec.driver.service_account or job.job,
        "automountServiceAccountToken": True,
    }


def _argument(cluster: str, namespace: str, job: DriverJobSpec) -> str:
    """Return the program's argument: the request, and what the pod has."""
    environment = PodEnvironment(
        address=scheduler_address(cluster, namespace),
        certificates=CERTIFICATES,
        signing_key=f"{KEY_FOLDER}/{_KEY_FILE}",
        scratch=SCRATCH,
        cluster=cluster,
        namespace=namespace,
        job=job.job,
    )
    return json.dumps(job.request | environment.to_json())


def _threads(cpu: str, spec: ClusterSpec) -> dict[str, str]:
    """Limit a refit to the pod's CPUs: OpenMP would count those of the node."""
    name = "OMP_NUM_THREADS"
    count = math.ceil(cpu_millis(cpu) / 1000)
    return {} if name in spec.environment else {name: str(count)}


def _labels(cluster: str, spec: ClusterSpec, job: DriverJobSpec) -> dict[str, str]:
    return labels_of(cluster, spec) | _selector(job)


def _selector(job: DriverJobSpec) -> dict[str, str]:
    return {COMPONENT_LABEL: COMPONENT, RUN_LABEL: job.run_id}


def jobs_selector(cluster: str) -> str:
    """Return the label selector of a cluster's drivers, Jobs as well as pods."""
    return f"{CLUSTER_LABEL}={cluster},{COMPONENT_LABEL}={COMPONENT}"
