"""What a cluster on Kubernetes does for runs that outlive the client: it hosts their drivers."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from dask_hpsearch.clusters import jobs
from dask_hpsearch.clusters.manifests import SPEC_ANNOTATION
from dask_hpsearch.config.reading import load_spec
from dask_hpsearch.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dask_hpsearch.clusters.driver_job import DriverOrder
    from dask_hpsearch.clusters.lifecycle import Lifecycle
    from dask_hpsearch.config.cluster import ClusterSpec


class HostsDrivers:
    """The part of a cluster that knows of runs; the rest of it is a `KubeCluster`."""

    name: str
    spec: ClusterSpec | None
    shutdown_on_close: bool
    close: Callable[[], Any]
    sync: Callable[..., Any]
    _where: dict[str, Any]
    _parts: Callable[[], tuple[Lifecycle, ClusterSpec]]
    _leaves_to_runs = True

    @property
    def runs_drivers(self) -> bool:
        """Whether it can run drivers beside its workers: it must know its spec."""
        return self.spec is not None

    def start_driver(self, order: DriverOrder) -> dict[str, Any]:
        """Start a Job that drives a run; return how Kubernetes is reached from here."""

        async def start() -> None:
            lifecycle, spec = self._parts()
            await jobs.start(lifecycle.api, self.name, spec, order)

        self.sync(start)
        return dict(self._where)

    def end_with_runs(self) -> None:
        """Let the cluster end as soon as no submitted run is under way on it."""

        async def say() -> None:
            lifecycle, _ = self._parts()
            await lifecycle.end_with_runs()

        self.sync(say)

    def end(self) -> None:
        """Close, and delete the cluster, whoever made it, and whatever runs on it."""
        self.shutdown_on_close, self._leaves_to_runs = True, False
        self.close()

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        """Close; after an error nothing is left, not even for runs that are under way."""
        if isinstance(error, (Exception, KeyboardInterrupt)):
            self._leaves_to_runs = False
        self.close()


def spec_told_by(cluster: dict[str, Any]) -> ClusterSpec | None:
    """Read the spec that a DaskCluster was made from; None if it does not tell."""
    annotations = cluster["metadata"].get("annotations") or {}
    with contextlib.suppress(KeyError, ValueError, SpecError):  # or of another version
        return load_spec(json.loads(annotations[SPEC_ANNOTATION]))
    return None
