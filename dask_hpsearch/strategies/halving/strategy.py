"""Runs an `AsyncHalvingSearchCV` on the slots of a cluster.

Each rung is a recorded call: the lowest has all candidates, the others get promoted ones as
they are decided. At the end, scikit-learn builds its results from the known fits.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from dask_hpsearch.exceptions import StoreError
from dask_hpsearch.recorder.call import BegunElsewhereError
from dask_hpsearch.strategies.halving.continued_fits import MODEL_STATE
from dask_hpsearch.strategies.halving.exploration import Exploration, LeadingScore
from dask_hpsearch.strategies.halving.ladder import Job, RungLadder
from dask_hpsearch.strategies.halving.plain import captured_fit
from dask_hpsearch.strategies.halving.results import Row, build_results
from dask_hpsearch.strategies.halving.training import Training

if TYPE_CHECKING:
    from collections.abc import Callable

    from dask_hpsearch.engine.tasks import TaskGroup
    from dask_hpsearch.joblib_backend.session import Session
    from dask_hpsearch.recorder.call import RecordedCall
    from dask_hpsearch.recorder.recorder import Evaluate, Recorder
    from dask_hpsearch.strategies.halving.rungs import Rungs
    from dask_hpsearch.strategies.halving.search import AsyncHalvingSearchCV
    from dask_hpsearch.strategies.model_states import ModelStates


class HalvingStrategy:
    """Runs an `AsyncHalvingSearchCV`.

    Parameters
    ----------
    session : Session
        Runs the fits.
    recorder : Recorder
    states : ModelStates
        Keeps the models that higher rungs go on with.
    """

    def __init__(
        self, session: Session, recorder: Recorder, states: ModelStates
    ) -> None:
        self._session = session
        self._recorder = recorder
        self._states = states
        self._recorded: _RecordedRungs | None = None

    def __call__(self, search: AsyncHalvingSearchCV, evaluate: Evaluate) -> bool:
        """Run a search."""
        call, splits = captured_fit(search, evaluate)
        recorded = _RecordedRungs.open(self._recorder, search, search.draw(), splits)
        self._recorded = recorded
        training = Training(
            call, recorded.rungs, n_splits=len(splits), warm_start=search.warm_start
        )
        score = LeadingScore(search.requested_refit)
        ladder = recorded.ladder(score)
        fits = _SessionFits(
            self._session, self._recorder, recorded, training, self._states
        )
        try:
            Exploration(ladder, fits, n_splits=len(splits), score=score).run()
        except BaseException:
            fits.cancel()
            raise
        self.complete(search, evaluate)
        fits.remove_states()
        return True

    def complete(
        self, search: AsyncHalvingSearchCV, evaluate: Evaluate
    ) -> list[list[dict[str, Any]]]:
        """Have scikit-learn build results of the complete candidates of all rungs.

        Returns
        -------
        list of list of dict
            These candidates, of each rung that has any.
        """
        recorded = self._recorded
        rows = [] if recorded is None else recorded.rows()
        if recorded is None or not rows:
            return []
        build_results(search, evaluate, recorded.rungs, rows, splits=recorded.splits)
        for call in recorded.calls:
            call.taken_in = True
        by_rung: dict[int, list[dict[str, Any]]] = {}
        for row in rows:
            by_rung.setdefault(row.rung, []).append(row.params)
        return list(by_rung.values())


class _RecordedRungs:
    """The recorded calls of a search's rungs.

    Attributes
    ----------
    rungs : Rungs
    calls : list of RecordedCall
        Of each rung. A candidate's place in its rung is its ordinal in the call.
    splits : list of (train, test)
        Of all data.
    """

    def __init__(
        self,
        recorder: Recorder,
        rungs: Rungs,
        calls: list[RecordedCall],
        splits: list[tuple[Any, Any]],
    ) -> None:
        self.rungs = rungs
        self.calls = calls
        self.splits = splits
        self._recorder = recorder
        # Candidates of each rung above the lowest, in order.
        self._candidates: list[list[int]] = [[] for _ in calls]
        self._places: dict[Job, int] = {}
        for rung, call in enumerate(calls[1:], 1):
            for place in sorted(call.asks):
                candidate, params = call.asks[place]
                self._add(Job(candidate, rung), params)

    @classmethod
    def open(
        cls,
        recorder: Recorder,
        search: AsyncHalvingSearchCV,
        rungs: Rungs,
        splits: list[tuple[Any, Any]],
    ) -> _RecordedRungs:
        """Open the calls of all rungs, with what the journal has of them."""
        candidates = range(len(rungs.candidates))
        lowest = recorder.begin_call(
            [rungs.params(one, 0) for one in candidates],
            rungs.columns(0, len(candidates)),
        )
        try:
            _note_lowest(recorder, lowest, rungs, splits)
        except BegunElsewhereError:  # another driver of the run was first
            _note_lowest(recorder, lowest, rungs, splits)
        rungs = search.with_candidates(rungs, lowest.candidates)
        calls = [lowest]
        calls += [
            recorder.open_call(
                rungs.splits(splits, rung),
                n_candidates=rungs.expected(rung),
                more_results=rungs.columns(rung, 1),
            )
            for rung in range(1, len(rungs.resources))
        ]
        return cls(recorder, rungs, calls, splits)

    def ladder(self, score: LeadingScore) -> RungLadder:
        """Return the ladder as the journal's promotions and results leave it."""
        ladder = RungLadder(
            len(self.rungs.candidates),
            n_rungs=len(self.calls),
            factor=self.rungs.factor,
        )
        for job in self._places:
            ladder.recall(job)
        for rung, call in enumerate(self.calls):
            for place in call.complete():
                results = call.results_of(place)
                ordered = [results[split] for split in sorted(results)]
                ladder.finished(self.job(rung, place), score(ordered))
        return ladder

    def job(self, rung: int, place: int) -> Job:
        """Return the job at a place of a rung."""
        return Job(self._candidates[rung][place] if rung else place, rung)

    def place(self, job: Job) -> int:
        """Return the place of a job in its rung."""
        return self._places[job] if job.rung else job.candidate

    def has(self, job: Job) -> bool:
        """Whether a job was decided, here or by an earlier driver."""
        return not job.rung or job in self._places

    def begin(self, job: Job) -> None:
        """Note a promotion, unless it was noted before."""
        if self.has(job):
            return
        params = self.rungs.params(job.candidate, job.rung)
        call = self.calls[job.rung]
        self._add(job, params)
        place = self._places[job]
        call.asks[place] = job.candidate, params
        self._recorder.note_ask(call, place, job.candidate, params)

    def _add(self, job: Job, params: dict[str, Any]) -> None:
        self._places[job] = len(self._candidates[job.rung])
        self._candidates[job.rung].append(job.candidate)
        self.calls[job.rung].candidates.append(params)

    def rows(self) -> list[Row]:
        """Return the rows of all complete candidates, lowest rung first."""
        rows = []
        for rung, call in enumerate(self.calls):
            for place in call.complete():
                results = call.results_of(place)
                known = [_without_state(results[split]) for split in sorted(results)]
                rows.append(Row(rung, call.candidates[place], known))
        return rows


def _note_lowest(
    recorder: Recorder,
    call: RecordedCall,
    rungs: Rungs,
    splits: list[tuple[Any, Any]],
) -> None:
    """Note the lowest rung, with stored candidates and splits if there are any."""
    stored = recorder.recall(call)
    recorder.note_splits(call, call.splits or rungs.splits(splits, 0), stored=stored)


def _without_state(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key != MODEL_STATE}


class _SessionFits:
    """Runs the fits of jobs in the slots of a session."""

    def __init__(
        self,
        session: Session,
        recorder: Recorder,
        recorded: _RecordedRungs,
        training: Training,
        states: ModelStates,
    ) -> None:
        self._session = session
        self._recorder = recorder
        self._recorded = recorded
        self._training = training
        self._states = states
        self._groups: list[TaskGroup] = [session.new_group() for _ in recorded.calls]
        # Names of states that are in the store, by rung, candidate and split.
        self._names: dict[tuple[int, int, int], str] = {}
        self._lock = threading.Lock()
        if training.continues:
            self._recover_states()
            recorder.stored = self._remove_used

    @property
    def slots(self) -> int:
        return self._session.slots

    def begin(self, job: Job) -> None:
        self._recorded.begin(job)

    def submit(self, job: Job, done: Callable[[int, Any], None]) -> None:
        call = self._recorded.calls[job.rung]
        for split, indices in enumerate(call.splits):
            name = self._names.get((job.rung - 1, job.candidate, split))
            fit = self._training.call(
                job,
                split,
                indices=indices,
                state=None if name is None else self._states.in_task(name),
                candidate=self._recorded.place(job),
                n_candidates=max(
                    len(call.candidates), self._recorded.rungs.expected(job.rung)
                ),
                of_call=job.rung,
            )
            self._session.submit_fit(
                fit,
                self._groups[job.rung],
                _with_split(done, split),
                before_noted=self._keeper(job, split)
                if self._training.continues
                else None,
            )

    def cancel(self) -> None:
        """End the running fits."""
        for group in self._groups:
            self._session.cancel(group)

    def remove_states(self) -> None:
        """Remove the states of models that no fit goes on with any more."""
        with self._lock:  # the journal's thread removes some too
            names, self._names = self._names, {}
        for name in names.values():
            self._states.remove_soon(name)

    def _recover_states(self) -> None:
        """Take over the models of an earlier driver that a fit may go on with."""
        named: dict[tuple[int, int, int], str] = {}
        used: list[str] = []
        for rung, call in enumerate(self._recorded.calls):
            for (place, split), result in call.results.items():
                name = result.get(MODEL_STATE)
                job = self._recorded.job(rung, place)
                if name is not None and self._is_used(job, split):
                    used.append(name)
                elif name is not None:
                    named[rung, job.candidate, split] = name
        missing = self._states.recover([*named.values(), *used])
        for name in used:
            self._states.remove_soon(name)
        self._names = {key: one for key, one in named.items() if one not in missing}

    def _is_used(self, job: Job, split: int) -> bool:
        """Whether the fit that goes on with a job's model has finished."""
        above = Job(job.candidate, job.rung + 1)
        if above.rung == len(self._recorded.calls) or not self._recorded.has(above):
            return False
        place = self._recorded.place(above)
        return (place, split) in self._recorded.calls[above.rung].results

    def _keeper(self, job: Job, split: int) -> Any:
        """Return what stores the model of a fit before its result is noted."""

        def keep(
            result: dict[str, Any], go_on: Callable[[BaseException | None], None]
        ) -> None:
            result.pop("estimator", None)  # of a fit whose process was ended
            state = result.pop(MODEL_STATE, None)
            if state is None:
                go_on(None)
                return

            def stored(error: Exception | None) -> None:
                if isinstance(error, StoreError):
                    go_on(self._recorder.give_up(error))
                    return
                if error is None:
                    result[MODEL_STATE] = state.digest
                    with self._lock:
                        self._names[job.rung, job.candidate, split] = state.digest
                go_on(error)

            self._states.put_soon(state, stored)

        return keep

    def _remove_used(self, call: int, place: int, split: int) -> None:
        """Remove the model with which a fit went on whose result is stored."""
        job = self._recorded.job(call, place)
        with self._lock:
            name = self._names.pop((job.rung - 1, job.candidate, split), None)
        if name is not None:
            self._states.remove_soon(name)


def _with_split(done: Callable[[int, Any], None], split: int) -> Callable[[Any], None]:
    return lambda result: done(split, result)
