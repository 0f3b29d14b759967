"""Replays a search from its run's journal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dask_hpsearch.exceptions import SearchStopped, StoreError
from dask_hpsearch.journal.next_steps import to_resume
from dask_hpsearch.recorder.call import BegunElsewhereError, extend_call

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dask_hpsearch.journal.run_journal import RunJournal
    from dask_hpsearch.recorder.call import RecordedCall


class Replay:
    """Reads a search's calls from the journal of its run, and stores new ones there.

    Candidates, splits and asks are random choices, which another machine may draw
    otherwise: once they are stored, they are read and not drawn again.

    Parameters
    ----------
    journal : RunJournal
    unseeded : bool
        Whether the search would draw other candidates a second time.
    """

    def __init__(self, journal: RunJournal, *, unseeded: bool) -> None:
        self._journal = journal
        self._unseeded = unseeded

    def recall(self, call: RecordedCall) -> bool:
        """Give a call its stored candidates, splits and results.

        Returns
        -------
        bool
            Whether the call itself is stored. The first time in an extended run it is
            not, but it gets the results of the earlier run.
        """
        kept = self._journal.stored_call(call.ordinal)
        if kept is not None:
            call.candidates = kept.candidates
            call.more_results = kept.more_results
            call.splits, call.results = kept.splits, kept.results
            call.dropped = kept.dropped
            return True
        earlier = self._journal.earlier_call(call.ordinal)
        if earlier is not None:
            extend_call(call, earlier, keep_candidates=self._unseeded)
        return False

    def store(self, call: RecordedCall) -> None:
        """Store a call, and the results that it has already.

        Raises
        ------
        SearchStopped
            If the store cannot be written: the search ends with the calls before.
        BegunElsewhereError
            If another driver of the run has stored the call first.
        """
        try:
            first = self._journal.begin_call(
                call.ordinal, call.candidates, call.splits, call.more_results
            )
        except StoreError as error:
            self._journal.give_up(error)
            raise SearchStopped("store") from error  # noqa: EM101 (a reason)
        if not first:
            call.splits = []
            raise BegunElsewhereError
        for (candidate, split), result in call.results.items():
            self._journal.fit_finished(
                call.ordinal,
                candidate,
                split,
                call.candidates[candidate],
                result,
                shown_as_finished=lambda: None,
            )
        for candidate in call.dropped:
            self.note_drop(call, candidate, call.candidates[candidate])

    def explores(self) -> bool | None:
        """Whether the run began as an exploration; None if it is new."""
        return self._journal.explores(0)

    def recall_exploration(self, call: RecordedCall, *, n_candidates: int) -> None:
        """Store a call whose candidates are asked one by one, or read it."""
        kept = self._journal.begin_exploration(
            call.ordinal,
            call.splits,
            n_candidates=n_candidates,
            more_results=call.more_results,
        )
        call.splits, call.asks, call.results = kept.splits, kept.asks, kept.results
        call.dropped, call.steps = kept.dropped, kept.steps

    def note_ask(
        self, call: RecordedCall, candidate: int, space: int, params: Mapping[str, Any]
    ) -> None:
        """Note that a candidate was asked."""
        self._journal.asked(call.ordinal, candidate, space, params)

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
        self._journal.told(call.ordinal, candidate, space, value, trial=trial)

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
        """Note scores that were reported to a pruner, and its decision."""
        self._journal.reported(
            call.ordinal, candidate, step, values, pruned=pruned, marks=marks
        )

    @property
    def run_id(self) -> str:
        """The run's name within its store."""
        return self._journal.folder.run_id

    def note_drop(
        self,
        call: RecordedCall,
        candidate: int,
        params: Mapping[str, Any],
        *,
        shown_as_dropped: Callable[[], None] = lambda: None,
    ) -> None:
        """Note that no further fit of a candidate begins."""
        self._journal.dropped(
            call.ordinal, candidate, params, shown_as_dropped=shown_as_dropped
        )

    def how_to_go_on(self, limit: str = "") -> str:
        """Return the run's URL and the call that resumes it, in words."""
        return to_resume(self._journal.folder.store.url, limit)
