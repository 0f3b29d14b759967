"""The settings of a fit, and the check of its limits."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cloudpickle

from dask_hpsearch.exceptions import UnpicklableError
from dask_hpsearch.exports.mlflow_settings import MlflowTracker
from dask_hpsearch.journal import main_names
from dask_hpsearch.safe_text import message_of, repr_of
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
    on_candidate: Any = None
    tracker: MlflowTracker | None = None  # resolved

    @classmethod
    def from_manifest(cls, settings: Mapping[str, Any], **limits: Any) -> Settings:
        """Read the settings in a run's manifest; earlier versions had other names."""
        renamed = {
            _EARLIER_NAMES.get(key, key): value for key, value in settings.items()
        }
        sampler = samplers.from_manifest(renamed.pop("sampler", None))
        callback = callback_from_manifest(renamed.pop("on_candidate", None))
        tracker = renamed.pop("tracker", None)
        return cls(
            **renamed | limits,
            sampler=sampler,
            on_candidate=callback,
            tracker=None if tracker is None else MlflowTracker.from_json(tracker),
        )


def callback_to_manifest(function: Any) -> str | None:
    """Return ``on_candidate`` as a text, for the driver of a submitted run.

    Raises
    ------
    UnpicklableError
        If it cannot be pickled.
    """
    if function is None:
        return None
    try:
        content = cloudpickle.dumps(function, protocol=5)
    except Exception as error:
        msg = (
            f"on_candidate cannot be pickled: {type(error).__name__}: "
            f"{message_of(error)}. The driver of a submitted search calls it in another "
            "process: leave out objects that hold a lock, a file or a connection, or open "
            "them in the function"
        )
        raise UnpicklableError(msg) from error
    return base64.b64encode(content).decode("ascii")


def callback_from_manifest(stored: str | None) -> Any:
    """Return the callback of a manifest, whose signature is checked already."""
    return None if stored is None else main_names.loads(base64.b64decode(stored))


def check_callback(function: Any) -> None:
    """Refuse an ``on_candidate`` that cannot be called.

    Raises
    ------
    ValueError
    """
    if function is not None and not callable(function):
        msg = (
            "on_candidate must be a function that takes a CandidateResult, got "
            f"{repr_of(function)}"
        )
        raise ValueError(msg)


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
