"""A Dask cluster on Kubernetes for searches."""

from __future__ import annotations

import asyncio
import contextlib
import html
import json
import logging
import os
import re
import uuid
from typing import TYPE_CHECKING, Any, ClassVar

from dask_kubernetes.operator import KubeCluster
from dask_kubernetes.operator.kubecluster.kubecluster import CreateMode
from distributed.core import Status, rpc
from distributed.deploy.cluster import Cluster
from distributed.utils import Log, Logs, format_dashboard_link

from dask_hpsearch.clusters import tls
from dask_hpsearch.clusters.kubernetes import api as kubernetes_api
from dask_hpsearch.clusters.kubernetes import job_control, manifests
from dask_hpsearch.clusters.kubernetes.lifecycle import Lifecycle
from dask_hpsearch.clusters.kubernetes.port_forward import PortForward
from dask_hpsearch.clusters.versions import (
    check_versions,
    versions_here,
    versions_of,
)
from dask_hpsearch.concurrency import Deadline
from dask_hpsearch.config.load import load_spec
from dask_hpsearch.engine.cluster_features import ClusterFeatures
from dask_hpsearch.exceptions import (
    ClusterAccessError,
    ClusterNotFoundError,
    ClusterUnreachableError,
    HPSearchError,
    KubernetesRightsError,
    SpecError,
)
from dask_hpsearch.paths import data_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from distributed.security import Security

    from dask_hpsearch.clusters.kubernetes.diagnosis import Problem
    from dask_hpsearch.clusters.kubernetes.driver_job import DriverJobSpec
    from dask_hpsearch.config.cluster import ClusterSpec

_logger = logging.getLogger(__name__)
_LINK = re.compile(r'<a href="(?P<link>[^"]*)"[^>]*>[^<]*</a>')
_RETRY_INTERVAL = 0.2
_CLOSE_TIMEOUT = 90.0


def kube_cluster(
    spec: str | Path | Mapping[str, Any] | ClusterSpec | None = None,
    *,
    name: str | None = None,
    n_workers: int | None = None,
    image: str | None = None,
    namespace: str | None = None,
    kubeconfig: str | None = None,
    context: str | None = None,
    timeout: float = 120.0,
    quiet: bool = False,
) -> SearchKubeCluster:
    """Start a Dask cluster on Kubernetes, or attach to one by its name.

    Every worker is a pod with slots, in which fits run. Client, scheduler and workers
    communicate with mutual TLS, with certificates of this cluster only.

    Parameters
    ----------
    spec : str, Path, mapping or ClusterSpec, optional
        As in the files of ``cluster_specs/``. Omitted: attach to the cluster ``name``, which
        stays when this object closes.
    name : str, optional
        Name of the Dask cluster; default: a unique one.
    n_workers : int, optional
        Initial number of workers; default: the spec's ``workers.initial``.
    image, namespace : str, optional
        Replace the spec's.
    kubeconfig, context : str, optional
        Access to Kubernetes; default: as kubectl.
    timeout : float
        Seconds until the scheduler must be ready.
    quiet : bool
        Whether to print nothing while it starts.

    Returns
    -------
    SearchKubeCluster
        dask-kubernetes' ``KubeCluster``; a context manager.

    Raises
    ------
    SpecError
        If the spec is invalid.
    ClusterError
        If the cluster cannot be created or reached. Nothing is left.
    VersionSkewError
        If the image has other versions than the client.

    Examples
    --------
    A Kubernetes cluster is needed.

    >>> from dask_hpsearch import kube_cluster
    >>> with kube_cluster("cluster_specs/local-lab.yaml") as cluster:  # doctest: +SKIP
    ...     client = cluster.get_client()
    """
    where = {"kubeconfig": kubeconfig, "context": context}
    options: dict[str, Any] = {"timeout": timeout, "quiet": quiet, "where": where}
    if spec is None:
        if name is None:
            msg = "give a spec for a new cluster, or the name of an existing one"
            raise ValueError(msg)
        manifests.check_name(name)
        return SearchKubeCluster(name=name, namespace=namespace, **options)
    changes = {"image": image, "namespace": namespace}
    loaded = load_spec(spec, **{k: v for k, v in changes.items() if v is not None})
    if n_workers is None:
        n_workers = loaded.workers.initial
    _check_count(n_workers, loaded)
    if name is not None:
        manifests.check_name(name)
    return SearchKubeCluster(
        name=name or f"search-{uuid.uuid4().hex[:8]}",
        namespace=loaded.namespace,
        spec=loaded,
        n_workers=n_workers,
        **options,
    )


class SearchKubeCluster(KubeCluster, ClusterFeatures):  # type: ignore[misc]  # no types
    """dask-kubernetes' cluster, with TLS, slots, and unprivileged pods.

    Created by `kube_cluster`. ``scale``, ``adapt``, ``get_logs``, ``dashboard_link``,
    ``get_client`` are Dask's.

    Attributes
    ----------
    security : Security
        TLS settings of clients; ``Client(cluster)`` uses them.
    """

    security: Security
    namespace: str | None
    n_workers: int
    image: str
    status: Status
    on_kubernetes = True
    _stays_for_runs = True
    _instances: ClassVar[Any] = KubeCluster._instances  # noqa: SLF001 (closed at exit)

    def __init__(
        self,
        *,
        name: str,
        namespace: str | None = None,
        spec: ClusterSpec | None = None,
        n_workers: int | None = None,
        where: dict[str, Any] | None = None,
        timeout: float = 120.0,
        quiet: bool = False,
        **options: Any,
    ) -> None:
        self.spec = spec
        self._timeout = timeout
        self._where = dict(where or {})
        self._forward: PortForward | None = None
        self._lifecycle: Lifecycle | None = None
        create = CreateMode.CREATE_ONLY if spec else CreateMode.CONNECT_ONLY
        settings: dict[str, Any] = {
            "create_mode": create,
            "shutdown_on_close": spec is not None,
            "resource_timeout": int(timeout),
        }
        super().__init__(
            name=name,
            namespace=namespace,
            n_workers=n_workers,
            quiet=quiet,
            **(settings | options),
        )

    @property
    def dashboard_link(self) -> str:
        """URL of Dask's dashboard on this machine; empty if there is none."""
        if self._forward is None or not self._forward.is_alive:
            return ""
        port = self._forward.port(manifests.DASHBOARD_PORT)
        return str(format_dashboard_link("127.0.0.1", port))

    def _repr_html_(self, cluster_status: Any = None) -> str:
        """Return Dask's HTML, with only the dashboard link that works from here.

        The links of scheduler and workers have addresses of pods.
        """
        text = str(super()._repr_html_(cluster_status))
        return without_other_links(text, self.dashboard_link)

    @property
    def attach_options(self) -> dict[str, Any]:
        """Arguments of `kube_cluster` to attach to this cluster from another process."""
        return {"name": self.name, **self._where}

    def why_no_workers(self, *, permanent: bool = False) -> HPSearchError | None:
        """Return an error that says why workers do not run; None if there is no problem.

        Parameters
        ----------
        permanent : bool
            Whether to return only problems that do not pass by themselves.
        """
        error: HPSearchError | None = self.sync(self._why_no_workers, permanent)
        return error

    async def _why_no_workers(self, permanent: bool) -> HPSearchError | None:  # noqa: FBT001
        lifecycle: Lifecycle = self._needed(self._lifecycle)
        return await lifecycle.why_no_workers(permanent=permanent)

    def problems(self) -> list[Problem]:
        """Return the current problems of the pods of scheduler and workers."""
        found: list[Problem] = self.sync(self._problems)
        return found

    async def _problems(self) -> list[Problem]:
        lifecycle: Lifecycle = self._needed(self._lifecycle)
        return await lifecycle.problems()

    @property
    def runs_drivers(self) -> bool:
        """Whether it can run drivers beside its workers: its spec must be known."""
        return self.spec is not None

    def start_driver(self, job: DriverJobSpec) -> dict[str, Any]:
        """Start a Job that drives a run; return the options to access Kubernetes."""

        async def start() -> None:
            lifecycle, spec = self._parts()
            await job_control.start(lifecycle.api, self.name, spec, job)

        self.sync(start)
        return dict(self._where)

    def end_with_runs(self) -> None:
        """Let the cluster be deleted as soon as it has no active run."""

        async def annotate() -> None:
            lifecycle, _ = self._parts()
            await lifecycle.end_with_runs()

        self.sync(annotate)

    def end(self) -> None:
        """Close, and delete the cluster with its runs, also if it was attached."""
        self.shutdown_on_close, self._stays_for_runs = True, False
        self.close()

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        """Close; after an error delete the cluster even if runs are active."""
        if isinstance(error, (Exception, KeyboardInterrupt)):
            self._stays_for_runs = False
        self.close()

    async def _start(self) -> None:
        """Create or find the cluster, and connect to it.

        Upstream's method also draws a table of components, for which it requests each of
        them every second.
        """
        try:
            api = await kubernetes_api.connect(namespace=self.namespace, **self._where)
            self.namespace = api.namespace
            self._where["namespace"] = api.namespace
            self._lifecycle = Lifecycle(api, self.name)
            if self.create_mode == CreateMode.CONNECT_ONLY:
                await self._connect_cluster()
            else:
                await self._create_cluster()
            await Cluster._start(self)  # noqa: SLF001
        except BaseException as error:
            _logger.debug("the cluster %s did not start: %r", self.name, error)
            await self._close(wait=self._began)
            raise
        self._log(f"Ready, dashboard available at {self.dashboard_link}")

    def _log(self, log: str) -> None:
        """Log a step, and print it unless quiet; upstream's draws a table instead."""
        Cluster._log(self, log)  # noqa: SLF001

    _began = False

    async def _create_cluster(self) -> None:
        lifecycle, spec = self._parts()
        certificates = tls.issue(self.name)
        self._log(f"Creating the Dask cluster {self.name}")
        await lifecycle.create(spec, certificates, self.n_workers)
        self._began = True
        certificates.of("client").save(self._folder())
        self._log("Waiting for the scheduler")
        await lifecycle.wait_for_scheduler(self._timeout)
        await self._connect(spec.image)

    async def _connect_cluster(self) -> None:
        lifecycle = self._needed(self._lifecycle)
        found = await lifecycle.find()
        if found is None:
            msg = (
                f"there is no cluster {self.name!r} in namespace {self.namespace!r}: "
                "check the name, or give a spec to create one"
            )
            raise ClusterNotFoundError(msg)
        worker = found["spec"]["worker"]
        self.image = worker["spec"]["containers"][0]["image"]
        self.spec = spec_of(found)
        self.n_workers = worker["replicas"]
        if not (self._folder() / tls.CA_FILE).is_file():
            certificates = await lifecycle.read_certificates()
            certificates.of("client").save(self._folder())
        await lifecycle.wait_for_scheduler(self._timeout)
        await self._connect_to_current(lifecycle)

    async def _connect_to_current(self, lifecycle: Lifecycle) -> None:
        """Connect; the saved certificates may be of an earlier cluster of this name."""
        try:
            await self._connect(self.image)
        except ClusterAccessError as error:
            if self._forward is not None:
                await asyncio.to_thread(self._forward.close)
            try:
                certificates = await lifecycle.read_certificates()
            except KubernetesRightsError as refused:
                error.add_note(
                    f"(the certificates in {self._folder()} may belong to an earlier cluster "
                    f"{self.name}; the current ones cannot be read: {refused}. Attach as the "
                    "user who created the cluster)"
                )
                raise error from refused
            if certificates.are_saved(self._folder()):
                raise
            _logger.info(
                "the cluster %s was created again: using its new certificates",
                self.name,
            )
            certificates.save(self._folder())
            await self._connect(self.image)

    async def _connect(self, image: str) -> None:
        """Connect to the scheduler; check its certificate and its versions."""
        self.security = tls.client_security(self._folder())
        address = await self._scheduler_address()
        await self._wait_until_reachable(address)
        self.scheduler_comm = rpc(
            address, connection_args=self.security.get_connection_args("client")
        )
        theirs = await versions_of(self.scheduler_comm)
        check_versions(versions_here(), theirs, image)

    async def _scheduler_address(self) -> str:
        """Return the address of the service inside Kubernetes, else of a forwarded port."""
        if os.environ.get("KUBERNETES_SERVICE_HOST"):
            return manifests.scheduler_address(self.name, str(self.namespace))
        forward = PortForward(
            f"{self.name}-scheduler",
            [manifests.TUNNEL_PORT, manifests.DASHBOARD_PORT],
            self._where,
        )
        self._forward = await asyncio.to_thread(forward.start)
        return f"tls://127.0.0.1:{self._forward.port(manifests.TUNNEL_PORT)}"

    async def _wait_until_reachable(self, address: str) -> None:
        """Wait until the scheduler answers, and check its certificate."""
        deadline = Deadline(self._timeout)
        for timeout in tls.response_timeouts():
            try:
                await asyncio.to_thread(
                    tls.check_scheduler, address, self.security, timeout=timeout
                )
            except ClusterUnreachableError:
                if deadline.expired:
                    raise
                await asyncio.sleep(_RETRY_INTERVAL)
            else:
                return

    async def _close(
        self,
        timeout: float = _CLOSE_TIMEOUT,
        *,
        wait: bool = True,
    ) -> None:
        if self.status == Status.closed:
            return
        with contextlib.suppress(OSError):
            await Cluster._close(self)  # noqa: SLF001
        self.status = Status.closed
        forward, self._forward = self._forward, None
        if forward is not None:
            await asyncio.to_thread(forward.close)
        if self.shutdown_on_close and wait and self._lifecycle is not None:
            left = self._stays_for_runs and await self._lifecycle.leave_to_runs()
            if not left:
                await self._lifecycle.delete(min(timeout, _CLOSE_TIMEOUT))
                tls.forget(self._folder())
        await self._disconnect()

    async def _disconnect(self) -> None:
        """Close the connection to Kubernetes, unless other clusters share it."""
        if self._lifecycle is None:
            return
        self._lifecycle.cancel_pending()
        api, self._lifecycle = self._lifecycle.api, None
        users = [one for one in self._instances if isinstance(one, SearchKubeCluster)]
        if not any(user.uses(api.connection) for user in users):
            await api.close()

    def uses(self, connection: Any) -> bool:
        """Whether this cluster uses a connection to Kubernetes."""
        lifecycle = self._lifecycle
        return lifecycle is not None and lifecycle.api.connection is connection

    async def _scale(self, n: int, worker_group: str = "default") -> None:
        if self.spec is not None:
            _check_count(n, self.spec)
        await self._needed(self._lifecycle).scale(n, worker_group)

    async def _adapt(
        self, minimum: int | None = None, maximum: int | None = None
    ) -> None:
        workers = None if self.spec is None else self.spec.workers
        if minimum is None:
            minimum = workers.min if workers else 0
        if maximum is None:
            maximum = workers.max if workers else max(minimum, 1)
        if self.spec is not None:
            _check_count(minimum, self.spec)
            _check_count(maximum, self.spec)
        await self._needed(self._lifecycle).adapt(minimum, maximum)

    async def _get_logs(self) -> Logs:
        lifecycle = self._needed(self._lifecycle)
        logs = Logs()
        for pod in await lifecycle.pods():
            name = pod["metadata"]["name"]
            logs[name] = Log(await lifecycle.log_of(name))
        return logs

    def _folder(self) -> Path:
        """Return the folder of this user's certificates of the cluster."""
        return data_folder() / "clusters" / f"{self.namespace}.{self.name}"

    def _parts(self) -> tuple[Lifecycle, ClusterSpec]:
        return self._needed(self._lifecycle), self._needed(self.spec)

    @staticmethod
    def _needed(part: Any) -> Any:
        if part is None:
            msg = "the cluster has not started"
            raise HPSearchError(msg)
        return part


def without_other_links(text: str, link: str) -> str:
    """Remove the links of dashboards from a page, except one.

    Parameters
    ----------
    text : str
        HTML, as Dask writes it.
    link : str
        The one to keep; empty: none.
    """

    def kept(found: re.Match[str]) -> str:
        if link and html.unescape(found["link"]) == link:
            return found[0]
        return "none from here" if found["link"] != link else "none"

    return _LINK.sub(kept, text)


def _check_count(n_workers: int, spec: ClusterSpec) -> None:
    if not 0 <= n_workers <= spec.workers.max:
        msg = (
            f"the number of workers must be from 0 to {spec.workers.max} (workers.max in the "
            f"spec), got {n_workers}: raise the maximum, or ask for fewer"
        )
        raise ValueError(msg)


def spec_of(cluster: dict[str, Any]) -> ClusterSpec | None:
    """Read the spec of a DaskCluster from its annotation; None if there is none."""
    annotations = cluster["metadata"].get("annotations") or {}
    with contextlib.suppress(KeyError, ValueError, SpecError):  # or of another version
        return load_spec(json.loads(annotations[manifests.SPEC_ANNOTATION]))
    return None
