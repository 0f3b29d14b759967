"""The threads of a fit: its slot's own, and those of slots that no other fit needs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

from joblib import parallel_config
from joblib.parallel import SequentialBackend, ThreadingBackend
from threadpoolctl import threadpool_limits

from dask_hpsearch.messages import THREADS_VARIABLE

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Mapping

T = TypeVar("T")

COUNT_VARIABLE = "LOKY_MAX_CPU_COUNT"  # the processors that joblib counts


def of_slot() -> int:
    """Return the number of threads that each slot has."""
    return int(os.environ.get(THREADS_VARIABLE, "1"))


def nested_calls_stay_here() -> contextlib.AbstractContextManager[Any]:
    """Run parallel calls inside a fit in the slot's own thread or threads.

    A slot has one core, unless it was given more. Otherwise slots would compete for the
    same cores if a fit has ``n_jobs=-1``.
    """
    return _running_in(of_slot())


def asks_for_more(estimator: Any, parameters: Mapping[str, Any] | None) -> bool:
    """Whether a part of an estimator has an ``n_jobs`` other than 1 and None.

    Parameters
    ----------
    estimator : estimator
    parameters : mapping of str to object, or None
        The candidate's parameters, which are not set on the estimator yet.
    """
    try:
        settings = {**estimator.get_params(), **(parameters or {})}
    except Exception:  # noqa: BLE001 (the user's code)
        return False
    return any(
        name.rpartition("__")[2] == "n_jobs" and type(value) is int and value != 1
        for name, value in settings.items()
    )


def run_with(threads: int, function: Callable[[], T]) -> T:
    """Call a function that may use several threads, in BLAS and OpenMP too."""
    before = os.environ.get(COUNT_VARIABLE)
    os.environ[COUNT_VARIABLE] = str(threads)
    try:
        with threadpool_limits(threads), _running_in(threads):
            return function()
    finally:
        if before is None:
            del os.environ[COUNT_VARIABLE]
        else:
            os.environ[COUNT_VARIABLE] = before


def _running_in(threads: int) -> contextlib.AbstractContextManager[Any]:
    one = SequentialBackend(nesting_level=1)
    backend = _SlotThreads(threads) if threads > 1 else one
    context: contextlib.AbstractContextManager[Any] = parallel_config(
        backend=backend, n_jobs=None
    )
    return context


class _SlotThreads(ThreadingBackend):  # type: ignore[misc]
    """Runs parallel calls inside a fit in at most as many threads as the slot has."""

    def __init__(self, most: int) -> None:
        super().__init__(nesting_level=1)
        self._most = most

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many tasks run at once."""
        return min(int(super().effective_n_jobs(n_jobs)), self._most)
