"""The contenders, each with its processes kept warm."""

from __future__ import annotations

import contextlib
import functools
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
import joblib
import sklearn.model_selection
from threadpoolctl import threadpool_limits

from benchmarks.case import N_SLOTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from distributed import Client


@dataclass(frozen=True, slots=True)
class Contender:
    """A warm contender.

    Attributes
    ----------
    module : object
        Where its search classes are.
    fit : callable
        ``fit(search, X, y)`` returns the fitted search.
    sent_bytes : callable
        Bytes that this process has sent on its way to the fits so far.
    """

    module: Any
    fit: Callable[[Any, Any, Any], Any]
    sent_bytes: Callable[[], int]


@contextlib.contextmanager
def start(name: str, n_slots: int = N_SLOTS) -> Iterator[Contender]:
    """Start a contender by name, with some slots.

    A scheduler that was frozen must not miss its workers when it goes on.
    """
    with (
        dask.config.set({"distributed.scheduler.worker-ttl": None}),
        _STARTS[name](n_slots) as contender,
    ):
        yield contender


@contextlib.contextmanager
def _dask_hpsearch(n_slots: int, *, share_steps: bool = True) -> Iterator[Contender]:
    from dask_hpsearch import DaskSearchCV, local_cluster

    cluster = local_cluster(
        n_workers=1, slots_per_worker=n_slots, dashboard_address=None
    )
    with cluster, cluster.get_client() as client:

        def fit(search: Any, X: Any, y: Any) -> Any:
            ours = DaskSearchCV(search, client=client, share_steps=share_steps)
            return ours.fit(X, y)

        yield Contender(
            sklearn.model_selection, fit, lambda: _sent_to_scheduler(client)
        )


@contextlib.contextmanager
def _loky(n_slots: int) -> Iterator[Contender]:
    def fit(search: Any, X: Any, y: Any) -> Any:
        with joblib.parallel_config("loky", n_jobs=n_slots):
            return search.fit(X, y)

    yield Contender(sklearn.model_selection, fit, _written)


@contextlib.contextmanager
def _loky_with_memory(n_slots: int) -> Iterator[Contender]:
    """Give the pipeline scikit-learn's own memory, empty at first."""

    def fit(search: Any, X: Any, y: Any) -> Any:
        with (
            tempfile.TemporaryDirectory() as folder,
            joblib.parallel_config("loky", n_jobs=n_slots),
        ):
            return search.set_params(estimator__memory=folder).fit(X, y)

    yield Contender(sklearn.model_selection, fit, _written)


@contextlib.contextmanager
def _joblib_dask(n_slots: int) -> Iterator[Contender]:
    def fit(search: Any, X: Any, y: Any) -> Any:
        with joblib.parallel_config("dask"):
            return search.fit(X, y)

    with _dask_client(n_slots) as client:
        yield Contender(
            sklearn.model_selection, fit, lambda: _sent_to_scheduler(client)
        )


@contextlib.contextmanager
def _dask_ml(n_slots: int) -> Iterator[Contender]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import dask_ml.model_selection

    with _dask_client(n_slots) as client:
        yield Contender(
            dask_ml.model_selection,
            lambda search, X, y: search.set_params(scheduler=client).fit(X, y),
            lambda: _sent_to_scheduler(client),
        )


@contextlib.contextmanager
def _plain(n_slots: int) -> Iterator[Contender]:
    del n_slots  # its processes run side by side
    with threadpool_limits(1):
        yield Contender(
            sklearn.model_selection, lambda search, X, y: search.fit(X, y), _written
        )


@contextlib.contextmanager
def _dask_client(n_slots: int) -> Iterator[Client]:
    """One worker process with one thread per slot: the best that peers' fits have."""
    from distributed import LocalCluster

    cluster = LocalCluster(
        n_workers=n_slots, threads_per_worker=1, dashboard_address=None
    )
    with cluster, cluster.get_client() as client:
        yield client


def _sent_to_scheduler(client: Client) -> int:
    """Count the bytes of the client's messages to the scheduler: tasks and graphs."""
    return int(client.scheduler_comm.byte_count)


def _written() -> int:
    """Count the bytes that this process has written: to pipes, and to shared memory."""
    fields = dict(
        line.split(": ") for line in Path("/proc/self/io").read_text().splitlines()
    )
    return int(fields["wchar"])


_STARTS = {
    "dask_hpsearch": _dask_hpsearch,
    "dask_hpsearch, all steps": functools.partial(_dask_hpsearch, share_steps=False),
    "loky": _loky,
    "loky, memory=": _loky_with_memory,
    "joblib-dask": _joblib_dask,
    "dask-ml": _dask_ml,
    "plain": _plain,
}
