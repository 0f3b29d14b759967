"""The Dask client of a search: the given one, the current one, or a local cluster's."""

from __future__ import annotations

import numbers
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dask.system import CPU_COUNT

from dask_hpsearch.data.collections import computed, current_client
from dask_hpsearch.engine.client import check_client, no_workers
from dask_hpsearch.engine.cluster_features import features_of
from dask_hpsearch.execution.embedded import embedded_clusters
from dask_hpsearch.joblib_backend.session import slots_for
from dask_hpsearch.slots.row_blocks import RowBlocks, block_sizes
from dask_hpsearch.strategies.incremental.kinds import is_incremental
from dask_hpsearch.strategies.optuna.search import is_optuna_search

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client

    from dask_hpsearch.execution.settings import Settings


@contextmanager
def client_for(settings: Settings, search: Any) -> Iterator[Client]:
    """Yield the client to use, or that of a local cluster of this process's own.

    That has as many slots as the search's ``n_jobs``. It is closed afterwards, unless
    ``settings.keep_embedded`` says that the next fit may use it.

    Raises
    ------
    ClientClosedError
        If the given client is closed.
    """
    slots = slots_of_its_own(search)
    client = settings.client or current_client()
    if client is not None:
        check_client(client)
        yield client
        return
    with embedded_clusters.client(slots, keep=settings.keep_embedded) as own:
        yield own


def slots_of_its_own(search: Any) -> int | None:
    """Resolve a search's ``n_jobs`` as joblib does; None if it has none.

    Raises
    ------
    ValueError
        If ``n_jobs`` is 0, in joblib's words.
    """
    n_jobs = getattr(search, "n_jobs", None)
    if not isinstance(n_jobs, numbers.Integral):  # scikit-learn refuses others
        return None
    if n_jobs == 1 and is_optuna_search(search):
        return None  # it also has this if it was given none
    return slots_for(int(n_jobs), CPU_COUNT)


def wait_for_worker(client: Client, timeout_s: float) -> None:
    """Wait for a first worker.

    Raises
    ------
    NoWorkersError
        After ``timeout_s`` seconds without one.
    """
    try:
        client.wait_for_workers(1, timeout=timeout_s)
    except TimeoutError as error:
        raise no_workers(timeout_s, features_of(client)) from error


def in_memory(
    search: Any, X: Any, y: Any, params: dict[str, Any], settings: Settings
) -> tuple[Any, Any, dict[str, Any]]:
    """Compute the Dask collections among the arguments of ``fit``, on the search's client.

    Without a client, Dask computes them in its default way, since the search's own workers
    have not been started yet. For a search that trains models on blocks of data, an X that
    was a collection remembers its blocks.

    Raises
    ------
    DataTooLargeError
        If one does not fit into the memory of a worker, or of this process.
    DataUnavailableError
        If one was persisted on a cluster that is gone.
    NoWorkersError
        If no worker came within the time-out.
    """
    began = time.monotonic()

    def check_for_workers(client: Client) -> None:
        late = time.monotonic() > began + settings.worker_timeout_s
        if late and not client.scheduler_info()["workers"]:
            raise no_workers(settings.worker_timeout_s, features_of(client))

    client = settings.client or current_client()
    if client is not None:
        check_client(client)
    named = {"X": X, "y": y} | params
    sizes = block_sizes(X) if is_incremental(search) else None
    values = computed(named, client, still_waiting=check_for_workers)
    X = values.pop("X")
    return X if sizes is None else RowBlocks(X, sizes), values.pop("y"), values
