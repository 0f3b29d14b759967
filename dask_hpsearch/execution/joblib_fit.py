"""Fits anything that parallelises with joblib, by Dask's own joblib backend."""

from __future__ import annotations

import socket
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import joblib

from dask_hpsearch import sklearn_adapter
from dask_hpsearch.exceptions import UnsupportedSearchError
from dask_hpsearch.execution.client import client_for, wait_for_worker
from dask_hpsearch.execution.fitted import Fitted
from dask_hpsearch.sklearn_adapter import callbacks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client

    from dask_hpsearch.execution.settings import Settings


def fit_joblib(
    search: Any, X: Any, y: Any, params: dict[str, Any], settings: Settings
) -> Fitted:
    """Fit anything that parallelises with joblib, on Dask's own joblib backend."""
    is_search = sklearn_adapter.is_search(search)
    fitted = sklearn_adapter.without_fitted_state(search)
    with ExitStack() as stack:
        client = stack.enter_context(client_for(settings, search))
        _check_callbacks(fitted, client)
        wait_for_worker(client, settings.worker_timeout_s)
        if is_search:
            stack.enter_context(_all_parallel(fitted))
        stack.enter_context(joblib.parallel_config(backend="dask", client=client))
        args = (X,) if y is None else (X, y)
        fitted.fit(*args, **params)
    return Fitted(fitted)


@contextmanager
def _all_parallel(search: Any) -> Iterator[None]:
    """Let the search hand over all its tasks, so that later workers are used too.

    ``n_jobs`` is ignored. A ``pre_dispatch`` that is a number is obeyed; a string is not,
    since joblib computes it from the ``n_jobs`` of the start.
    """
    own = {
        name: getattr(search, name)
        for name in ("n_jobs", "pre_dispatch")
        if hasattr(search, name)
    }
    if "n_jobs" in own:
        search.n_jobs = -1
    if isinstance(own.get("pre_dispatch"), str):
        search.pre_dispatch = "all"
    try:
        yield
    finally:
        vars(search).update(own)


def _check_callbacks(search: Any, client: Client) -> None:
    """Refuse callbacks that Dask's joblib backend cannot relay from elsewhere."""
    found = callbacks.callbacks_of(search)
    if not found:
        return
    hosts = set(client.run(socket.gethostname).values())
    if hosts - {socket.gethostname()}:
        names = ", ".join(type(one).__name__ for one in found)
        msg = (
            f"scikit-learn callbacks ({names}) cannot reach workers on other machines "
            f"({', '.join(sorted(hosts))}) through Dask's joblib backend: use "
            "backend='trials', or unset them with set_callbacks()"
        )
        raise UnsupportedSearchError(msg)
