"""The objects of a Dask cluster in Kubernetes: created, watched, scaled, deleted."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import getpass
import logging
import socket
import time
import uuid
from typing import TYPE_CHECKING, Any

from dask_hpsearch.clusters.kubernetes import job_control, manifests, operator
from dask_hpsearch.clusters.kubernetes.api import (
    KubernetesConflictError,
    ObjectMissingError,
)
from dask_hpsearch.clusters.kubernetes.deletion import delete_cluster, ending_with_runs
from dask_hpsearch.clusters.kubernetes.diagnosis import (
    Problem,
    deployment_problem,
    first_log,
    is_ready,
    starting,
    worst,
)
from dask_hpsearch.clusters.kubernetes.pod_status import problem_of_pod, problems_of
from dask_hpsearch.clusters.tls import Certificates
from dask_hpsearch.concurrency import Deadline, poll_until_async
from dask_hpsearch.exceptions import (
    ClusterAccessError,
    ClusterError,
    ClusterExistsError,
    ClusterNotFoundError,
    HPSearchError,
    NoWorkersError,
    OperatorMissingError,
    PodStartError,
    VersionSkewError,
)

if TYPE_CHECKING:
    from dask_hpsearch.clusters.kubernetes.api import KubernetesApi
    from dask_hpsearch.config.cluster import ClusterSpec

Manifest = dict[str, Any]

_POLL_INTERVAL = 0.25
_OPERATOR_TIMEOUT = 20.0  # it acts within a second or two
_STUCK_AFTER = 5.0  # passing problems last less
_CLEANUP_TIMEOUT = 30.0
_LOG_LINES = 2000
_SETTLE_TIME = 10.0
# A driver may take so long from its last read of the DaskCluster to its end.
_ENDING_TIMEOUT = 3.0
_logger = logging.getLogger(__name__)


class Lifecycle:
    """The objects of a Dask cluster.

    Parameters
    ----------
    api : KubernetesApi
    name : str
        Of the Dask cluster.
    """

    def __init__(self, api: KubernetesApi, name: str) -> None:
        self.api = api
        self.name = name
        self._labels = f"{manifests.CLUSTER_LABEL}={name}"
        component = f"{self._labels},{manifests.COMPONENT_LABEL}="
        self._scheduler_labels = f"{component}scheduler"
        self._worker_labels = f"{component}worker"
        self._settling: asyncio.Task[None] | None = None

    async def find(self) -> Manifest | None:
        """Return the DaskCluster; None if there is none."""
        return await self.api.get("DaskCluster", self.name)

    async def create(
        self, spec: ClusterSpec, certificates: Certificates, n_workers: int
    ) -> None:
        """Create all objects; delete those created if one cannot be.

        Raises
        ------
        ClusterExistsError, OperatorMissingError, ClusterError
        """
        if await self.pods():
            raise self._taken()
        cluster = manifests.dask_cluster(self.name, self.api.namespace, spec, n_workers)
        cluster["metadata"]["annotations"][manifests.OWNER_ANNOTATION] = _owner()
        try:
            await self._dry_run(cluster, spec, certificates)
            owner = await self.api.create(cluster)
        except KubernetesConflictError as error:
            raise self._taken() from error
        except ObjectMissingError as error:
            raise self._not_found(error) from error
        try:
            for one in manifests.companions(self.name, spec, certificates, owner):
                await self.api.create(one)
        except BaseException as error:
            try:
                await self.delete(_CLEANUP_TIMEOUT)
            except ClusterError as left:
                error.add_note(f"(during the cleanup: {left})")
            raise

    async def _dry_run(
        self, cluster: Manifest, spec: ClusterSpec, certificates: Certificates
    ) -> None:
        """Check that all objects can be created, before the operator acts.

        Objects that it creates while the DaskCluster is deleted again would stay, for
        users who may not delete them (dask-kubernetes 2026.3.0).
        """
        metadata = cluster["metadata"] | {"uid": str(uuid.UUID(int=0))}
        owner = cluster | {"metadata": metadata}
        for one in manifests.companions(self.name, spec, certificates, owner):
            await self.api.create(one, dry_run=True)

    async def wait_for_scheduler(self, timeout: float) -> None:
        """Wait until the scheduler's pod is ready, or cannot start.

        Raises
        ------
        OperatorMissingError
            If no operator acts on the DaskCluster.
        PodStartError
            If its pod cannot start; with Kubernetes' message, or the end of its log.
        """
        deadline = Deadline(timeout)
        quiet_since = time.monotonic()
        seen: dict[str, float] = {}
        pending = 0
        problem: Problem | None = None
        while not deadline.expired:
            pending = await self._settle_phase(pending)
            pods = await self.api.list("Pod", self._scheduler_labels)
            if any(is_ready(pod) for pod in pods):
                return
            problem = await self._problem(pods)
            if problem is not None and problem.outlook != "wait":
                first = seen.setdefault(problem.pod, time.monotonic())
                if time.monotonic() - first >= _STUCK_AFTER:
                    raise await self._start_error(problem)
            if not pods and time.monotonic() - quiet_since > _OPERATOR_TIMEOUT:
                await self._check_operator()
                quiet_since = time.monotonic()
            await asyncio.sleep(_POLL_INTERVAL)
        if problem is not None:
            raise await self._start_error(problem)
        msg = (
            f"the scheduler of {self.name} was not ready within {timeout:g} s: look "
            f"at it with kubectl -n {self.api.namespace} describe pod "
            f"-l {self._scheduler_labels}, or give timeout= more seconds"
        )
        raise PodStartError(msg)

    async def read_certificates(self) -> Certificates:
        """Read the client's certificate from the cluster's Secret.

        Raises
        ------
        ClusterAccessError
            If there is none.
        """
        secret = await self.api.get("Secret", f"{self.name}-tls")
        if secret is None:
            msg = f"the cluster {self.name} has no Secret with certificates: it was not created by dask-hpsearch"
            raise ClusterAccessError(msg)
        files = {
            name: base64.b64decode(text).decode("ascii")
            for name, text in secret["data"].items()
        }
        return Certificates(files).of("client")

    async def scale(self, n: int, group: str) -> None:
        """Set the number of workers; ends adaptive scaling.

        Workers whose pods have not started are removed first. The operator counts all, but
        chooses among those that have joined (dask-kubernetes 2026.3.0), and would leave too
        many.
        """
        await self.api.delete("DaskAutoscaler", self.name)
        workers = await self.api.list("Deployment", self._worker_labels)
        surplus = len(workers) - n
        idle = [one for one in workers if not one["status"].get("availableReplicas")]
        for one in idle[: max(surplus, 0)]:
            await self.api.delete("Deployment", one["metadata"]["name"])
        self.cancel_pending()
        change = {"spec": {"worker": {"replicas": n}}}
        await self.api.patch("DaskWorkerGroup", f"{self.name}-{group}", change)
        if surplus > 0:
            self._settling = asyncio.ensure_future(self._settle_scale(n, group))

    async def _settle_scale(self, n: int, group: str) -> None:
        """Delete the workers that a scale-down has missed.

        The operator requests once from the scheduler which workers to remove. Workers that
        are not connected then, because they retire or restart, would stay.
        """
        await asyncio.sleep(_SETTLE_TIME)
        with contextlib.suppress(ClusterError, OSError):
            name = f"{self.name}-{group}"
            groups = await self.api.list("DaskWorkerGroup", self._labels)
            desired = [
                one["spec"]["worker"]["replicas"]
                for one in groups
                if one["metadata"]["name"] == name
            ]
            if desired != [n]:  # scaled again meanwhile
                return
            workers = await self.api.list("Deployment", self._worker_labels)
            staying = [
                one for one in workers if "deletionTimestamp" not in one["metadata"]
            ]
            # Unready ones first, then the newest.
            staying.sort(key=lambda one: one["metadata"]["creationTimestamp"])
            staying.sort(key=lambda one: not one["status"].get("availableReplicas"))
            for one in staying[n:]:
                await self.api.delete("Deployment", one["metadata"]["name"])

    async def adapt(self, minimum: int, maximum: int) -> None:
        """Let the operator scale the workers adaptively, within bounds."""
        await self.api.apply(
            {
                "apiVersion": "kubernetes.dask.org/v1",
                "kind": "DaskAutoscaler",
                "metadata": {
                    "name": self.name,
                    "labels": {manifests.CLUSTER_LABEL: self.name},
                },
                "spec": {
                    "cluster": self.name,
                    "minimum": minimum,
                    "maximum": maximum,
                },
            }
        )

    async def worker_problem(self) -> Problem | None:
        """Return the worst problem of the workers; None if there is none."""
        pods = await self.api.list("Pod", self._worker_labels)
        problems = [
            await problem_of_pod(self.api, pod) or starting(pod)
            for pod in pods
            if not is_ready(pod) and not _is_ending(pod)
        ]
        deployments = await self.api.list("Deployment", self._worker_labels)
        return worst([*problems, *map(deployment_problem, deployments)])

    async def why_no_workers(self, *, permanent: bool) -> HPSearchError | None:
        """Return an error that says why workers do not run; None if there is no problem.

        Parameters
        ----------
        permanent : bool
            Whether to return only problems that do not pass by themselves.
        """
        problem = await self.worker_problem()
        if problem is None or (permanent and not problem.lasts):
            return None
        said = f"the workers of {self.name} do not start: {await self.quoted(problem)}"
        if problem.outlook == "skew":
            return VersionSkewError(said)
        return NoWorkersError(said, lasts=problem.outlook in ("late", "stuck"))

    async def problems(self) -> list[Problem]:
        """Return the problems of scheduler and workers, including those that have ended."""
        return await problems_of(self.api, self.name)

    async def quoted(self, problem: Problem) -> str:
        """Describe a problem, with the end of the pod's log if that says more."""
        logs = [problem.log]
        for previous in (True, False) if problem.outlook == "crash" else ():
            try:
                logs.append(await self.api.logs(problem.pod, previous=previous))
            except ClusterError as error:
                _logger.debug("no log of %s: %s", problem.pod, error)
        return problem.quoted(first_log(logs))

    async def pods(self) -> list[Manifest]:
        """Return the cluster's pods."""
        return await self.api.list("Pod", self._labels)

    async def log_of(self, pod: str, lines: int = _LOG_LINES) -> str:
        """Return the end of a pod's log, or the reason why there is none."""
        try:
            return await self.api.logs(pod, lines)
        except ClusterError as error:
            return f"no log: {error}"

    async def end_with_runs(self) -> None:
        """Let the last driver delete the cluster as soon as no run needs it.

        Raises
        ------
        ClusterNotFoundError
            If it was deleted.
        """
        cluster = await self.find()
        if cluster is None:
            msg = f"the Dask cluster {self.name!r} does not exist any more: create another one"
            raise ClusterNotFoundError(msg)
        await self.api.patch("DaskCluster", self.name, ending_with_runs(cluster))

    async def leave_to_runs(self) -> bool:
        """Leave the cluster to its active runs, if there are any."""
        drivers = await job_control.under_way(self.api, self.name)
        if not drivers:
            return False
        with contextlib.suppress(
            ClusterNotFoundError
        ):  # it was deleted, they are still active
            await self.end_with_runs()
        # A driver that is ending may have read the DaskCluster before.
        drivers = await poll_until_async(
            lambda: job_control.under_way(self.api, self.name),
            lambda drivers: not drivers,
            timeout=_ENDING_TIMEOUT,
            interval=_POLL_INTERVAL,
        )
        if drivers:
            _logger.warning(
                "the cluster %s stays for %s, and is deleted when it ends",
                self.name,
                ", ".join(drivers),
            )
        return bool(drivers)

    async def delete(self, timeout: float) -> None:
        """Delete all objects, and wait until they are gone.

        Raises
        ------
        ClusterError
            If any is left after ``timeout`` seconds; it is named.
        """
        self.cancel_pending()
        await delete_cluster(self.api, self.name, timeout)

    def cancel_pending(self) -> None:
        """Cancel background work."""
        if self._settling is not None:
            self._settling.cancel()

    async def _settle_phase(self, pending: int) -> int:
        """Set the phase that the operator may have overwritten.

        Its handler that creates components ends by setting "Pending", and one that the
        new Service starts sets "Running"; nothing orders the two (dask-kubernetes
        2026.3.0). We wait for the pod, but clients that attach read the phase.
        """
        cluster = await self.find()
        phase = (cluster or {}).get("status", {}).get("phase")
        service = await self.api.get("Service", f"{self.name}-scheduler")
        if phase != "Pending" or service is None:
            return 0
        if pending >= 2:  # not just delayed  # noqa: PLR2004
            await self.api.patch(
                "DaskCluster", self.name, {"status": {"phase": "Running"}}
            )
            return 0
        return pending + 1

    async def _problem(self, pods: list[Manifest]) -> Problem | None:
        for pod in pods:
            found = await problem_of_pod(self.api, pod)
            if found is not None:
                return found
        if not pods:
            for deployment in await self.api.list("Deployment", self._scheduler_labels):
                found = deployment_problem(deployment)
                if found is not None:
                    return found
        return None

    async def _start_error(self, problem: Problem) -> PodStartError:
        said = await self.quoted(problem)
        return PodStartError(
            f"the scheduler of {self.name} does not start: {said}",
            lasts=problem.outlook in ("late", "stuck"),
        )

    async def _check_operator(self) -> None:
        """Check that an operator acts on the DaskCluster, or is starting."""
        cluster = await self.find()
        if cluster is None or cluster.get("status", {}).get("phase"):
            return
        if not await operator.is_starting(self.api):
            msg = (
                f"no operator acts on the DaskCluster {self.name}: check the Dask operator with "
                "dask-hpsearch operator status"
            )
            raise OperatorMissingError(msg)

    def _taken(self) -> ClusterExistsError:
        return ClusterExistsError(
            f"there is a cluster {self.name!r}, or pods of one, in namespace "
            f"{self.api.namespace!r}: attach to it with kube_cluster(name={self.name!r}), "
            "or choose another name"
        )

    def _not_found(self, error: ObjectMissingError) -> ClusterError:
        if 'namespaces "' in str(error):  # else a part of the URL that is not there
            return ClusterError(
                f"there is no namespace {self.api.namespace!r}: create it with kubectl "
                f"create namespace {self.api.namespace}, or name another"
            )
        return OperatorMissingError(
            "Kubernetes has no resource DaskCluster: install the Dask operator with "
            "dask-hpsearch operator install, or use another context"
        )


def _owner() -> str:
    """Return who creates a cluster, for other users."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container without users
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def _is_ending(pod: Manifest) -> bool:
    """Whether a pod has ended, or is ending: another one replaces it."""
    failed = pod.get("status", {}).get("phase") == "Failed"
    return failed or bool(pod["metadata"].get("deletionTimestamp"))
