"""`MlflowTracker`: where and how a search is tracked by MLflow, and how it is described."""

from __future__ import annotations

import importlib.util
import ipaddress
import json
import os
import socket
import sys
import time
import urllib.request
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dask_hpsearch.exceptions import MissingExtraError, TrackerError
from dask_hpsearch.extras import install_command
from dask_hpsearch.journal.folder import new_run_id
from dask_hpsearch.safe_text import repr_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from dask_hpsearch.journal.folder import Manifest

MLFLOW = "mlflow"
_EXPERIMENT = "dask-hpsearch"
_SQLITE = "sqlite:///"
_OF_DATABRICKS = ("databricks", "databricks-uc", "uc")
_CONNECT_TIMEOUT_S = 5.0
_LONGEST_TEXT = 2000
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class MlflowTracker:
    """Tracks a search by MLflow: a run for the search, with a child run for each candidate.

    Parameters
    ----------
    experiment : str, optional
        Name of the experiment, which is created if there is none. Default: that of
        ``MLFLOW_EXPERIMENT_NAME``, or "dask-hpsearch".
    tracking_uri : str, optional
        Of the MLflow server, or of another place that MLflow knows. Default: that which
        MLflow itself would use here (``mlflow.set_tracking_uri``, ``MLFLOW_TRACKING_URI``).
    run_name : str, optional
        Of the search's run. Default: its ``task_name``, or its class and the run's name.
    log_model : bool
        Whether the refitted model is logged when the search has ended.
    give_up_s : float
        Seconds for which the end of the search waits for a server that does not answer.

    Examples
    --------
    >>> from dask_hpsearch import DaskSearchCV, MlflowTracker
    >>> tracker = MlflowTracker(experiment="churn", tracking_uri="http://mlflow:5000")
    >>> DaskSearchCV(search, tracker=tracker)  # doctest: +SKIP
    """

    experiment: str | None = None
    tracking_uri: str | None = None
    run_name: str | None = None
    log_model: bool = True
    give_up_s: float = 45.0

    def __post_init__(self) -> None:
        if not self.give_up_s > 0:
            msg = (
                f"give_up_s must be a number of seconds above 0, got {self.give_up_s!r}"
            )
            raise ValueError(msg)

    def resolved(self) -> MlflowTracker:
        """Return the tracker with the experiment and the address that hold here."""
        return replace(
            self,
            experiment=self.experiment
            or os.environ.get("MLFLOW_EXPERIMENT_NAME")
            or _EXPERIMENT,
            tracking_uri=_absolute(self.tracking_uri or _uri_here()),
        )

    @property
    def is_of_this_machine(self) -> bool:
        """Whether only this machine reaches the tracking URI: a file, or loopback."""
        parts = urlsplit(self.tracking_uri or "")
        if self.tracking_uri in _OF_DATABRICKS:
            return False
        if parts.hostname is None:
            return parts.scheme in {"", "file", "sqlite"}
        try:
            return ipaddress.ip_address(parts.hostname).is_loopback
        except ValueError:
            return parts.hostname == "localhost"

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values; `from_json` is the inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> MlflowTracker:
        """Read what `to_json` returned."""
        return cls(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchDescription:
    """A search as a tracker shows it.

    Attributes
    ----------
    run_id : str
        The name of the run, by which the tracker finds it again.
    task_name, search_class, search_text : str
    url : str
        Of the run's folder; empty if there is none.
    created : float
        Seconds since the epoch.
    refit : str or None
        Which of several scores counts.
    data : dict of str to str
        What the data were, by the argument of ``fit``.
    """

    run_id: str
    task_name: str
    search_class: str
    search_text: str
    url: str
    created: float
    refit: str | None = None
    data: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_run(cls, manifest: Manifest, url: str) -> Self:
        """Describe the search of a run.

        Parameters
        ----------
        manifest : Manifest
        url : str
            Of the run's folder.
        """
        return cls(
            run_id=manifest.run_id,
            task_name=manifest.task_name,
            search_class=manifest.search_class,
            search_text=manifest.search_text,
            url=url,
            created=manifest.created,
            refit=manifest.traits["refit"],
            data={name: json.dumps(pin) for name, pin in manifest.data.items()},
        )

    @classmethod
    def of_search(cls, search: Any) -> Self:
        """Describe a search without a journal, under a name of its own."""
        refit = getattr(search, "refit", None)
        return cls(
            run_id=new_run_id(),
            task_name="",
            search_class=type(search).__name__,
            search_text=repr_of(search, _LONGEST_TEXT),
            url="",
            created=time.time(),
            refit=refit if isinstance(refit, str) else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchEnd:
    """How a search has ended.

    Attributes
    ----------
    state : str
        "finished", "stopped", "failed", "cancelled" or "interrupted".
    reason : str
        Why; empty if it ran to its end.
    best_score : float or None
    best_params : dict or None
        As they are displayed.
    """

    state: str
    reason: str = ""
    best_score: float | None = None
    best_params: Mapping[str, Any] | None = None


def tracker_of(tracker: Any) -> MlflowTracker | None:
    """Return the tracker that the parameter ``tracker`` of `DaskSearchCV` means.

    Raises
    ------
    ValueError
        If it is neither "mlflow" nor an `MlflowTracker`.
    MissingExtraError
        If MLflow is not installed.
    """
    if tracker is None or tracker is False:
        return None
    if tracker != MLFLOW and not isinstance(tracker, MlflowTracker):
        msg = (
            "tracker must be 'mlflow' or an MlflowTracker, such as MlflowTracker("
            f"experiment='churn'), got {tracker!r}"
        )
        raise ValueError(msg)
    check_installed("tracker='mlflow'")
    own = tracker if isinstance(tracker, MlflowTracker) else MlflowTracker()
    return own.resolved()


def check_installed(what: str) -> None:
    """Refuse to use MLflow if it is not installed; it is not imported yet.

    Raises
    ------
    MissingExtraError
    """
    try:
        found = importlib.util.find_spec(MLFLOW)
    except ImportError:
        found = None
    if found is None:
        msg = (
            f"{what} needs the package 'mlflow', which is not installed: run "
            f"{install_command('mlflow')}"
        )
        raise MissingExtraError(msg, name=MLFLOW)


def check_reachable(tracking_uri: str | None) -> None:
    """Check that a server answers at all, before MLflow retries for minutes.

    Raises
    ------
    TrackerError
        If it does not accept a connection.
    """
    parts = urlsplit(tracking_uri or "")
    if parts.scheme not in _PORTS or parts.hostname is None:
        return
    if urllib.request.getproxies().get(
        parts.scheme
    ) and not urllib.request.proxy_bypass(parts.hostname):
        return  # only the proxy may reach it
    address = parts.hostname, parts.port or _PORTS[parts.scheme]
    try:
        socket.create_connection(address, timeout=_CONNECT_TIMEOUT_S).close()
    except OSError as error:
        msg = (
            f"the MLflow server at {tracking_uri} does not answer ({error}): check that "
            "it runs, and the tracking URI"
        )
        raise TrackerError(msg) from error


def _uri_here() -> str:
    """Return the tracking URI that MLflow itself would use; import it only if it must."""
    named = os.environ.get("MLFLOW_TRACKING_URI")
    if named and MLFLOW not in sys.modules:
        return named
    import mlflow

    return str(mlflow.get_tracking_uri())


def _absolute(uri: str) -> str:
    """Return an address that means the same in another folder."""
    if uri.startswith(_SQLITE) and not uri.startswith(f"{_SQLITE}/"):
        path = uri.removeprefix(_SQLITE)
        return f"{_SQLITE}{Path(path).absolute()}" if path != ":memory:" else uri
    is_uri = ":" in uri or uri in _OF_DATABRICKS
    return uri if is_uri else Path(uri).absolute().as_uri()
