"""dask-ml's own searches, run to their end in this process: what ours are compared with.

dask-ml's loop submits futures to a client, which fails on current versions of Dask. Here the
same code gets a client that computes at once: each task runs where dask-ml would submit it.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from types import FunctionType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
from dask_ml.model_selection import _incremental

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Base = _incremental.BaseIncrementalSearchCV
TIMES = ("partial_fit_time", "score_time", "elapsed_wall_time")


@dataclass(eq=False)
class Done:
    """A task that has run, in the forms in which dask-ml uses one."""

    value: Any
    key: Any = None

    def __await__(self) -> Any:
        yield from ()
        return self.value

    async def result(self) -> Any:
        """Return the value, as a future of an asynchronous client does."""
        return self.value

    @property
    def dask(self) -> dict[str, Done]:
        """The graph of a collection of one task."""
        return {"task": self}


def value_of(thing: Any) -> Any:
    """Return the value of a task, also within a container."""
    if isinstance(thing, Done):
        return thing.value
    if isinstance(thing, list):
        return [value_of(one) for one in thing]
    if isinstance(thing, dict):
        return {key: value_of(one) for key, one in thing.items()}
    return thing


def at_once(function: Callable[..., Any]) -> Callable[..., Done]:
    """Let a call of a function run when dask-ml makes a task of it."""

    def run(*args: Any, **kwargs: Any) -> Done:
        return Done(function(*map(value_of, args), **kwargs))

    return run


class ClientAtOnce:
    """Computes at once what dask-ml submits."""

    asynchronous = False

    def submit(self, function: Any, *args: Any, **kwargs: Any) -> Done:
        """Run a call."""
        return at_once(function)(*args, **kwargs)

    def map(self, function: Any, tasks: list[Done]) -> list[Done]:
        """Run a call for each."""
        return [self.submit(function, one) for one in tasks]

    def compute(self, thing: Any) -> Done:
        """Compute a collection."""
        computes = hasattr(thing, "compute")
        return Done(thing.compute(scheduler="sync") if computes else thing)

    async def gather(self, tasks: Any) -> Any:
        """Return the values of tasks."""
        return value_of(tasks)

    def sync(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a coroutine to its end."""
        return asyncio.run(function(*args, **kwargs))


def blocks_of(collection: Any) -> list[Done]:
    """Return the blocks of an array as tasks, with their keys."""
    return [
        Done(collection.blocks[index].compute(scheduler="sync"), key=index)
        for index in range(collection.numblocks[0])
    ]


async def _nothing(_: Any) -> None:
    return None


def with_names(function: Any, names: Mapping[str, Any]) -> Any:
    """Return dask-ml's function with other objects under some names."""
    made = FunctionType(
        function.__code__,
        {**function.__globals__, **names},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    made.__kwdefaults__ = function.__kwdefaults__
    return made


@contextlib.contextmanager
def at_once_in_dask_ml() -> Iterator[None]:
    """Have dask-ml's searches run at once."""
    names = {
        "default_client": ClientAtOnce,
        "dask": SimpleNamespace(delayed=at_once, persist=lambda *parts, **_: parts),
        "futures_of": blocks_of,
        "wait": _nothing,
    }
    loop = with_names(_incremental._fit, names)
    own = {name: vars(Base)[name] for name in ("_fit", "fit")}
    Base._fit = with_names(Base._fit, {"fit": loop})
    Base.fit = with_names(Base.fit, names)
    try:
        yield
    finally:
        for name, method in own.items():
            setattr(Base, name, method)


def fitted_by_dask_ml(search: Any, X: Any, y: Any, **fit_params: Any) -> Any:
    """Fit a search of dask-ml as dask-ml does; X and y are arrays of NumPy or Dask."""
    with at_once_in_dask_ml():
        return search.fit(X, y, **fit_params)


def in_blocks(X: np.ndarray, y: np.ndarray, rows: int) -> tuple[Any, Any]:
    """Return Dask arrays with blocks of so many rows."""
    return (
        da.from_array(X, chunks=(rows, X.shape[1])),
        da.from_array(y, chunks=(rows,)),
    )


def without_times(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a history as it is on any machine."""
    return [
        {key: one for key, one in entry.items() if key not in TIMES}
        for entry in history
    ]


def outcome_of(search: Any) -> dict[str, Any]:
    """Return all that a fitted search says, apart from times."""
    brackets = getattr(search, "_SuccessiveHalvings_", {0: search})
    metadata = getattr(search, "metadata_", None)
    for bracket in (metadata or {}).get("brackets", ()):
        bracket.pop("SuccessiveHalvingSearchCV params", None)
    return {
        "best": (search.best_index_, search.best_score_, search.best_params_),
        "history": {
            number: without_times(one.history_) for number, one in brackets.items()
        },
        "model_history": {
            ident: without_times(history)
            for ident, history in search.model_history_.items()
        },
        "cv_results": {
            name: list(column)
            for name, column in search.cv_results_.items()
            if not name.endswith("_time")
        },
        "keys": sorted(search.history_[0]),
        "columns": sorted(search.cv_results_),
        "metadata": metadata,
        "multimetric": search.multimetric_,
        "n_splits": getattr(search, "n_splits_", None),
        "own attributes": sorted(vars(search)),
        "state of the best": state_of(search.best_estimator_),
    }


def state_of(model: Any) -> dict[str, Any]:
    """Return what a model has learned, as lists."""
    return {
        name: np.asarray(one).tolist()
        for name, one in vars(model).items()
        if name.endswith("_") and not name.startswith("_")
    }
