"""Fit any scikit-learn hyperparameter search on Dask workers.

Importing this package registers the joblib backend ``"dask_hpsearch"``. What it exports is
imported on first use: importing the package itself costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import joblib as _joblib

from dask_hpsearch._version import __version__

if TYPE_CHECKING:
    from dask_hpsearch import exceptions, plots
    from dask_hpsearch.budget import Tariff
    from dask_hpsearch.clusters.kubernetes.cluster import kube_cluster
    from dask_hpsearch.clusters.local import local_cluster
    from dask_hpsearch.data.signing import sign
    from dask_hpsearch.data.sources import DataReference
    from dask_hpsearch.data.upload import upload
    from dask_hpsearch.deploy.cluster import gke_cluster
    from dask_hpsearch.exceptions import (
        CloudError,
        ClusterError,
        FitEndedError,
        HPSearchError,
        MissingExtraError,
        NoWorkersError,
        RunCancelledError,
        RunFailedError,
        SearchStoppedWarning,
        SpecError,
        StoreError,
        UnsupportedSearchError,
        UntrustedObjectError,
        VersionSkewError,
    )
    from dask_hpsearch.exports.candidate_result import CandidateResult
    from dask_hpsearch.exports.mlflow_settings import MlflowTracker
    from dask_hpsearch.models.champions import (
        champion_card,
        champion_history,
        load_champion,
    )
    from dask_hpsearch.models.promotion import promote
    from dask_hpsearch.runs import SearchRun
    from dask_hpsearch.search.estimator import DaskSearchCV
    from dask_hpsearch.strategies.halving.search import AsyncHalvingSearchCV

__all__ = [
    "AsyncHalvingSearchCV",
    "CandidateResult",
    "CloudError",
    "ClusterError",
    "DaskSearchCV",
    "DataReference",
    "FitEndedError",
    "HPSearchError",
    "MissingExtraError",
    "MlflowTracker",
    "NoWorkersError",
    "RunCancelledError",
    "RunFailedError",
    "SearchRun",
    "SearchStoppedWarning",
    "SpecError",
    "StoreError",
    "Tariff",
    "UnsupportedSearchError",
    "UntrustedObjectError",
    "VersionSkewError",
    "__version__",
    "champion_card",
    "champion_history",
    "exceptions",
    "gke_cluster",
    "kube_cluster",
    "load_champion",
    "local_cluster",
    "plots",
    "promote",
    "sign",
    "upload",
]

_MODULES = ("exceptions", "plots")
_EXPORTS = {
    "AsyncHalvingSearchCV": "dask_hpsearch.strategies.halving.search",
    "CandidateResult": "dask_hpsearch.exports.candidate_result",
    "DaskSearchCV": "dask_hpsearch.search.estimator",
    "DataReference": "dask_hpsearch.data.sources",
    "MlflowTracker": "dask_hpsearch.exports.mlflow_settings",
    "SearchRun": "dask_hpsearch.runs",
    "Tariff": "dask_hpsearch.budget",
    "champion_card": "dask_hpsearch.models.champions",
    "champion_history": "dask_hpsearch.models.champions",
    "gke_cluster": "dask_hpsearch.deploy.cluster",
    "kube_cluster": "dask_hpsearch.clusters.kubernetes.cluster",
    "load_champion": "dask_hpsearch.models.champions",
    "local_cluster": "dask_hpsearch.clusters.local",
    "promote": "dask_hpsearch.models.promotion",
    "sign": "dask_hpsearch.data.signing",
    "upload": "dask_hpsearch.data.upload",
} | dict.fromkeys(
    (
        "CloudError",
        "ClusterError",
        "FitEndedError",
        "HPSearchError",
        "MissingExtraError",
        "NoWorkersError",
        "RunCancelledError",
        "RunFailedError",
        "SearchStoppedWarning",
        "SpecError",
        "StoreError",
        "UnsupportedSearchError",
        "UntrustedObjectError",
        "VersionSkewError",
    ),
    "dask_hpsearch.exceptions",
)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _EXPORTS:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    try:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    except ImportError as error:
        return _without_its_extra(name, error)


def _without_its_extra(name: str, error: ImportError) -> Any:
    """Return what says which extra is missing, once it is called.

    ``from dask_hpsearch import *`` works where no extra is installed.
    """
    from dask_hpsearch.extras import missing_extra

    missing = missing_extra(error, what=f"{name}()")
    if missing is None:
        raise error

    def say_what_is_missing(*_args: Any, **_options: Any) -> Any:
        raise missing from error

    say_what_is_missing.__name__ = say_what_is_missing.__qualname__ = name
    say_what_is_missing.__doc__ = str(missing)
    return say_what_is_missing


def __dir__() -> list[str]:
    return sorted(__all__)


def _backend(**options: Any) -> Any:
    from dask_hpsearch.joblib_backend.backend import DaskHPSearchBackend

    return DaskHPSearchBackend(**options)


_joblib.register_parallel_backend("dask_hpsearch", _backend)
