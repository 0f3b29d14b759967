"""What a Dask cluster may know and do beyond what Dask asks of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distributed import Client

    from dask_hpsearch.budget import Tariff
    from dask_hpsearch.exceptions import HPSearchError


class Problem(Protocol):
    """What is wrong with one part of a cluster, as `clusters.kubernetes.diagnosis.Problem`."""

    @property
    def message(self) -> str:
        """The cause in words."""

    @property
    def pod(self) -> str:
        """The pod's name."""

    @property
    def reason(self) -> str:
        """One word for it."""

    @property
    def part(self) -> str:
        """What the pod is: "worker", "scheduler" or "driver"."""

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
    """The features of a cluster that a search uses where they are there.

    dask-hpsearch's own clusters are subclasses, and so is what stands for a cluster in a
    driver's pod; what they leave out is answered as any other Dask cluster would.

    Attributes
    ----------
    on_kubernetes : bool
        Whether its workers are pods, beside which a driver may run.
    runs_drivers : bool
        Whether it knows all that a driver's pod needs.
    tariff : Tariff or None
        What the cluster costs by the hour.
    attach_options : dict or None
        What `kube_cluster` takes in another process, to attach to the cluster.
    """

    on_kubernetes = False
    runs_drivers: Any = False  # a property in some
    tariff: Tariff | None = None
    attach_options: Any = None

    def why_no_workers(self, *, permanent: bool = False) -> HPSearchError | None:
        """Return an error that says what keeps workers from running; None if unknown.

        Parameters
        ----------
        permanent : bool
            Whether to report only what does not pass by itself.
        """
        del permanent
        return None

    def problems(self) -> Sequence[Problem]:
        """Return what is wrong with the cluster's pods now."""
        return ()

    def start_driver(self, order: Any) -> dict[str, Any]:
        """Start a Job that drives a run; return how Kubernetes is reached from here."""
        raise NotImplementedError(order)

    def end_with_runs(self) -> None:
        """Let the cluster end as soon as no submitted run is under way on it."""
        raise NotImplementedError

    def end(self) -> None:
        """End the cluster, whoever made it."""
        raise NotImplementedError


def features_of(client: Client | None) -> ClusterFeatures:
    """Return the features of a client's cluster; the defaults if it has none."""
    return as_features(None if client is None else client.cluster)


def as_features(cluster: Any) -> ClusterFeatures:
    """Return a cluster as what has features, whoever's it is."""
    if isinstance(cluster, ClusterFeatures):
        return cluster
    return _OtherCluster(cluster)


class _OtherCluster(ClusterFeatures):
    """A cluster of another library's making, or none.

    The user may have set its ``tariff``.
    """

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self.tariff = getattr(cluster, "tariff", None)

    def end(self) -> None:
        """Close it, as Dask does."""
        if self._cluster is not None:
            self._cluster.close()
