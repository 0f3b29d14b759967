"""Records what a search evaluates: candidates and splits of each call, then results.

scikit-learn's search code calls ``evaluate_candidates`` one or more times. `Recorder`
stands around it, by hooks on the instance for the time of the fit, and keeps for every call
its candidates and splits and every finished fit by its ordinals (call, candidate, split).
With that, a search that is stopped midway is completed from what it has: the same
scikit-learn code builds ``cv_results_`` from the candidates that finished.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from dask_hpsearch import sklearn_adapter
from dask_hpsearch.exceptions import RunCancelledError, SearchStopped, StoreError
from dask_hpsearch.journal.next_steps import to_resume
from dask_hpsearch.raised_errors import came_from_fit
from dask_hpsearch.recorder.call import (
    BegunElsewhereError,
    RecordedCall,
    RecordingSplitter,
    extend_call,
    worst_for_nan,
)
from dask_hpsearch.recorder.failures import FailedCalls

if TYPE_CHECKING:
    from dask_hpsearch.journal.run_journal import RunJournal
    from dask_hpsearch.progress import SearchProgress
    from dask_hpsearch.sklearn_adapter import FitCall

Evaluate = Callable[..., Mapping[str, Any]]
Answering = Callable[[list[dict[str, Any]]], AbstractContextManager[None]]
# Runs a search in a way of our own; returns False if that is left to the search's own.
Strategy = Callable[[Any, Evaluate], bool]


class Recorder:
    """The record of one search; what it has, it gives back instead of a fit.

    Parameters
    ----------
    progress : SearchProgress
    refit : object
        The search's ``refit``: which of several scores counts.
    tolerant : bool
        Whether the search is to go on after a call whose every fit failed, where
        scikit-learn's own check would end it.
    journal : RunJournal, optional
        What the run has done before, and where new results go.
    unseeded : bool
        Whether the search would draw other candidates if asked again.
    """

    def __init__(
        self,
        progress: SearchProgress,
        *,
        refit: Any,
        tolerant: bool = False,
        journal: RunJournal | None = None,
        unseeded: bool = False,
    ) -> None:
        self.calls: list[RecordedCall] = []
        self._journal = journal
        self._unseeded = unseeded
        self._progress = progress
        self._refit = refit
        self._tolerant = tolerant
        self._failed_calls = FailedCalls(refit=refit, tolerant=tolerant)
        self._kept: list[int] | None = None
        self._lock = threading.Lock()
        self.stopped: str | None = None
        self.evaluating = False
        self.strategy: Strategy | None = None
        # By which known results are handed over at once, if there is a way.
        self.answering: Answering = lambda _: nullcontext()

    # --- around evaluate_candidates ---------------------------------------------------

    @contextmanager
    def driving(self, search: Any) -> Iterator[None]:
        """Make the search report here while the block runs."""
        strategy = sklearn_adapter.strategy_of(search)
        check = sklearn_adapter.check_of(search)

        def run(evaluate_candidates: Evaluate, **more: Any) -> None:
            self.run(search, strategy, evaluate_candidates, more)

        def check_input(*args: Any, **kwargs: Any) -> None:
            check(*args, **kwargs)
            self.evaluating = True  # the search's own Parallel object comes next

        with sklearn_adapter.hooked(search, strategy=run, check=check_input):
            yield

    def run(
        self,
        search: Any,
        strategy: Callable[..., None],
        evaluate: Evaluate,
        more: dict[str, Any],
    ) -> None:
        """Run the search's own strategy; if it is stopped, complete what it has."""

        def recorded(
            candidate_params: Any,
            cv: Any = None,
            more_results: Any = None,
            **kwargs: Any,
        ) -> Mapping[str, Any]:
            call = self._begin(list(candidate_params), more_results)
            splitter = cv or sklearn_adapter.splitter_of(search)
            try:
                results = self._evaluate(call, evaluate, splitter, kwargs)
            except BegunElsewhereError:  # another driver of the run was first
                results = self._evaluate(call, evaluate, splitter, kwargs)
            call.taken_in = True
            return self._for_strategy(results)

        try:
            if self.strategy is None or not self.strategy(search, evaluate):
                strategy(recorded, **more)
        except (SearchStopped, KeyboardInterrupt) as stop:
            if came_from_fit(stop):
                raise
            self.stopped = (
                "interrupted" if isinstance(stop, KeyboardInterrupt) else str(stop)
            )
            if self.stopped == "cancelled":
                msg = "the run was cancelled"
                raise RunCancelledError(msg) from None
            self._complete(search, evaluate, stop)
        self._failed_calls.report(self.calls)

    def _evaluate(
        self, call: RecordedCall, evaluate: Evaluate, splitter: Any, more: Any
    ) -> Mapping[str, Any]:
        """Evaluate a call, as it was stored if the journal has it."""
        stored = self._journal is not None and self._recall(call)

        def note(splits: list[Any]) -> None:
            call.splits = splits
            if self._journal is not None and not stored:
                self._journal_call(self._journal, call)
            self._show_started(call)

        if call.splits:
            splitter = sklearn_adapter.FixedSplits(call.splits)
        return evaluate(
            call.candidates,
            cv=RecordingSplitter(splitter, note),
            more_results=call.more_results,
            **more,
        )

    def _recall(self, call: RecordedCall) -> bool:
        """Take a call's candidates, splits and results from the journal.

        Random choices are read, not made again. True if the call itself is there; an
        extended run finds there the results of the run before.
        """
        assert self._journal is not None  # noqa: S101 (the caller looked)
        kept = self._journal.stored_call(call.ordinal)
        if kept is not None:
            call.candidates = kept.candidates
            call.more_results = kept.more_results
            call.splits, call.results = kept.splits, kept.results
            if call.complete() == list(range(len(call.candidates))):
                self._failed_calls.hide(list(call.results.values()), self.calls)
            return True
        earlier = self._journal.earlier_call(call.ordinal)
        if earlier is not None:
            extend_call(call, earlier, keep_candidates=self._unseeded)
        return False

    def _journal_call(self, journal: RunJournal, call: RecordedCall) -> None:
        try:
            first = journal.begin_call(
                call.ordinal, call.candidates, call.splits, call.more_results
            )
        except StoreError as error:  # the search ends with the calls before
            journal.give_up(error)
            raise SearchStopped("store") from error  # noqa: EM101 (a reason)
        if not first:
            call.splits = []
            raise BegunElsewhereError
        for (candidate, split), result in call.results.items():
            journal.fit_finished(
                call.ordinal,
                candidate,
                split,
                call.candidates[candidate],
                result,
                shown_as_finished=lambda: None,
            )

    def _show_started(self, call: RecordedCall) -> None:
        self._progress.call_started(
            call.ordinal,
            n_candidates=len(call.candidates),
            n_splits=len(call.splits),
            resets_best="n_resources" in (call.more_results or {}),
        )
        for (candidate, split), result in call.results.items():
            self._show_finished(call, candidate, split, result)

    def _show_finished(
        self, call: RecordedCall, candidate: int, split: int, result: Mapping[str, Any]
    ) -> None:
        asked = call.asks.get(candidate)
        self._progress.fit_finished(
            call.ordinal,
            candidate,
            split,
            params=call.candidates[candidate] if asked is None else asked[1],
            score=sklearn_adapter.score_of(result, self._refit),
            fit_time=float(result.get("fit_time") or 0.0),
            failed=result.get("fit_error") is not None,
        )

    def _begin(
        self, candidates: list[dict[str, Any]], more_results: Any
    ) -> RecordedCall:
        call = RecordedCall(len(self.calls), candidates, more_results)
        with self._lock:
            self.calls.append(call)
        return call

    def _for_strategy(self, results: Mapping[str, Any]) -> Mapping[str, Any]:
        """Let a model-based strategy see failed candidates as the worst, not as NaN."""
        if not self._tolerant:
            return results
        return {
            key: worst_for_nan(value) if key.startswith("mean_test_") else value
            for key, value in results.items()
        }

    # --- for a strategy of our own ----------------------------------------------------

    def splitter_of(self, search: Any, noted: Callable[[list[Any]], None]) -> Any:
        """Return a search's own splitter, which tells its splits."""
        return RecordingSplitter(sklearn_adapter.splitter_of(search), noted)

    def explored_before(self) -> bool | None:
        """Tell whether the run began as an exploration; None if it is new."""
        return None if self._journal is None else self._journal.explores(0)

    def open_call(self, splits: list[Any], *, n_candidates: int) -> RecordedCall:
        """Begin a call to whose ``candidates`` the strategy adds as it goes.

        What the journal has of it is given back: ``asks`` and ``results``.
        """
        call = self._begin([], None)
        call.still_open = True
        call.splits = splits
        if self._journal is not None:
            kept = self._journal.begin_exploration(
                call.ordinal, splits, n_candidates=n_candidates
            )
            call.splits, call.asks, call.results = kept.splits, kept.asks, kept.results
        self._progress.call_started(
            call.ordinal, n_candidates=n_candidates, n_splits=len(call.splits)
        )
        for (candidate, split), result in call.results.items():
            self._show_finished(call, candidate, split, result)
        return call

    def asked(
        self, call: RecordedCall, candidate: int, space: int, params: Mapping[str, Any]
    ) -> None:
        """Note that a candidate was asked, before its fits begin."""
        if self._journal is not None:
            self._journal.asked(call.ordinal, candidate, space, params)

    def told(
        self, call: RecordedCall, candidate: int, space: int, value: float
    ) -> None:
        """Note that a strategy was told a candidate's value."""
        if self._journal is not None:
            self._journal.told(call.ordinal, candidate, space, value)

    def close_call(self, call: RecordedCall, evaluate: Evaluate) -> None:
        """Have scikit-learn build its results from a call's complete candidates."""
        self._kept = call.complete()
        with self.answering(_results_of(call, self._kept)):
            evaluate(
                [call.candidates[candidate] for candidate in self._kept],
                cv=sklearn_adapter.FixedSplits(call.splits),
            )
        call.taken_in = True

    def _complete(self, search: Any, evaluate: Evaluate, stop: BaseException) -> None:
        """Have scikit-learn take in the finished candidates of the call that was cut."""
        finished = [call.candidates for call in self.calls if call.taken_in]
        cut = [call for call in self.calls if not call.taken_in]
        kept = cut[-1].complete() if cut else []
        if kept:
            self._kept = kept
            results = _results_of(cut[-1], kept)
            self._failed_calls.hide(results, self.calls)
            finished.append([cut[-1].candidates[candidate] for candidate in kept])
            columns = {
                key: [values[candidate] for candidate in kept]
                for key, values in (cut[-1].more_results or {}).items()
            }
            with self.answering(results):
                evaluate(
                    finished[-1],
                    cv=sklearn_adapter.FixedSplits(cut[-1].splits),
                    more_results=columns or None,
                )
        if not finished:
            if isinstance(stop, KeyboardInterrupt):
                raise stop
            raise SearchStopped(self._stopped_too_early(str(stop))) from None
        sklearn_adapter.complete_stopped_search(search, finished)

    def _stopped_too_early(self, reason: str) -> str:
        text = (
            f"the search was stopped ({reason}) before any candidate had finished: "
            "give it more time"
        )
        if self._journal is None:
            return text
        limit = f"{reason}=..." if reason in ("max_time", "max_cost") else ""
        return f"{text}; {to_resume(self._journal.folder.store.url, limit)}"

    # --- FitLog -----------------------------------------------------------------------

    @property
    def n_fits(self) -> int:
        """Fits of the call that begins."""
        if not self.calls:
            return 0
        return len(self.calls[-1].candidates) * len(self.calls[-1].splits)

    def known(self, call: FitCall) -> dict[str, Any] | None:
        """Return the result of a fit that finished before."""
        if call.candidate is None or call.split is None or not self.calls:
            return None
        kept = self._kept
        candidate = call.candidate if kept is None else kept[call.candidate]
        return self.calls[-1].results.get((candidate, call.split))

    def finished(self, call: FitCall, result: dict[str, Any]) -> dict[str, Any]:
        """Note a result by its ordinals."""
        if call.candidate is None or call.split is None:
            return result
        with self._lock:
            recorded = self.calls[-1]
        shown = functools.partial(
            self._show_finished, recorded, call.candidate, call.split, dict(result)
        )
        if self._journal is None:
            shown()
        else:
            self._journal.fit_finished(
                recorded.ordinal,
                call.candidate,
                call.split,
                recorded.candidates[call.candidate],
                result,
                shown_as_finished=shown,
            )
        recorded.results[call.candidate, call.split] = result
        self._failed_calls.error_score = call.shared.get("error_score")
        n_fits = len(recorded.candidates) * len(recorded.splits)
        if len(recorded.results) == n_fits and not recorded.still_open:
            self._failed_calls.hide(list(recorded.results.values()), self.calls)
        return result


def _results_of(call: RecordedCall, candidates: list[int]) -> list[dict[str, Any]]:
    """Return the results of complete candidates, in scikit-learn's order of fits."""
    splits = range(len(call.splits))
    return [
        call.results[candidate, split] for candidate in candidates for split in splits
    ]
