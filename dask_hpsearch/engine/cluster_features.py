"""The features of a cluster that Dask's own interface does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from dask_hpsearch.exceptions import ClusterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distributed import Client

    from dask_hpsearch.budget import Tariff
    from dask_hpsearch.exceptions import HPSearchError


class Problem(Protocol):
    """A problem of one pod of a cluster, as `clusters.kubernetes.diagnosis.Problem`."""

    @property
    def message(self) -> str:
        """The cause, in a sentence."""

    @property
    def pod(self) -> str:
        """The pod's name."""

    @property
    def reason(self) -> str:
        """One word for it."""

    @property
    def part(self) -> str:
        """The pod's role: "worker", "scheduler" or "driver"."""

    @property
    def outlook(self) -> str:
        """Whether it passes by itself, in one word: "wait", "late", "stuck"."""

    @property
    def over(self) -> bool:
        """Whether the pod has ended."""

    @property
    def is_full_disk(self) -> bool:
        """Whether the pod ended because the disk was full."""


class ClusterFeatures:
    """The features of a cluster that a search uses if the cluster has them.

    The clusters of dask-hpsearch are subclasses, and so is `DriverPod`, which represents
    the cluster in a driver's pod. The defaults are those of any other Dask cluster.

    Attributes
    ----------
    on_kubernetes : bool
        Whether its workers are pods; a driver may then run in a pod too.
    runs_drivers : bool
        Whether it has the spec that a driver's pod is made from.
    tariff : Tariff or None
        The prices of the cluster.
    attach_options : dict or None
        Arguments of `kube_cluster` with which another process attaches to the cluster.
    """

    on_kubernetes = False
    runs_drivers: Any = False  # a property in some
    tariff: Tariff | None = None
    attach_options: Any = None

    def why_no_workers(self, *, permanent: bool = False) -> HPSearchError | None:
        """Return an error with the reason why no worker runs; None if it is unknown.

        Parameters
        ----------
        permanent : bool
            Whether to report only a reason that does not pass by itself.
        """
        del permanent
        return None

    def problems(self) -> Sequence[Problem]:
        """Return the present problems of the cluster's pods."""
        return ()

    def start_driver(self, job: Any) -> dict[str, Any]:
        """Start a Job that drives a run; return how this process reaches Kubernetes.

        Raises
        ------
        ClusterError
            If the cluster does not run on Kubernetes.
        """
        del job
        raise _lacking(self, "run the driver of a submitted search")

    def end_with_runs(self) -> None:
        """Let the cluster end as soon as no submitted run is under way on it.

        Raises
        ------
        ClusterError
            If the cluster does not run on Kubernetes.
        """
        raise _lacking(self, "end after its last submitted run")

    def end(self) -> None:
        """End the cluster, even if another process created it.

        Raises
        ------
        ClusterError
            If the cluster has no such operation.
        """
        raise _lacking(self, "be ended from here")


def _lacking(cluster: object, ability: str) -> ClusterError:
    msg = (
        f"{type(cluster).__name__} cannot {ability}; use a cluster of kube_cluster "
        "or gke_cluster"
    )
    return ClusterError(msg)


def features_of(client: Client | None) -> ClusterFeatures:
    """Return the features of a client's cluster; the defaults if it has none."""
    return as_features(None if client is None else client.cluster)


def as_features(cluster: Any) -> ClusterFeatures:
    """Return a cluster's features; a cluster of another library has the defaults."""
    if isinstance(cluster, ClusterFeatures):
        return cluster
    return _OtherCluster(cluster)


class _OtherCluster(ClusterFeatures):
    """A cluster of another library, or none; the user may have set its ``tariff``."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self.tariff = getattr(cluster, "tariff", None)

    def end(self) -> None:
        """Close it, as Dask does."""
        if self._cluster is not None:
            self._cluster.close()
