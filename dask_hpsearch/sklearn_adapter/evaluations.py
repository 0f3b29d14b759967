"""Calls of ``evaluate_candidates`` that run no fit.

Private parts of scikit-learn that are used:

* the variable ``parallel`` in the closure of ``evaluate_candidates``: the ``Parallel``
  object that runs the fits of a search;
* ``_fit_and_score``, by which the captured fits are recognised: see `fit_calls`.
"""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dask_hpsearch.sklearn_adapter.fit_calls import fit_call_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from dask_hpsearch.sklearn_adapter.fit_calls import FitCall

# One of the tasks that a Parallel object is called with.
_Task = tuple[Any, tuple[Any, ...], dict[str, Any]]


def parallel_of(evaluate: Callable[..., Any]) -> Any:
    """Return the ``Parallel`` object of a search's ``evaluate_candidates``."""
    return inspect.getclosurevars(evaluate).nonlocals["parallel"]


@contextmanager
def answering(
    parallel: Any, answer: Callable[[Iterable[_Task]], list[Any]]
) -> Iterator[None]:
    """Let a ``Parallel`` object answer its calls without running their tasks."""
    own = type(parallel)
    members = {"__call__": lambda _self, tasks: answer(tasks)}
    parallel.__class__ = type(own.__name__, (own,), members)
    try:
        yield
    finally:
        parallel.__class__ = own


class _CapturedError(Exception):
    """Ends a call whose first fit was captured."""

    def __init__(self, call: FitCall | None) -> None:
        super().__init__("the fit was captured")
        self.call = call


def first_fit(parallel: Any, evaluate: Callable[[], Any]) -> FitCall | None:
    """Return the first fit of an ``evaluate_candidates`` call without running any.

    scikit-learn adds nothing to its results.

    Parameters
    ----------
    parallel : Parallel
        Of the search.
    evaluate : callable
        Makes the call.

    Returns
    -------
    FitCall or None
        None if the first task is not a fit.
    """

    def capture(tasks: Iterable[_Task]) -> list[Any]:
        function, arguments, keywords = next(iter(tasks))
        # The wrapper gets scikit-learn's configuration only when the task is run.
        bare = getattr(function, "function", function)
        raise _CapturedError(fit_call_of((bare, arguments, keywords)))

    try:
        with answering(parallel, capture):
            evaluate()
    except _CapturedError as captured:
        return captured.call
    return None
