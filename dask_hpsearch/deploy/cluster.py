"""A Dask cluster on GKE, in one ``with`` block."""

from __future__ import annotations

import sys
import uuid
from typing import TYPE_CHECKING, Any

from distributed.core import Status

from dask_hpsearch.clusters.kubernetes.cluster import SearchKubeCluster
from dask_hpsearch.clusters.kubernetes.manifests import check_name
from dask_hpsearch.concurrency import run_in_thread
from dask_hpsearch.config.load import load_gke_spec
from dask_hpsearch.deploy.context import DeployContext
from dask_hpsearch.deploy.deprovision import deprovision_unused
from dask_hpsearch.deploy.provision import provision, roll_back
from dask_hpsearch.exceptions import HPSearchError
from dask_hpsearch.gcp.clients import cloud_clients
from dask_hpsearch.gcp.pricing import costs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from dask_hpsearch.config.gke import GKESpec
    from dask_hpsearch.deploy.provision import ProvisionedCluster
    from dask_hpsearch.gcp.clients import CloudClients

_CLOSE_TIMEOUT = 90.0


def gke_cluster(
    spec: str | Path | Mapping[str, Any] | GKESpec,
    *,
    n_workers: int | None = None,
    name: str | None = None,
    gke_name: str | None = None,
    keep_gke: bool = False,
    bind: bool = False,
    quiet: bool = False,
    timeout: float = 300.0,
    clients: CloudClients | None = None,
    options: Mapping[str, Any] | None = None,
    **changes: Any,
) -> SearchGKECluster:
    """Start a Dask cluster on GKE: image, GKE cluster, operator, workers.

    An image of the same content and the spec's GKE cluster are used if they exist. When the
    Dask cluster closes, both are removed, unless the GKE cluster existed before with
    ``keep_gke``, or others use it.

    Parameters
    ----------
    spec : str, Path, mapping or GKESpec
        As in ``cluster_specs/gke-spot.yaml``.
    n_workers : int, optional
        Initial number of workers; default: the spec's ``dask.workers.initial``.
    name : str, optional
        Name of the Dask cluster; default: a unique one.
    gke_name : str, optional
        Name of the GKE cluster; default: the spec's ``name``.
    keep_gke : bool
        Whether the GKE cluster stays for the next search, until it expires or
        ``dask-hpsearch down`` removes it.
    bind : bool
        Whether to set IAM bindings of the project and the bucket that the pods lack. By
        default, the commands that set them are printed, and waited for up to ten minutes.
    quiet : bool
        Whether to print nothing while it starts.
    timeout : float
        Seconds for each step inside Kubernetes, such as starting the scheduler.
    clients : CloudClients, optional
        Google's clients; default: ordinary ones with Application Default Credentials.
    options : mapping, optional
        For `dask_hpsearch.gcp.gke.clusters.GKEClusters`: retry, timeouts, clock.
    **changes
        Fields that replace the spec's, as ``project="my-project"``.

    Returns
    -------
    SearchGKECluster
        dask-kubernetes' ``KubeCluster``; a context manager.

    Raises
    ------
    SpecError
        If the spec is invalid.
    CloudError
        If Google refuses or fails; the message says how to fix it.
    MissingBindingsError
        If IAM bindings of the pods are still missing. The GKE cluster stays.
    ImageBuildError
        If the image cannot be built.
    ClusterError
        If Dask cannot be started. After any error but missing bindings, everything that
        this call has created is removed.

    Examples
    --------
    A project on Google Cloud is needed.

    >>> from dask_hpsearch import gke_cluster
    >>> with gke_cluster("cluster_specs/gke-spot.yaml") as cluster:  # doctest: +SKIP
    ...     client = cluster.get_client()
    """
    if gke_name is not None:
        changes["name"] = gke_name
    loaded = load_gke_spec(spec, **changes)
    if name is not None:
        check_name(name)
    context = DeployContext(
        loaded,
        clients or cloud_clients(loaded.endpoints, project=loaded.project),
        _ignore if quiet else _print,
        dict(options or {}),
        timeout,
    )
    if not quiet:
        _show_cost(loaded, context.say)
    provisioned = provision(context, keep=keep_gke, bind=bind)
    expires_at = provisioned.cluster.expires_at
    for line in costs.later_end(loaded, expires_at, now=context.clock.now()):
        context.say(line)
    context.say("starting Dask")
    try:
        cluster = _dask_cluster(loaded, provisioned, name, n_workers, timeout)
    except BaseException as error:
        roll_back(context, error, created=provisioned.created)
        raise
    if not keep_gke and (provisioned.created or not provisioned.cluster.kept):
        cluster.call_when_closed(lambda: deprovision_unused(context))
    return cluster


class SearchGKECluster(SearchKubeCluster):
    """A Dask cluster on a managed GKE cluster, which may be removed with it.

    Created by `gke_cluster`.

    Attributes
    ----------
    provisioned : ProvisionedCluster
        The GKE cluster, the image, and the kubeconfig.
    tariff : Tariff or None
        Its hourly cost, from which searches estimate theirs.
    """

    def __init__(self, *, provisioned: ProvisionedCluster, **options: Any) -> None:
        self.provisioned = provisioned
        self.tariff = None
        self._on_closed: Callable[[], None] | None = None
        super().__init__(**options)

    def call_when_closed(self, function: Callable[[], None]) -> None:
        """Call a function once the Dask cluster is closed."""
        self._on_closed = function

    async def _close(
        self,
        timeout: float = _CLOSE_TIMEOUT,
        *,
        wait: bool = True,
    ) -> None:
        if self.status == Status.closed:
            return
        try:
            await super()._close(timeout, wait=wait)
        finally:
            function, self._on_closed = self._on_closed, None
            if function is not None:
                await run_in_thread(function)


def _dask_cluster(
    spec: GKESpec,
    provisioned: ProvisionedCluster,
    name: str | None,
    n_workers: int | None,
    timeout: float,
) -> SearchGKECluster:
    dask = spec.cluster_spec(provisioned.image)
    cluster = SearchGKECluster(
        provisioned=provisioned,
        name=name or f"search-{uuid.uuid4().hex[:8]}",
        namespace=dask.namespace,
        spec=dask,
        n_workers=dask.workers.initial if n_workers is None else n_workers,
        where={"kubeconfig": str(provisioned.kubeconfig)},
        quiet=True,  # `DeployContext.say` prints instead
        timeout=timeout,
    )
    try:
        cluster.tariff = costs.estimate(spec).tariff
    except HPSearchError:  # the prices of its machines are unknown
        cluster.tariff = None
    return cluster


def _show_cost(spec: GKESpec, say: Callable[[str], None]) -> None:
    try:
        say(str(costs.estimate(spec)))
    except HPSearchError as error:
        say(f"no estimate of the cost: {error}")


def _print(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _ignore(line: str) -> None:
    del line
