"""What a driver in a pod does with Kubernetes: keep logs, look at its cluster, and end it."""

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
_LIVING = ("Pending", "Running")
_logger = logging.getLogger(__name__)


class DriverPlace(ClusterFeatures):
    """Where a driver's pod is: stands for the cluster, which it asks of Kubernetes.

    Parameters
    ----------
    cluster, namespace : str
        The Dask cluster on which it drives.
    job : str
        Its own Job.
    """

    on_kubernetes = True

    def __init__(self, cluster: str, namespace: str, job: str) -> None:
        self.cluster = cluster
        self._namespace = namespace
        self._job = job

    def logs(
        self,
        run_id: str,
        take: Callable[[str, str, str], None],
        since: Mapping[str, str],
    ) -> PodLogs:
        """Follow the cluster's pods; a context manager."""
        where = {"namespace": self._namespace}
        return PodLogs(self.cluster, run_id, where, take, since=since)

    def has_cluster(self) -> bool:
        """Whether the cluster is there, as far as can be told."""

        async def look(api: KubernetesApi) -> bool:
            found = await api.get("DaskCluster", self.cluster)
            return found is not None and "deletionTimestamp" not in found["metadata"]

        try:
            return self._asked(look)
        except ClusterError as error:
            _logger.warning("whether the cluster is there is not known: %s", error)
            return True

    def end(self) -> None:
        """End the cluster, if that is asked and nobody else needs it; then this Job.

        Raises
        ------
        ClusterError
            If Kubernetes does not do it.
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

        self._asked(end)

    def problems(self) -> list[Problem]:
        """Return what is wrong with the cluster's pods, and with those of this Job."""

        async def look(api: KubernetesApi) -> list[Problem]:
            return await problems_of(api, self.cluster, job=self._job)

        return self._asked(look)

    def why_no_workers(self, *, permanent: bool = False) -> HPSearchError | None:
        """Return an error that says what keeps workers from running, as clusters do."""

        async def ask(api: KubernetesApi) -> HPSearchError | None:
            return await Lifecycle(api, self.cluster).why_no_workers(
                permanent=permanent
            )

        return self._asked(ask)

    def earlier_ends(self) -> list[DriverEnd]:
        """Return how earlier pods of this Job have ended, oldest first."""

        async def look(api: KubernetesApi) -> list[DriverEnd]:
            return [end_of(*one) for one in await job_control.ends_of(api, self._job)]

        try:
            return self._asked(look)
        except ClusterError as error:
            _logger.warning("how earlier pods have ended is not known: %s", error)
            return []

    def scale(self, n: int) -> None:
        """Change how many workers the cluster is to have; adapting ends.

        Raises
        ------
        ClusterError
            If Kubernetes does not do it.
        """

        async def scale(api: KubernetesApi) -> None:
            await api.delete("DaskAutoscaler", self.cluster)
            change = {"spec": {"worker": {"replicas": n}}}
            await api.patch("DaskWorkerGroup", workers_of(self.cluster), change)

        self._asked(scale)

    async def _others(self, api: KubernetesApi) -> list[str]:
        """Name the other drivers on the cluster that have not ended."""
        return [
            pod["metadata"]["name"]
            for pod in await api.list("Pod", jobs_selector(self.cluster))
            if pod["status"].get("phase") in _LIVING
            and pod["metadata"]["labels"].get("job-name") != self._job
        ]

    def _asked(self, function: Callable[[KubernetesApi], Awaitable[Answer]]) -> Answer:
        async def run() -> Answer:
            async with connected(namespace=self._namespace) as api:
                return await function(api)

        return asyncio.run(run())


def _ends_with_runs(cluster: dict[str, Any]) -> bool:
    annotations = cluster["metadata"].get("annotations") or {}
    return bool(annotations.get(ENDS_ANNOTATION) == "true")
