"""Takes over a search's ``evaluate_candidates`` for the time of its fit.

scikit-learn's search code calls ``evaluate_candidates`` one or more times. `EvaluationHook`
stands around it, by hooks on the instance: the candidates and splits of each call are
noted by a `Recorder`, which also says what need not run again. A search that is stopped
midway is completed from what it has: the same scikit-learn code builds ``cv_results_``
from the candidates that finished.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dask_hpsearch import sklearn_adapter
from dask_hpsearch.exceptions import RunCancelledError, SearchStopped
from dask_hpsearch.raised_errors import came_from_fit
from dask_hpsearch.recorder.call import (
    BegunElsewhereError,
    RecordedCall,
    RecordingSplitter,
    worst_for_nan,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dask_hpsearch.recorder.recorder import Evaluate, Recorder

# Runs a search in its own way; returns False if that is left to the search's own code.
Strategy = Callable[[Any, "Evaluate"], bool]


class EvaluationHook:
    """Lets one search report its calls to a recorder.

    Parameters
    ----------
    recorder : Recorder
    tolerant : bool
        Whether failed candidates are the worst to the search's own strategy, not NaN.

    Attributes
    ----------
    evaluating : bool
        Whether the search has checked its input: its own ``Parallel`` object comes next.
    stopped : str or None
        Why the search ended early, if it did.
    strategy : callable or None
        Runs the search instead of its own code.
    """

    def __init__(self, recorder: Recorder, *, tolerant: bool = False) -> None:
        self.evaluating = False
        self.stopped: str | None = None
        self.strategy: Strategy | None = None
        self._recorder = recorder
        self._tolerant = tolerant

    @contextmanager
    def attached(self, search: Any) -> Iterator[None]:
        """Stand around a search's ``evaluate_candidates`` while the block runs."""
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
        """Run the search; if it is stopped, complete it from what it has."""
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
        """Return ``evaluate_candidates`` as the search's own strategy gets it."""

        def recorded(
            candidate_params: Any,
            cv: Any = None,
            more_results: Any = None,
            **kwargs: Any,
        ) -> Mapping[str, Any]:
            call = self._recorder.begin_call(list(candidate_params), more_results)
            splitter = cv or sklearn_adapter.splitter_of(search)
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
        """Evaluate a call, as it was stored if the journal has it."""
        stored = self._recorder.recall(call)

        def note(splits: list[Any]) -> None:
            self._recorder.note_splits(call, splits, stored=stored)

        if call.splits:
            splitter = sklearn_adapter.FixedSplits(call.splits)
        return evaluate(
            call.candidates,
            cv=RecordingSplitter(splitter, note),
            more_results=call.more_results,
            **more,
        )

    def _for_strategy(self, results: Mapping[str, Any]) -> Mapping[str, Any]:
        """Let a model-based strategy see failed candidates as the worst, not as NaN."""
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
        """Have scikit-learn take in the finished candidates of the call that was cut."""
        calls = self._recorder.calls
        finished = [call.candidates for call in calls if call.taken_in]
        cut = [call for call in calls if not call.taken_in]
        if cut and cut[-1].complete():
            self._recorder.hide_failures(cut[-1].complete_results())
            finished.append(self._recorder.build_results(cut[-1], evaluate))
        if not finished:
            if isinstance(stop, KeyboardInterrupt):
                raise stop
            raise SearchStopped(self._recorder.too_early(str(stop))) from None
        sklearn_adapter.complete_stopped_search(search, finished)
