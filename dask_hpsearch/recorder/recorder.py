"""Records a search: candidates and splits of each call, then results.

`Recorder` keeps the candidates and splits of every ``evaluate_candidates`` call, and every
finished fit by its ordinals (call, candidate, split): in memory, in the progress display,
and in the journal of a run. A fit whose result it has need not run.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from dask_hpsearch import sklearn_adapter
from dask_hpsearch.exceptions import SearchStopped, StoreError
from dask_hpsearch.recorder.call import RecordedCall, RecordingSplitter
from dask_hpsearch.recorder.failures import FailedCalls
from dask_hpsearch.recorder.listener import RecordListener
from dask_hpsearch.recorder.replay import Replay
from dask_hpsearch.recorder.standings import EarlyEnds, Standings

if TYPE_CHECKING:
    from dask_hpsearch.engine.racing import Race
    from dask_hpsearch.journal.run_journal import RunJournal
    from dask_hpsearch.progress import SearchProgress
    from dask_hpsearch.sklearn_adapter import FitCall

Evaluate = Callable[..., Mapping[str, Any]]
Answering = Callable[[list[dict[str, Any]]], AbstractContextManager[None]]


class Recorder:
    """The record of one search.

    Parameters
    ----------
    progress : SearchProgress
    refit : object
        The search's ``refit``: which of several scores counts.
    tolerant : bool
        Whether the search is to go on after a call whose every fit failed, where
        scikit-learn's own check would end it.
    journal : RunJournal, optional
        Has the run's earlier results, and takes new ones.
    unseeded : bool
        Whether the search would draw other candidates a second time.
    early_ends : EarlyEnds
        Rules by which scores drop candidates or end the search.
    listener : RecordListener, optional

    Attributes
    ----------
    calls : list of RecordedCall
    answering : callable
        Returns a context in which the search's ``Parallel`` object answers its next call
        with given results; by default one that does nothing.
    stop : callable
        Ends the search with its complete candidates; called with the reason.
    stored : callable
        Called with the ordinals of a fit (call, candidate, split) once its result is in the
        journal, if there is one.
    """

    def __init__(
        self,
        progress: SearchProgress,
        *,
        refit: Any,
        tolerant: bool = False,
        journal: RunJournal | None = None,
        unseeded: bool = False,
        early_ends: EarlyEnds = EarlyEnds(),  # noqa: B008 (it is immutable)
        listener: RecordListener | None = None,
    ) -> None:
        self.calls: list[RecordedCall] = []
        self.stop: Callable[[str], None] = lambda _: None
        self.answering: Answering = lambda _: nullcontext()
        self.forget_stored()
        self._journal = journal
        self._replay = None if journal is None else Replay(journal, unseeded=unseeded)
        self._progress = progress
        self._listener = listener or RecordListener()
        self._refit = refit
        self._tolerant = tolerant
        self._failed_calls = FailedCalls(refit=refit, tolerant=tolerant)
        self._standings = Standings(early_ends, refit=refit)
        self._kept: list[int] | None = None
        self._lock = threading.Lock()

    def forget_stored(self) -> None:
        """Call `stored` no more."""
        self.stored: Callable[[int, int, int], None] = lambda *_: None

    # --- calls of the search's own strategy ---------------------------------------------

    def begin_call(
        self, candidates: list[dict[str, Any]], more_results: Any = None
    ) -> RecordedCall:
        """Begin an ``evaluate_candidates`` call."""
        call = RecordedCall(len(self.calls), candidates, more_results)
        self._kept = None
        with self._lock:
            self.calls.append(call)
        return call

    def recall(self, call: RecordedCall) -> bool:
        """Give a call its data from the journal; return whether the call is stored."""
        if self._replay is None or not self._replay.recall(call):
            return False
        if call.complete() == list(range(len(call.candidates))):
            self.hide_failures(list(call.results.values()))
        return True

    def note_splits(
        self, call: RecordedCall, splits: list[Any], *, stored: bool
    ) -> None:
        """Note a call's splits, and store the call unless it is stored already.

        Raises
        ------
        SearchStopped
            If the store cannot be written.
        BegunElsewhereError
            If another driver of the run has stored the call first.
        """
        call.splits = splits
        if self._replay is not None and not stored:
            self._replay.store(call)
        self._show_started(
            call,
            n_candidates=len(call.candidates),
            resets_best="n_resources" in (call.more_results or {}),
        )
        self._begin_standings(call)

    # --- calls of a strategy that asks candidates one by one ----------------------------

    def splitter_of(self, search: Any, noted: Callable[[list[Any]], None]) -> Any:
        """Return the search's own splitter; ``noted`` is called with its splits."""
        return RecordingSplitter(sklearn_adapter.splitter_of(search), noted)

    def explored_before(self) -> bool | None:
        """Whether the run began as an exploration; None if it is new."""
        return None if self._replay is None else self._replay.explores()

    def open_call(
        self,
        splits: list[Any],
        *,
        n_candidates: int,
        more_results: Mapping[str, list[Any]] | None = None,
    ) -> RecordedCall:
        """Begin a call to whose ``candidates`` the strategy adds as it goes.

        It has the ``asks`` and ``results`` that the journal has.

        Parameters
        ----------
        splits : list of (train, test)
        n_candidates : int
            How many candidates are expected.
        more_results : mapping of str to list, optional
            Further columns, with one value for all candidates.
        """
        call = self.begin_call([], more_results)
        call.still_open = True
        call.splits = splits
        if self._replay is not None:
            self._replay.recall_exploration(call, n_candidates=n_candidates)
        self._show_started(call, n_candidates=n_candidates)
        self._begin_standings(call)
        return call

    def note_ask(
        self, call: RecordedCall, candidate: int, space: int, params: Mapping[str, Any]
    ) -> None:
        """Note that a candidate was asked, before its fits begin."""
        if self._replay is not None:
            self._replay.note_ask(call, candidate, space, params)

    def store(self) -> None:
        """Return once all that was noted is in the journal.

        Raises
        ------
        SearchStopped
            If the store cannot be written.
        """
        if self._journal is None:
            return
        try:
            self._journal.flush()
        except StoreError as error:
            raise self.give_up(error) from error

    def give_up(self, error: StoreError) -> SearchStopped:
        """Note that the run's store cannot be written; return what ends the search."""
        if self._journal is not None:
            self._journal.give_up(error)
        return SearchStopped("store")  # a reason

    def note_tell(
        self,
        call: RecordedCall,
        candidate: int,
        space: int,
        value: float,
        *,
        trial: str | None = None,
    ) -> None:
        """Note the value of a candidate that a strategy was told."""
        if self._replay is not None:
            self._replay.note_tell(call, candidate, space, value, trial=trial)
        if trial is not None:
            ended = functools.partial(
                self._listener.trial_ended, call, candidate, trial
            )
            if self._journal is None:
                ended()
            else:
                self._journal.when_written(ended)

    def note_report(
        self,
        call: RecordedCall,
        candidate: int,
        step: int,
        values: Sequence[float],
        *,
        pruned: bool,
        marks: Mapping[str, Any],
    ) -> None:
        """Note scores that were reported to a pruner, and drop the candidate it ended."""
        if self._replay is not None:
            self._replay.note_report(
                call, candidate, step, values, pruned=pruned, marks=marks
            )
        if pruned:
            self.drop(call, candidate)

    def drop(self, call: RecordedCall, candidate: int) -> None:
        """Drop a candidate that a strategy has given up, unless that is known."""
        if candidate not in call.dropped:
            self._drop(call, candidate)

    @property
    def run_id(self) -> str:
        """The name of the run; empty without a journal."""
        return "" if self._replay is None else self._replay.run_id

    # --- the end of a call, and of the search -------------------------------------------

    def build_results(
        self, call: RecordedCall, evaluate: Evaluate
    ) -> Mapping[str, Any]:
        """Have scikit-learn build its results from a call's complete candidates."""
        self._kept = kept = call.complete()
        candidates = [call.candidates[candidate] for candidate in kept]
        columns = {
            key: [values[candidate] for candidate in kept]
            for key, values in (call.more_results or {}).items()
        }
        with self.answering(call.complete_results()):
            results = evaluate(
                candidates,
                cv=sklearn_adapter.FixedSplits(call.splits),
                more_results=columns or None,
            )
        call.taken_in = True
        self._report_dropped_failures(call)
        return results

    def hide_failures(self, results: list[dict[str, Any]]) -> None:
        """Hide the failures of a call from scikit-learn if all its fits have failed."""
        self._failed_calls.hide(results, self.calls)

    def report_failures(self) -> None:
        """Warn of the hidden failures, or raise if all fits have failed."""
        self._failed_calls.report(self.calls)

    def _report_dropped_failures(self, call: RecordedCall) -> None:
        """Warn of the failed fits of dropped candidates, which scikit-learn does not see."""
        complete = set(call.complete())
        errors = [
            None if candidate in complete else result["fit_error"]
            for (candidate, _), result in call.results.items()
            if candidate in complete or candidate in call.dropped
        ]
        if any(errors):
            sklearn_adapter.report_fit_errors(errors, self._failed_calls.error_score)

    def too_early_message(self, reason: str) -> str:
        """Return the message of a search that was stopped before it had any result."""
        text = (
            f"the search was stopped ({reason}) before any candidate had finished: "
            "give it more time"
        )
        if self._replay is None:
            return text
        limit = f"{reason}=..." if reason in ("max_time", "max_cost") else ""
        return f"{text}; {self._replay.how_to_go_on(limit)}"

    # --- FitLog -------------------------------------------------------------------------

    @property
    def n_fits(self) -> int:
        """Number of fits of the call that begins."""
        if not self.calls:
            return 0
        return len(self.calls[-1].candidates) * len(self.calls[-1].splits)

    @property
    def candidates(self) -> list[dict[str, Any]] | None:
        """All candidates of the search's rows; None if more come later."""
        if not self.calls or self.calls[-1].still_open or self._tolerant:
            return None
        return self.calls[-1].candidates

    @property
    def race(self) -> Race | None:
        """Which candidates of the present call are dropped; None if none may be."""
        return self._standings.race

    def drop_beaten(self) -> list[int]:
        """Drop the candidates that are beaten by the last result; return them."""
        beaten = self._standings.beaten()
        for candidate in beaten:
            self._drop(self.calls[-1], candidate)
        return beaten

    def known(self, call: FitCall) -> dict[str, Any] | None:
        """Return the result of a fit that finished before."""
        if call.candidate is None or call.split is None or not self.calls:
            return None
        if call.of_call is not None:
            known = self.calls[call.of_call].results
            return known.get((call.candidate, call.split))
        kept = self._kept
        candidate = call.candidate if kept is None else kept[call.candidate]
        return self.calls[-1].results.get((candidate, call.split))

    def finished(self, call: FitCall, result: dict[str, Any]) -> dict[str, Any]:
        """Note a result by its ordinals."""
        if call.candidate is None or call.split is None:
            return result
        with self._lock:
            recorded = self.calls[-1 if call.of_call is None else call.of_call]
        fit = recorded, call.candidate, call.split
        shown = functools.partial(self._finished_and_stored, *fit, dict(result))
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
            self.hide_failures(list(recorded.results.values()))
        reason = self._standings.take(recorded, call.candidate, call.split, result)
        if reason is not None:
            self.stop(reason)
        return result

    def _finished_and_stored(
        self, call: RecordedCall, candidate: int, split: int, result: Mapping[str, Any]
    ) -> None:
        self._show_finished(call, candidate, split, result)
        self._listener.fit_finished(call, candidate, split, result)
        self.stored(call.ordinal, candidate, split)

    def _begin_standings(self, call: RecordedCall) -> None:
        """Decide again what the results of the journal decide."""
        reason = self._standings.begin(call)
        self.drop_beaten()  # a killed driver may not have noted it
        if reason is not None:
            self.stop(reason)

    def _drop(self, call: RecordedCall, candidate: int) -> None:
        call.dropped.add(candidate)

        def shown() -> None:
            self._progress.candidate_dropped(call.ordinal, candidate)
            self._listener.candidate_dropped(call, candidate)

        if self._replay is None:
            shown()
            return
        asked = call.asks.get(candidate)
        params = call.candidates[candidate] if asked is None else asked[1]
        self._replay.note_drop(call, candidate, params, shown_as_dropped=shown)

    # --- progress -----------------------------------------------------------------------

    def _show_started(
        self, call: RecordedCall, *, n_candidates: int, resets_best: bool = True
    ) -> None:
        self._progress.call_started(
            call.ordinal,
            n_candidates=n_candidates,
            n_splits=len(call.splits),
            resets_best=resets_best,
            still_open=call.still_open,
        )
        for (candidate, split), result in call.results.items():
            self._show_finished(call, candidate, split, result)
        for candidate in call.dropped:
            self._progress.candidate_dropped(call.ordinal, candidate)
        self._listener.call_began(call)

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
