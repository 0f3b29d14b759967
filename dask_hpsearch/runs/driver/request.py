"""What a driver's program is started with: its one argument, as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dask_hpsearch.clusters.kubernetes.driver_job import PodEnvironment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverRequest:
    """Which run a driver drives, from where, and with which limits.

    Attributes
    ----------
    run, store : str
        URLs of the run's folder and of the store that contains it.
    driver : str
        Name of the driver, unique.
    generation : int
        Of the run.
    n_iter_more : int
        How many candidates the search draws in addition, since the run was extended.
    ignored : tuple of str
        Requests that were made to earlier drivers.
    limits : dict
        Settings that replace those of the run's manifest.
    keep_cluster : bool
        False: the cluster ends with the run.
    client : str, optional
        Of a driver on this machine: the private file that has its `ClientAccess`; None:
        the driver starts a local cluster.
    maker : str
        Of a driver in a pod: the public key of the user who made the run.
    modules : tuple of str
        Of a driver in a pod: the user's modules in the run's folder.
    environment : PodEnvironment, optional
        Of a driver in a pod.
    """

    run: str
    store: str
    driver: str
    generation: int = 0
    n_iter_more: int = 0
    ignored: tuple[str, ...] = ()
    limits: dict[str, Any] = field(default_factory=dict)
    keep_cluster: bool = True
    client: str | None = None
    maker: str = ""
    modules: tuple[str, ...] = ()
    environment: PodEnvironment | None = None

    @property
    def run_id(self) -> str:
        """The run's name within its store."""
        return self.run.rpartition("/")[2]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; those of a pod's environment are added in its cluster."""
        return {
            "run": self.run,
            "store": self.store,
            "driver": self.driver,
            "generation": self.generation,
            "n_iter_more": self.n_iter_more,
            "ignored": list(self.ignored),
            "limits": self.limits,
            "keep_cluster": self.keep_cluster,
            "client": self.client,
            "maker": self.maker,
            "modules": list(self.modules),
        } | ({} if self.environment is None else self.environment.to_json())

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_json` returned."""
        in_pod = "place" in values
        return cls(
            run=values["run"],
            store=values["store"],
            driver=values["driver"],
            generation=values["generation"],
            n_iter_more=values["n_iter_more"],
            ignored=tuple(values["ignored"]),
            limits=values.get("limits", {}),
            keep_cluster=values.get("keep_cluster", True),
            client=values.get("client"),
            maker=values.get("maker", ""),
            modules=tuple(values.get("modules", ())),
            environment=PodEnvironment.from_json(values) if in_pod else None,
        )
