"""Starts, inspects and deletes the Jobs that drive runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dask_hpsearch.clusters.kubernetes import driver_job
from dask_hpsearch.clusters.kubernetes.api import connected
from dask_hpsearch.clusters.kubernetes.diagnosis import Problem, pod_problem
from dask_hpsearch.clusters.kubernetes.pod_status import events_of, problem_of_pod
from dask_hpsearch.exceptions import KubernetesRightsError

if TYPE_CHECKING:
    from dask_hpsearch.clusters.kubernetes.api import KubernetesApi
    from dask_hpsearch.clusters.kubernetes.driver_job import DriverJobSpec
    from dask_hpsearch.config.cluster import ClusterSpec

Manifest = dict[str, Any]
_OVER = ("Complete", "Failed")
JOB_FAILED = "JobFailed"


async def start(
    api: KubernetesApi, cluster: str, spec: ClusterSpec, job: DriverJobSpec
) -> None:
    """Start a Job; nothing of it is left if that fails.

    Raises
    ------
    ClusterError
        If Kubernetes does not accept the Job or one of the objects that it owns.
    """
    owner = await api.create(driver_job.driver_job(cluster, api.namespace, spec, job))
    try:
        for manifest in driver_job.companions(cluster, spec, job, owner):
            await api.create(manifest)
        await api.patch("Job", job.job, {"spec": {"parallelism": 1}})
    except BaseException:
        await api.delete("Job", job.job)
        raise


async def under_way(api: KubernetesApi, cluster: str) -> list[str]:
    """Return the names of the cluster's Jobs that run or may still start."""
    found = []
    for job in await all_of(api, cluster):
        if not _has_ended(job):
            problem = await problem_of(api, job["metadata"]["name"])
            if problem is None or problem.outlook != "stuck":
                found.append(job["metadata"]["name"])
    return found


async def all_of(api: KubernetesApi, cluster: str) -> list[Manifest]:
    """Return the cluster's Jobs; none if this user has no right to list Jobs."""
    try:
        return await api.list("Job", driver_job.jobs_selector(cluster))
    except KubernetesRightsError:
        return []


async def problem_of(api: KubernetesApi, job: str) -> Problem | None:
    """Return the problem that keeps a Job from its end; None if there is none.

    It is the problem of the newest pod.
    """
    given_up = await _given_up(api, job)
    if given_up is not None:
        return given_up
    pods = await api.list("Pod", f"job-name={job}")
    if pods:
        newest = max(pods, key=lambda one: one["metadata"]["creationTimestamp"])
        return await problem_of_pod(api, newest)
    failed = [
        one for one in await events_of(api, job) if one["reason"] == "FailedCreate"
    ]
    if not failed:
        return None
    return Problem("stuck", f"no pod for {job}: {failed[-1]['message']}")


async def _given_up(api: KubernetesApi, job: str) -> Problem | None:
    """Return why Kubernetes starts no more pods for a Job; None if it does."""
    found = await api.list("Job", fields=f"metadata.name={job}")
    for condition in (
        found[0].get("status", {}).get("conditions") or [] if found else []
    ):
        if condition["type"] == "Failed" and condition["status"] == "True":
            ends = await ends_of(api, job)
            last = f"; the last one: {ends[-1][1].message}" if ends else ""
            text = (
                f"Kubernetes has given up the driver {job} "
                f"({condition.get('reason', 'Failed')}): {condition.get('message', '')}{last}"
            )
            return Problem("stuck", text, reason=JOB_FAILED, part=driver_job.COMPONENT)
    return None


async def ends_of(api: KubernetesApi, job: str) -> list[tuple[Manifest, Problem]]:
    """Return the failed pods of a Job, oldest first, with their problems."""
    pods = await api.list("Pod", f"job-name={job}")
    pods.sort(key=lambda one: one["metadata"]["creationTimestamp"])
    found = [(pod, pod_problem(pod)) for pod in pods]
    return [(pod, one) for pod, one in found if one is not None and one.over]


async def find_problem(job: str, connection: dict[str, Any]) -> Problem | None:
    """Connect to Kubernetes and return the problem of a Job, as `problem_of`."""
    async with connected(**connection) as api:
        return await problem_of(api, job)


async def delete_job(job: str, connection: dict[str, Any]) -> None:
    """Connect to Kubernetes and delete a Job."""
    async with connected(**connection) as api:
        await api.delete("Job", job)


def _has_ended(job: Manifest) -> bool:
    conditions = job.get("status", {}).get("conditions") or []
    ended = any(one["type"] in _OVER and one["status"] == "True" for one in conditions)
    return ended or "deletionTimestamp" in job["metadata"]
