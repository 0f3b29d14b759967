"""The settings of a fit, and the check of its limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dask_hpsearch.strategies.optuna import samplers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from distributed import Client

    from dask_hpsearch.stores import Store

# Keys of a manifest's settings in version 0.1.0.
_EARLIER_NAMES = {"asynchronous": "bayes_async", "share_prefixes": "share_steps"}


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a fit; see the parameters of `DaskSearchCV`."""

    client: Client | None = None
    store: Store | None = None
    task_name: str | None = None
    max_time_s: float | None = None
    fit_timeout_s: float | None = None
    worker_timeout_s: float = 60.0
    progress: bool = False
    bayes_async: bool | None = None
    share_steps: bool = True
    max_cost_usd: float | None = None
    tariff: dict[str, Any] | None = None  # a `Tariff` as JSON values
    cluster: Any = None  # set in the pod of a driver, whose client does not have it
    keep_cluster: bool = True
    keep_embedded: bool = False  # the local cluster, for this process's next fit
    racing: bool = False
    stop_score: float | None = None
    patience: float | None = None  # infinite if a run is resumed without it
    sampler: Any = None  # a name, or a sampler of Optuna

    @classmethod
    def from_manifest(cls, settings: Mapping[str, Any], **limits: Any) -> Settings:
        """Read the settings in a run's manifest; earlier versions had other names."""
        renamed = {
            _EARLIER_NAMES.get(key, key): value for key, value in settings.items()
        }
        sampler = samplers.from_manifest(renamed.pop("sampler", None))
        return cls(**renamed | limits, sampler=sampler)


def check_limit(name: str, value: Any, unit: str) -> None:
    """Refuse a limit that is not a positive number.

    Raises
    ------
    ValueError
        Names the limit and its value.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    optional = value is None and name != "worker_timeout"
    if not optional and not (number and value > 0):
        msg = f"{name} must be a positive number of {unit}, got {value!r}"
        raise ValueError(msg)
