"""Takes over a search's ``evaluate_candidates`` for the time of its fit.

scikit-learn's search code calls ``evaluate_candidates`` one or more times. `EvaluationHook`
wraps that function, by hooks on the search instance, so that a `Recorder` gets the
candidates and splits of each call. A search that is stopped midway is completed with its
finished candidates: the same scikit-learn code builds ``cv_results_`` from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dask_hpsearch import sklearn_adapter
from dask_hpsearch.engine.racing import RaceOver
from dask_hpsearch.exceptions import RunCancelledError, SearchStopped
from dask_hpsearch.raised_errors import came_from_fit
from dask_hpsearch.recorder.call import (
    BegunElsewhereError,
    RecordedCall,
    RecordingSplitter,
    worst_for_nan,
)
from dask_hpsearch.sklearn_adapter import callbacks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dask_hpsearch.recorder.recorder import Evaluate, Recorder

# Runs a search; returns False if the search's own code is to run.
Strategy = Callable[[Any, "Evaluate"], bool]


class EvaluationHook:
    """Reports the ``evaluate_candidates`` calls of one search to a recorder.

    Parameters
    ----------
    recorder : Recorder
    tolerant : bool
        Whether the search's own strategy gets the worst score for failed candidates
        instead of NaN.

    Attributes
    ----------
    evaluating : bool
        Whether the search has checked its input; the next ``Parallel`` object is its own.
    stopped : str or None
        Why the search ended early, if it did.
    strategy : callable or None
        Runs the search instead of its own code. Its method ``complete``, if it has one,
        completes a search that was stopped.
    """

    def __init__(self, recorder: Recorder, *, tolerant: bool = False) -> None:
        self.evaluating = False
        self.stopped: str | None = None
        self.strategy: Strategy | None = None
        self._recorder = recorder
        self._tolerant = tolerant

    @contextmanager
    def attached(self, search: Any) -> Iterator[None]:
        """Wrap a search's ``evaluate_candidates`` while the block runs."""
        own_strategy = sklearn_adapter.strategy_of(search)
        own_check = sklearn_adapter.check_of(search)

        def run(evaluate_candidates: Evaluate, **more: Any) -> None:
            self._run(search, own_strategy, evaluate_candidates, more)

        def check_input(*args: Any, **kwargs: Any) -> None:
            own_check(*args, **kwargs)
            self.evaluating = True

        with sklearn_adapter.hooked(search, strategy=run, check=check_input):
            yield

    def _run(
        self,
        search: Any,
        own_strategy: Callable[..., None],
        evaluate: Evaluate,
        more: dict[str, Any],
    ) -> None:
        """Run the search; if it is stopped, complete it with its finished candidates."""
        try:
            if self.strategy is None or not self.strategy(search, evaluate):
                own_strategy(self._recorded(search, evaluate), **more)
        except (SearchStopped, KeyboardInterrupt) as stop:
            if came_from_fit(stop):
                raise
            self._note_stop(stop)
            self._complete(search, evaluate, stop)
        self._recorder.report_failures()

    def _recorded(self, search: Any, evaluate: Evaluate) -> Evaluate:
        """Return the ``evaluate_candidates`` that the search's own strategy calls."""

        def recorded(
            candidate_params: Any,
            cv: Any = None,
            more_results: Any = None,
            **kwargs: Any,
        ) -> Mapping[str, Any]:
            call = self._recorder.begin_call(list(candidate_params), more_results)
            splitter = cv or sklearn_adapter.splitter_of(search)
            called = callbacks.are_called(search, call.candidates)
            if callbacks.CONTEXT in kwargs and not called:
                # With it, scikit-learn makes an object for each fit: half a GiB for a million.
                kwargs[callbacks.CONTEXT] = None
            try:
                results = self._evaluate(call, evaluate, splitter, kwargs)
            except BegunElsewhereError:  # another driver of the run was first
                results = self._evaluate(call, evaluate, splitter, kwargs)
            call.taken_in = True
            return self._for_strategy(results)

        return recorded

    def _evaluate(
        self, call: RecordedCall, evaluate: Evaluate, splitter: Any, more: Any
    ) -> Mapping[str, Any]:
        """Evaluate a call, with the stored candidates and splits if there are any.

        If candidates were dropped, its results are those of the complete ones.
        """
        stored = self._recorder.recall(call)

        def note(splits: list[Any]) -> None:
            self._recorder.note_splits(call, splits, stored=stored)

        if call.splits:
            splitter = sklearn_adapter.FixedSplits(call.splits)
        try:
            return evaluate(
                call.candidates,
                cv=RecordingSplitter(splitter, note),
                more_results=call.more_results,
                **more,
            )
        except RaceOver:
            return self._recorder.build_results(call, evaluate)

    def _for_strategy(self, results: Mapping[str, Any]) -> Mapping[str, Any]:
        """Replace NaN by the worst score, for a model-based strategy."""
        if not self._tolerant:
            return results
        return {
            key: worst_for_nan(value) if key.startswith("mean_test_") else value
            for key, value in results.items()
        }

    def _note_stop(self, stop: BaseException) -> None:
        self.stopped = (
            "interrupted" if isinstance(stop, KeyboardInterrupt) else str(stop)
        )
        if self.stopped == "cancelled":
            msg = "the run was cancelled"
            raise RunCancelledError(msg) from None

    def _complete(self, search: Any, evaluate: Evaluate, stop: BaseException) -> None:
        """Have scikit-learn build results of the finished candidates."""
        own = getattr(self.strategy, "complete", None)
        finished = self._finished(evaluate) if own is None else own(search, evaluate)
        if not finished:
            if isinstance(stop, KeyboardInterrupt):
                raise stop
            raise SearchStopped(self._recorder.too_early_message(str(stop))) from None
        sklearn_adapter.complete_stopped_search(search, finished)

    def _finished(self, evaluate: Evaluate) -> list[list[dict[str, Any]]]:
        """Complete the last call; return the finished candidates of each call."""
        calls = self._recorder.calls
        finished = [call.candidates for call in calls if call.taken_in]
        cut = [call for call in calls if not call.taken_in]
        if cut and cut[-1].complete():
            self._recorder.hide_failures(cut[-1].complete_results())
            self._recorder.build_results(cut[-1], evaluate)
            complete = cut[-1].complete()
            finished.append([cut[-1].candidates[one] for one in complete])
        return finished
