"""A Dask cluster on GKE, in one ``with`` block."""

from __future__ import annotations

import asyncio
import sys
import uuid
from typing import TYPE_CHECKING, Any

from distributed.core import Status

from dask_hpsearch.clusters.kubernetes.cluster import SearchKubeCluster
from dask_hpsearch.clusters.kubernetes.manifests import check_name
from dask_hpsearch.config.load import load_gke_spec
from dask_hpsearch.deploy.provision import Provisioner
from dask_hpsearch.exceptions import HPSearchError
from dask_hpsearch.gcp.clients import cloud_clients
from dask_hpsearch.gcp.pricing import costs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from dask_hpsearch.config.gke import GKESpec
    from dask_hpsearch.deploy.provision import ProvisionedCluster
    from dask_hpsearch.gcp.clients import CloudClients

_CLOSE_WAIT_S = 90.0


def gke_cluster(
    spec: str | Path | Mapping[str, Any] | GKESpec,
    *,
    n_workers: int | None = None,
    name: str | None = None,
    gke_name: str | None = None,
    keep_gke: bool = False,
    quiet: bool = False,
    timeout: float = 300.0,
    clients: CloudClients | None = None,
    options: Mapping[str, Any] | None = None,
    **changes: Any,
) -> SearchGKECluster:
    """Start a Dask cluster on GKE: image, GKE cluster, operator, workers.

    What is there already is used: an image of the same content, the spec's GKE cluster.
    When it closes, all that is removed again, unless it was there before with ``keep_gke``,
    or others use it.

    Parameters
    ----------
    spec : str, Path, mapping or GKESpec
        What is wanted, as ``cluster_specs/gke-spot.yaml`` says it.
    n_workers : int, optional
        Workers to begin with; default: the spec's ``dask.workers.initial``.
    name : str, optional
        Of the Dask cluster; default: one that is free.
    gke_name : str, optional
        The name of the GKE cluster; default: the spec's ``name``.
    keep_gke : bool
        Whether the GKE cluster stays for the next search, until its time is over; then
        ``dask-hpsearch down`` removes it.
    quiet : bool
        Whether to print nothing while it starts.
    timeout : float
        Seconds for each step inside Kubernetes, as until the scheduler is there.
    clients : CloudClients, optional
        Google's clients; default: ordinary ones with Application Default Credentials.
    options : mapping, optional
        For `dask_hpsearch.gcp.gke.clusters.GKEClusters`: retry, limits, clock.
    **changes
        Fields that take the place of the spec's, as ``project="my-project"``.

    Returns
    -------
    SearchGKECluster
        dask-kubernetes' ``KubeCluster``; a context manager.

    Raises
    ------
    SpecError
        If the spec is wrong.
    CloudError
        If Google refuses or fails; its kinds say why, and what mends it.
    ImageBuildError
        If the image cannot be built.
    ClusterError
        If Dask cannot be started there. After any error, what this call has created is
        gone.

    Examples
    --------
    >>> from dask_hpsearch import gke_cluster
    >>> with gke_cluster("cluster_specs/gke-spot.yaml") as cluster:  # doctest: +SKIP
    ...     client = cluster.get_client()
    """
    if gke_name is not None:
        changes["name"] = gke_name
    loaded = load_gke_spec(spec, **changes)
    if name is not None:
        check_name(name)
    provisioner = Provisioner(
        loaded,
        clients or cloud_clients(loaded.endpoints),
        _silent if quiet else _written,
        dict(options or {}),
        timeout,
    )
    if not quiet:
        _show_cost(loaded, provisioner.say)
    provisioned = provisioner.provision(keep=keep_gke)
    provisioner.say("starting Dask")
    try:
        cluster = _dask_cluster(loaded, provisioned, name, n_workers, timeout)
    except BaseException as error:
        provisioner.give_up(error, created=provisioned.created)
        raise
    if not keep_gke and (provisioned.created or not provisioned.cluster.kept):
        cluster.end_with(provisioner.leave)
    return cluster


class SearchGKECluster(SearchKubeCluster):
    """A Dask cluster on a GKE cluster of ours, which may end with it.

    Made by `gke_cluster`.

    Attributes
    ----------
    provisioned : ProvisionedCluster
        The GKE cluster, the image, and the kubeconfig.
    tariff : Tariff or None
        What it costs by the hour; searches count with it.
    """

    def __init__(self, *, provisioned: ProvisionedCluster, **options: Any) -> None:
        self.provisioned = provisioned
        self.tariff = None
        self._end: Callable[[], None] | None = None
        super().__init__(**options)

    def end_with(self, end: Callable[[], None]) -> None:
        """Do something once the Dask cluster is closed."""
        self._end = end

    async def _close(
        self,
        timeout: float = _CLOSE_WAIT_S,  # noqa: ASYNC109 (Dask's name)
        *,
        wait: bool = True,
    ) -> None:
        if self.status == Status.closed:
            return
        try:
            await super()._close(timeout, wait=wait)
        finally:
            end, self._end = self._end, None
            if end is not None:
                await _in_thread(end)


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
        quiet=True,  # `provisioner.say` has said it
        timeout=timeout,
    )
    try:
        cluster.tariff = costs.estimate(spec).tariff
    except HPSearchError:  # prices of its machines are not known
        cluster.tariff = None
    return cluster


async def _in_thread(function: Callable[[], None]) -> None:
    try:
        await asyncio.to_thread(function)
    except RuntimeError as error:
        if "shutdown" not in str(error):
            raise
        function()  # the interpreter ends, and starts no threads any more


def _show_cost(spec: GKESpec, say: Callable[[str], None]) -> None:
    try:
        say(str(costs.estimate(spec)))
    except HPSearchError as error:
        say(f"no estimate of the cost: {error}")


def _written(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _silent(line: str) -> None:
    del line
