"""A cluster's objects in Kubernetes: made, watched, changed, and gone."""

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
_OPERATOR_WAIT_S = 20.0  # it acts within a second or two
_STUCK_FOR_S = 5.0  # longer than what passes by itself
_FINALIZER_WAIT_S = 30.0
_LOG_LINES = 2000
_SETTLED_AFTER_S = 10.0
_ENDING_TIMEOUT = (
    3.0  # that a driver may take from its last look at the cluster to its end
)
_logger = logging.getLogger(__name__)


class Lifecycle:
    """One cluster's objects.

    Parameters
    ----------
    api : KubernetesApi
    name : str
        The cluster's name.
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
        """Create all objects; those that exist are removed if one cannot be created.

        Raises
        ------
        ClusterExistsError, OperatorMissingError, ClusterError
        """
        if await self.pods():
            raise self._taken()
        cluster = manifests.dask_cluster(self.name, self.api.namespace, spec, n_workers)
        cluster["metadata"]["annotations"][manifests.OWNER_ANNOTATION] = _owner()
        try:
            await self._rehearse(cluster, spec, certificates)
            owner = await self.api.create(cluster)
        except KubernetesConflictError as error:
            raise self._taken() from error
        except ObjectMissingError as error:
            raise self._no_such_place(error) from error
        try:
            for one in manifests.companions(self.name, spec, certificates, owner):
                await self.api.create(one)
        except BaseException as error:
            try:
                await self.delete(_FINALIZER_WAIT_S)
            except ClusterError as left:
                error.add_note(f"(while tidying up: {left})")
            raise

    async def _rehearse(
        self, cluster: Manifest, spec: ClusterSpec, certificates: Certificates
    ) -> None:
        """See that all that goes with a cluster can be created, before the operator acts.

        What it makes at the moment at which the cluster goes again would stay, for users
        who may not delete that (dask-kubernetes 2026.3.0).
        """
        metadata = cluster["metadata"] | {"uid": str(uuid.UUID(int=0))}
        owner = cluster | {"metadata": metadata}
        for one in manifests.companions(self.name, spec, certificates, owner):
            await self.api.create(one, rehearsal=True)

    async def wait_for_scheduler(self, timeout: float) -> None:
        """Wait until the scheduler's pod is ready, or cannot become so.

        Raises
        ------
        OperatorMissingError
            If nothing acts on the DaskCluster.
        PodStartError
            If its pod cannot start; with what Kubernetes, or its log, says.
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
                if time.monotonic() - first >= _STUCK_FOR_S:
                    raise await self._start_error(problem)
            if not pods and time.monotonic() - quiet_since > _OPERATOR_WAIT_S:
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
            msg = f"the cluster {self.name} has no Secret with certificates: it is not ours"
            raise ClusterAccessError(msg)
        files = {
            name: base64.b64decode(text).decode("ascii")
            for name, text in secret["data"].items()
        }
        return Certificates(files).of("client")

    async def scale(self, n: int, group: str) -> None:
        """Change how many workers there are to be; adapting ends.

        Workers whose pods have not started go first. The operator counts all, but
        chooses among those that have joined (dask-kubernetes 2026.3.0), and would
        leave too many.
        """
        await self.api.delete("DaskAutoscaler", self.name)
        workers = await self.api.list("Deployment", self._worker_labels)
        surplus = len(workers) - n
        idle = [one for one in workers if not one["status"].get("availableReplicas")]
        for one in idle[: max(surplus, 0)]:
            await self.api.delete("Deployment", one["metadata"]["name"])
        self.rest()
        change = {"spec": {"worker": {"replicas": n}}}
        await self.api.patch("DaskWorkerGroup", f"{self.name}-{group}", change)
        if surplus > 0:
            self._settling = asyncio.ensure_future(self._settle_scale(n, group))

    async def _settle_scale(self, n: int, group: str) -> None:
        """Delete the workers that a scale-down has missed.

        The operator asks the scheduler once which workers are to leave. Those that are not
        connected at that moment, because they retire or restart, would stay.
        """
        await asyncio.sleep(_SETTLED_AFTER_S)
        with contextlib.suppress(ClusterError, OSError):
            name = f"{self.name}-{group}"
            groups = await self.api.list("DaskWorkerGroup", self._labels)
            wanted = [
                one["spec"]["worker"]["replicas"]
                for one in groups
                if one["metadata"]["name"] == name
            ]
            if wanted != [n]:  # scaled again meanwhile
                return
            workers = await self.api.list("Deployment", self._worker_labels)
            staying = [
                one for one in workers if "deletionTimestamp" not in one["metadata"]
            ]
            # Those that are not ready first, then those that came last.
            staying.sort(key=lambda one: one["metadata"]["creationTimestamp"])
            staying.sort(key=lambda one: not one["status"].get("availableReplicas"))
            for one in staying[n:]:
                await self.api.delete("Deployment", one["metadata"]["name"])

    async def adapt(self, minimum: int, maximum: int) -> None:
        """Let the operator choose how many workers there are, within bounds."""
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
        """Return the worst of what keeps workers from running; None if nothing does."""
        pods = await self.api.list("Pod", self._worker_labels)
        problems = [
            await problem_of_pod(self.api, pod) or starting(pod)
            for pod in pods
            if not is_ready(pod) and not _is_going(pod)
        ]
        deployments = await self.api.list("Deployment", self._worker_labels)
        return worst([*problems, *map(deployment_problem, deployments)])

    async def why_no_workers(self, *, permanent: bool) -> HPSearchError | None:
        """Return an error that says what keeps workers from running; None if nothing does.

        Parameters
        ----------
        permanent : bool
            Whether to tell only of what does not pass by itself.
        """
        problem = await self.worker_problem()
        if problem is None or (permanent and not problem.lasts):
            return None
        said = f"the workers of {self.name} do not start: {await self.quoted(problem)}"
        if problem.outlook == "skew":
            return VersionSkewError(said)
        return NoWorkersError(said, lasts=problem.outlook in ("late", "stuck"))

    async def problems(self) -> list[Problem]:
        """Return what is wrong with scheduler and workers, those that ended included."""
        return await problems_of(self.api, self.name)

    async def quoted(self, problem: Problem) -> str:
        """Say what is wrong, with the end of the pod's log if that says more."""
        logs = [problem.words]
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
        """Return the end of a pod's log; why there is none, if there is none."""
        try:
            return await self.api.logs(pod, lines)
        except ClusterError as error:
            return f"no log: {error}"

    async def end_with_runs(self) -> None:
        """Let the cluster end as soon as no run needs it; the last driver sees to that.

        Raises
        ------
        ClusterNotFoundError
            If it has ended.
        """
        cluster = await self.find()
        if cluster is None:
            msg = f"there is no cluster {self.name!r} any more: make another"
            raise ClusterNotFoundError(msg)
        await self.api.patch("DaskCluster", self.name, ending_with_runs(cluster))

    async def leave_to_runs(self) -> bool:
        """Leave the cluster to the runs that are under way on it, if there are any."""
        drivers = await job_control.under_way(self.api, self.name)
        if not drivers:
            return False
        with contextlib.suppress(ClusterNotFoundError):  # it has ended, they have not
            await self.end_with_runs()
        # A driver that has just ended may have looked at the cluster before that.
        drivers = await poll_until_async(
            lambda: job_control.under_way(self.api, self.name),
            lambda drivers: not drivers,
            timeout=_ENDING_TIMEOUT,
            interval=_POLL_INTERVAL,
        )
        if drivers:
            _logger.warning(
                "the cluster %s stays for %s, and ends with it",
                self.name,
                ", ".join(drivers),
            )
        return bool(drivers)

    async def delete(self, timeout: float) -> None:
        """Delete all objects, and wait until they are gone.

        Raises
        ------
        ClusterError
            If any is there after ``timeout`` seconds; it is named.
        """
        self.rest()
        await delete_cluster(self.api, self.name, timeout)

    def rest(self) -> None:
        """Do nothing more that was begun and not waited for."""
        if self._settling is not None:
            self._settling.cancel()

    async def _settle_phase(self, pending: int) -> int:
        """Set the phase that the operator may have overwritten itself.

        Its handler that creates components ends by setting "Pending", and one that the
        new Service starts sets "Running"; nothing orders the two (dask-kubernetes
        2026.3.0). We wait for the pod itself, but others who attach read the phase.
        """
        cluster = await self.find()
        phase = (cluster or {}).get("status", {}).get("phase")
        service = await self.api.get("Service", f"{self.name}-scheduler")
        if phase != "Pending" or service is None:
            return 0
        if pending >= 2:  # not just on its way  # noqa: PLR2004
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
        """See whether somebody acts on the cluster; an operator that starts will."""
        cluster = await self.find()
        if cluster is None or cluster.get("status", {}).get("phase"):
            return
        if not await operator.is_starting(self.api):
            msg = (
                f"nothing acts on the DaskCluster {self.name}: is the Dask operator "
                "running? Look with dask-hpsearch operator status"
            )
            raise OperatorMissingError(msg)

    def _taken(self) -> ClusterExistsError:
        return ClusterExistsError(
            f"there is a cluster {self.name!r}, or pods of one, in namespace "
            f"{self.api.namespace!r}: attach to it with kube_cluster(name={self.name!r}), "
            "or choose another name"
        )

    def _no_such_place(self, error: ObjectMissingError) -> ClusterError:
        if 'namespaces "' in str(error):  # else a part of the URL that is not there
            return ClusterError(
                f"there is no namespace {self.api.namespace!r}: create it with kubectl "
                f"create namespace {self.api.namespace}, or name another"
            )
        return OperatorMissingError(
            "Kubernetes knows no DaskCluster: install the Dask operator with "
            "dask-hpsearch operator install, or use another context"
        )


def _owner() -> str:
    """Tell who makes a cluster, for those who see it later."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container without users
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def _is_going(pod: Manifest) -> bool:
    """Whether a pod has ended, or is about to: another one takes its place."""
    failed = pod.get("status", {}).get("phase") == "Failed"
    return failed or bool(pod["metadata"].get("deletionTimestamp"))
