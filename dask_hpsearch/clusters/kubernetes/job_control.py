"""Jobs that drive runs: started, looked at, ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dask_hpsearch.clusters.kubernetes import driver_job
from dask_hpsearch.clusters.kubernetes.api import connected
from dask_hpsearch.clusters.kubernetes.diagnosis import Problem, pod_problem
from dask_hpsearch.clusters.kubernetes.pod_status import events_of, problem_of_pod
from dask_hpsearch.exceptions import KubernetesRightsError

if TYPE_CHECKING:
    from dask_hpsearch.clusters.kubernetes.api import KubernetesApi
    from dask_hpsearch.clusters.kubernetes.driver_job import DriverRequest
    from dask_hpsearch.config.cluster import ClusterSpec

Manifest = dict[str, Any]
_OVER = ("Complete", "Failed")
JOB_FAILED = "JobFailed"


async def start(
    api: KubernetesApi, cluster: str, spec: ClusterSpec, order: DriverRequest
) -> None:
    """Start a Job; nothing of it is left if that fails.

    Raises
    ------
    ClusterError
        If Kubernetes refuses a part of it.
    """
    job = driver_job.driver_job(cluster, api.namespace, spec, order)
    owner = await api.create(job)
    try:
        for one in driver_job.companions(cluster, spec, order, owner):
            await api.create(one)
        await api.patch("Job", order.job, {"spec": {"parallelism": 1}})
    except BaseException:
        await api.delete("Job", order.job)
        raise


async def under_way(api: KubernetesApi, cluster: str) -> list[str]:
    """Name the Jobs on a cluster that have not ended, and are not hopeless."""
    found = []
    for job in await all_of(api, cluster):
        if not _is_over(job):
            problem = await problem_of(api, job["metadata"]["name"])
            if problem is None or problem.outlook != "stuck":
                found.append(job["metadata"]["name"])
    return found


async def all_of(api: KubernetesApi, cluster: str) -> list[Manifest]:
    """Return the Jobs on a cluster; none if this user may not know of any."""
    try:
        return await api.list("Job", driver_job.jobs_selector(cluster))
    except KubernetesRightsError:
        return []


async def problem_of(api: KubernetesApi, job: str) -> Problem | None:
    """Return what keeps a Job from its end; None if nothing does.

    What became of earlier pods counts as long as there is no other that does better.
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
    """Say that Kubernetes starts no more pods for a Job, and why."""
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
    """Return the pods of a Job that have failed, oldest first, and why."""
    pods = await api.list("Pod", f"job-name={job}")
    pods.sort(key=lambda one: one["metadata"]["creationTimestamp"])
    found = [(pod, pod_problem(pod)) for pod in pods]
    return [(pod, one) for pod, one in found if one is not None and one.over]


async def look_from_here(job: str, where: dict[str, Any]) -> Problem | None:
    """Look at a Job from wherever this process is, as `problem_of` does."""
    async with connected(**where) as api:
        return await problem_of(api, job)


async def end_from_here(job: str, where: dict[str, Any]) -> None:
    """End a Job from wherever this process is."""
    async with connected(**where) as api:
        await api.delete("Job", job)


def _is_over(job: Manifest) -> bool:
    conditions = job.get("status", {}).get("conditions") or []
    ended = any(one["type"] in _OVER and one["status"] == "True" for one in conditions)
    return ended or "deletionTimestamp" in job["metadata"]
