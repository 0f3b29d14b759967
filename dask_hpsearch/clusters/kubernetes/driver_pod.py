"""A driver's access to Kubernetes from its pod: logs, problems and the end of its cluster."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, TypeVar

from dask_hpsearch.clusters.kubernetes import job_control
from dask_hpsearch.clusters.kubernetes.api import connected
from dask_hpsearch.clusters.kubernetes.driver_job import (
    DriverEnd,
    end_of,
    jobs_selector,
    workers_of,
)
from dask_hpsearch.clusters.kubernetes.lifecycle import Lifecycle
from dask_hpsearch.clusters.kubernetes.manifests import ENDS_ANNOTATION
from dask_hpsearch.clusters.kubernetes.pod_logs import PodLogs
from dask_hpsearch.clusters.kubernetes.pod_status import problems_of
from dask_hpsearch.engine.cluster_features import ClusterFeatures
from dask_hpsearch.exceptions import ClusterError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from dask_hpsearch.clusters.kubernetes.api import KubernetesApi
    from dask_hpsearch.clusters.kubernetes.diagnosis import Problem
    from dask_hpsearch.exceptions import HPSearchError

Answer = TypeVar("Answer")
_ALIVE = ("Pending", "Running")
_logger = logging.getLogger(__name__)


class DriverPod(ClusterFeatures):
    """The pod of a driver, which represents the cluster there.

    Parameters
    ----------
    cluster, namespace : str
        The Dask cluster that runs the fits.
    job : str
        The driver's Job.
    """

    on_kubernetes = True

    def __init__(self, cluster: str, namespace: str, job: str) -> None:
        self.cluster = cluster
        self._namespace = namespace
        self._job = job

    def logs(
        self,
        run_id: str,
        add_line: Callable[[str, str, str], None],
        since: Mapping[str, str],
    ) -> PodLogs:
        """Follow the logs of the cluster's pods; a context manager."""
        connection = {"namespace": self._namespace}
        return PodLogs(self.cluster, run_id, connection, add_line, since=since)

    def has_cluster(self) -> bool:
        """Whether the cluster exists; True if Kubernetes does not answer."""

        async def look(api: KubernetesApi) -> bool:
            found = await api.get("DaskCluster", self.cluster)
            return found is not None and "deletionTimestamp" not in found["metadata"]

        try:
            return self._run(look)
        except ClusterError as error:
            _logger.warning("it is not known whether the cluster exists: %s", error)
            return True

    def end(self) -> None:
        """Delete this Job; before, the cluster, if it ends with its last run.

        Raises
        ------
        ClusterError
            If Kubernetes refuses.
        """

        async def end(api: KubernetesApi) -> None:
            cluster = await api.get("DaskCluster", self.cluster)
            if cluster is not None and _ends_with_runs(cluster):
                others = await self._others(api)
                if others:
                    _logger.info("the cluster stays for %s", ", ".join(others))
                else:
                    _logger.info("the cluster %s ends with its run", self.cluster)
                    await api.delete("DaskCluster", self.cluster)
            await api.delete("Job", self._job)

        self._run(end)

    def problems(self) -> list[Problem]:
        """Return the problems of the cluster's pods, and of this Job's."""

        async def look(api: KubernetesApi) -> list[Problem]:
            return await problems_of(api, self.cluster, job=self._job)

        return self._run(look)

    def why_no_workers(self, *, permanent: bool = False) -> HPSearchError | None:
        """Return an error that says why no worker runs, as clusters do."""

        async def ask(api: KubernetesApi) -> HPSearchError | None:
            return await Lifecycle(api, self.cluster).why_no_workers(
                permanent=permanent
            )

        return self._run(ask)

    def earlier_ends(self) -> list[DriverEnd]:
        """Return how earlier pods of this Job have ended, oldest first."""

        async def look(api: KubernetesApi) -> list[DriverEnd]:
            return [end_of(*one) for one in await job_control.ends_of(api, self._job)]

        try:
            return self._run(look)
        except ClusterError as error:
            _logger.warning("the ends of earlier pods are not known: %s", error)
            return []

    def scale(self, n: int) -> None:
        """Change the cluster's number of workers, and end adaptive scaling.

        Raises
        ------
        ClusterError
            If Kubernetes refuses.
        """

        async def scale(api: KubernetesApi) -> None:
            await api.delete("DaskAutoscaler", self.cluster)
            change = {"spec": {"worker": {"replicas": n}}}
            await api.patch("DaskWorkerGroup", workers_of(self.cluster), change)

        self._run(scale)

    async def _others(self, api: KubernetesApi) -> list[str]:
        """Return the names of other drivers on the cluster that have not ended."""
        return [
            pod["metadata"]["name"]
            for pod in await api.list("Pod", jobs_selector(self.cluster))
            if pod["status"].get("phase") in _ALIVE
            and pod["metadata"]["labels"].get("job-name") != self._job
        ]

    def _run(self, function: Callable[[KubernetesApi], Awaitable[Answer]]) -> Answer:
        async def run() -> Answer:
            async with connected(namespace=self._namespace) as api:
                return await function(api)

        return asyncio.run(run())


def _ends_with_runs(cluster: dict[str, Any]) -> bool:
    annotations = cluster["metadata"].get("annotations") or {}
    return bool(annotations.get(ENDS_ANNOTATION) == "true")
