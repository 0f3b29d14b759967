"""Trains the models of one bracket in slots, with a state of each that a journal names.

A training task takes a model's state and some blocks of data, and returns the next state. The
next task of a model begins as soon as its state is stored. What the journal has is not trained
again.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from dask_hpsearch.exceptions import (
    ClientClosedError,
    DataUnavailableError,
    NoWorkersError,
    SearchStopped,
    StoreError,
)
from dask_hpsearch.joblib_backend.pickling import BundleValue
from dask_hpsearch.journal.serialization import decode_result, encode_result
from dask_hpsearch.journal.trainings import Training as Recorded
from dask_hpsearch.safe_text import repr_of
from dask_hpsearch.strategies.incremental.training import Training

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

    from dask_hpsearch.data import DataStore
    from dask_hpsearch.engine.tasks import TaskGroup
    from dask_hpsearch.joblib_backend.session import Session
    from dask_hpsearch.journal.run_journal import RunJournal
    from dask_hpsearch.progress import SearchProgress
    from dask_hpsearch.recorder.listener import RecordListener
    from dask_hpsearch.strategies.incremental.rounds import Meta
    from dask_hpsearch.strategies.incremental.training import Rows, Trained
    from dask_hpsearch.strategies.model_states import ModelStates

_LONGEST_PARAMETERS = 500


class Clock:
    """The seconds for which a search has run, those of earlier drivers included.

    Parameters
    ----------
    before : float
        The seconds of earlier drivers.
    """

    def __init__(self, before: float = 0.0) -> None:
        self._began = time.monotonic() - before

    def seconds(self) -> float:
        """Return the seconds so far."""
        return time.monotonic() - self._began


@dataclass(frozen=True, slots=True)
class Means:
    """What the trainers of a search share.

    Attributes
    ----------
    session : Session
        Runs the tasks.
    group : TaskGroup
        All of them.
    data_store : DataStore
    states : ModelStates
    journal : RunJournal or None
    progress : SearchProgress
    listener : RecordListener
    clock : Clock
    call_soon : callable
        Calls a function in the thread of the search.
    X, y : object
        The data.
    """

    session: Session
    group: TaskGroup
    data_store: DataStore
    states: ModelStates
    journal: RunJournal | None
    progress: SearchProgress
    listener: RecordListener
    clock: Clock
    call_soon: Callable[[Callable[[], None]], None]
    X: Any
    y: Any


class Pause(Protocol):
    """Awaited by a bracket until something has happened to its models."""

    def __await__(self) -> Generator[Any, Any, Any]:
        """Give the thread to other brackets."""


@dataclass(slots=True, eq=False)
class _Model:
    """A model of the bracket.

    Attributes
    ----------
    calls : int
        Calls of ``partial_fit`` that made it.
    state : str or None
        The name of its state; None if it is still new.
    blocks : list of int
        The block of each call, those to come in this round included.
    result : mapping
        Of its last scoring.
    scored_calls, scored_state : int, str or None
        Its calls and its state then.
    is_remade : bool
        Whether it is made again since its state was deleted.
    """

    ident: int
    parameters: dict[str, Any]
    calls: int = 0
    state: str | None = None
    blocks: list[int] = field(default_factory=list)
    result: Mapping[str, Any] = field(default_factory=dict)
    scored_calls: int = 0
    scored_state: str | None = None
    is_remade: bool = False

    @property
    def is_scored(self) -> bool:
        """Whether it was scored after the last call that is wanted."""
        return self.scored_calls == len(self.blocks)

    @property
    def score(self) -> Any:
        """Its last score."""
        return self.result["score"]

    def meta(self, elapsed: float) -> Meta:
        """Return its last result in dask-ml's form."""
        return {
            "partial_fit_time": self.result["partial_fit_time"],
            "score": self.score,
            "score_time": self.result["score_time"],
            "elapsed_wall_time": elapsed,
        }


class BracketTrainer:
    """Trains and scores the models of one bracket; a `Trainer`.

    Its methods, and what tasks return, run in the thread of the search.

    Parameters
    ----------
    bracket : int
    means : Means
    pause : Pause
        Awaited while models are trained.

    Attributes
    ----------
    error : BaseException or None
        What has ended it early.
    """

    def __init__(self, bracket: int, means: Means, pause: Pause) -> None:
        self._bracket = bracket
        self._means = means
        self._pause = pause
        self._models: dict[int, _Model] = {}
        self._recorded = Recorded()
        self._round: list[_Model] = []
        self._open: set[int] = set()
        self._shared: Any = None
        self._best_state: str | None = None
        self.error: BaseException | None = None

    # --- Trainer ------------------------------------------------------------------------

    def begin(
        self,
        candidates: list[dict[str, Any]],
        *,
        estimator: Any,
        fit_params: Mapping[str, Any],
        scorer: Any,
        rows: Rows,
    ) -> list[dict[str, Any]]:
        """Begin the bracket, or take up what an earlier driver has left of it."""
        means, journal = self._means, self._means.journal
        if journal is not None:
            candidates = journal.begin_training(self._bracket, candidates)
            self._recorded = journal.trainings.get(self._bracket, Recorded())
            self._recorded.check(candidates, journal.folder.run_id)
        self._models = {
            ident: _Model(ident, parameters)
            for ident, parameters in enumerate(candidates)
        }
        means.progress.training_started(self._bracket, n_models=len(candidates))
        data = [
            None if one is None else BundleValue(means.data_store.put(one, what=what))
            for what, one in (("X", means.X), ("y", means.y), ("the split", rows))
        ]
        # In a slot they are the data themselves.
        training = Training(estimator, fit_params, scorer, *data)  # type: ignore[arg-type]
        self._shared = means.session.shared_call(training)
        self._take_up_states()
        return candidates

    async def train(self, wanted: Mapping[int, Sequence[int]]) -> list[Meta]:
        """Train models on blocks of data, then score them."""
        self._round = [self._models[ident] for ident in wanted]
        for model in self._round:
            model.blocks += wanted[model.ident]
        totals = {model.ident: len(model.blocks) for model in self._round}
        self._means.progress.calls_wanted(self._bracket, totals)
        for model in self._round:
            self._replay(model)
            if not model.is_scored:
                self._submit(model)
        self._open = {model.ident for model in self._round if not model.is_scored}
        while self._open:
            await self._pause
            if self.error is not None:
                raise self.error
        # In dask-ml all models of a round get the time at which the last one has ended.
        elapsed = max(model.result["elapsed"] for model in self._round)
        return [
            model.meta(elapsed + place * 1e-6)  # which keeps their order
            for place, model in enumerate(self._round)
        ]

    def scored(self) -> dict[int, Meta]:
        """Return the results of the models that a stopped round has scored."""
        return {
            model.ident: model.meta(model.result["elapsed"])
            for model in self._round
            if model.is_scored
        }

    def decide(
        self, number: int, rule: Callable[[], Mapping[int, int]]
    ) -> dict[int, int]:
        """Return how the bracket goes on: as recorded, or by dask-ml's rule.

        The rule is called in any case, since it counts rounds.
        """
        calls = {int(ident): int(more) for ident, more in rule().items()}
        recorded = self._recorded.rounds.get(number)
        if recorded is not None:
            calls = recorded.calls
        before = self._best_state
        self._best_state = self._kept_best(number, calls)
        journal = self._means.journal
        if journal is not None and recorded is None:
            journal.round_ended(self._bracket, number, calls)
        self._remove_when_written(before)
        self._show_ended(calls)
        return calls

    def drop(self, models: Iterable[int]) -> None:
        """Remove the states of models that are not trained any more.

        That is done once the scores that decided so are in the journal: until then, a later
        driver may score some model again, and decide otherwise.
        """
        for ident in models:
            self._remove_when_written(self._models[ident].state)

    def best_of(self, scores: Mapping[int, float], *, complete: bool) -> int:
        """Return the model with the highest score; of equal ones the first."""
        states = {
            ident: model.scored_state
            for ident, model in self._models.items()
            if model.scored_state is not None
        }
        best = max(scores, key=scores.__getitem__)
        if not self._means.states.has(states[best]):
            there = {
                ident: score
                for ident, score in scores.items()
                if self._means.states.has(states[ident])
            }
            if complete or not there:
                raise self._lost(self._models[best])
            best = max(there, key=there.__getitem__)
        return best

    def model(self, ident: int) -> Any:
        """Return a model as it was when it was scored."""
        model = self._models[ident]
        assert model.scored_state is not None  # noqa: S101 (it is the best one)
        return self._means.states.load(model.scored_state)

    # --- states -------------------------------------------------------------------------

    def _take_up_states(self) -> None:
        """Take over the newest states of the models that no recorded decision has dropped."""
        live = set(self._models)
        for recorded in self._recorded.rounds.values():
            live &= recorded.calls.keys()
        trained = self._recorded.trained
        newest = [trained[ident][-1].model for ident in live if trained.get(ident)]
        self._means.states.recover(newest)

    def _kept_best(self, number: int, calls: Mapping[int, int]) -> str | None:
        """Keep the scored state of the best model that goes on, in case of a stop.

        Its further training may be stopped before it is scored again.
        """
        states, rounds = self._means.states, self._recorded.rounds
        if number < max(rounds, default=-1) or not calls:
            return None
        scores = {ident: self._models[ident].score for ident in calls}
        state = self._models[max(scores, key=scores.__getitem__)].scored_state
        if state is None:
            return None
        if states.has(state):
            states.keep(state)
            return state
        return None if states.recover([state]) else state

    def _remove_when_written(self, state: str | None) -> None:
        """Remove a state once all events so far are in the journal."""
        if state is None:
            return
        if self._means.journal is None:
            self._means.states.remove_soon(state)
        else:
            self._means.journal.when_written(
                functools.partial(self._means.states.remove_soon, state)
            )

    # --- training -----------------------------------------------------------------------

    def _replay(self, model: _Model) -> None:
        """Let a model skip the calls that the journal has."""
        for event in self._recorded.trained.get(model.ident, []):
            if model.calls < event.calls <= len(model.blocks) and not model.is_remade:
                result = decode_result(event.result)
                self._note(model, event.calls, event.model, result)
                self._show(model, event.calls, result, event.time)
        state_is_lost = model.state is not None and not self._means.states.has(
            model.state
        )
        if (
            state_is_lost and not model.is_scored
        ):  # it is made again, from the same data
            model.calls, model.state, model.is_remade = 0, None, True

    def _submit(self, model: _Model) -> None:
        """Submit the next task of a model."""
        state = None if model.state is None else self._means.states.in_task(model.state)
        blocks = tuple(model.blocks[model.calls :])
        self._means.session.submit_call(
            self._shared,
            (state, model.parameters, blocks),
            self._means.group,
            functools.partial(self._take, model),
            what=self._name_of(model),
        )

    def _take(self, model: _Model, result: Trained | BaseException) -> None:
        """Take what a task returned; in the engine's thread."""
        if isinstance(result, BaseException):
            self._means.call_soon(functools.partial(self._fail, model, result))
            return

        def stored(error: Exception | None) -> None:
            self._means.call_soon(
                functools.partial(self._take_stored, model, result, error)
            )

        self._means.states.put_soon(result.state, stored)

    def _take_stored(
        self, model: _Model, trained: Trained, error: Exception | None
    ) -> None:
        """Take what a task returned, once its state is stored."""
        if error is not None:
            self._fail(model, error)
            return
        means, before = self._means, model.state
        result = trained.result | {"elapsed": means.clock.seconds()}
        result = decode_result(encode_result(result))  # as a later driver reads it
        calls = model.calls + trained.calls
        self._note(model, calls, trained.state.digest, result)
        shown = functools.partial(self._show, model, calls, result, time.time())
        if means.journal is None:
            shown()
        else:
            means.journal.trained(
                self._bracket,
                model.ident,
                model.parameters,
                calls=calls,
                state=trained.state.digest,
                result=result,
                on_written=shown,
            )
        self._remove_when_written(before)
        if not (model.is_scored or self.is_stopped):
            self._submit(model)

    def _note(
        self, model: _Model, calls: int, state: str, result: Mapping[str, Any]
    ) -> None:
        model.calls, model.state = calls, state
        if "score" in result:
            model.result, model.scored_calls, model.scored_state = result, calls, state
        if model.is_scored:
            self._open.discard(model.ident)

    def _show(
        self, model: _Model, calls: int, result: Mapping[str, Any], ended: float
    ) -> None:
        self._means.progress.model_trained(
            self._bracket,
            model.ident,
            calls,
            params=model.parameters,
            score=result.get("score"),
        )
        if "score" in result:
            self._means.listener.model_scored(
                self._bracket,
                model.ident,
                model.parameters,
                calls=calls,
                result=result,
                ended=ended,
            )

    def _show_ended(self, calls: Mapping[int, int]) -> None:
        """Report the models of this round that are not trained any more."""
        ended = [one.ident for one in self._round if one.ident not in calls]
        shown = functools.partial(
            self._means.listener.models_ended, self._bracket, ended
        )
        if self._means.journal is None:
            shown()
        else:
            self._means.journal.when_written(shown)

    # --- errors -------------------------------------------------------------------------

    def _fail(self, model: _Model, error: BaseException) -> None:
        """End the search with a model's error, or with that of the engine or the store."""
        if isinstance(error, StoreError) and self._means.journal is not None:
            self._means.journal.give_up(error)
            error = SearchStopped("store")
        elif not isinstance(error, SearchStopped | ClientClosedError | NoWorkersError):
            error.add_note(
                f"raised by {self._name_of(model)} after {model.calls} calls of partial_fit"
            )
        if not self.is_stopped:
            self.error = error

    def _lost(self, model: _Model) -> DataUnavailableError:
        return DataUnavailableError(
            f"the state {model.scored_state} of {self._name_of(model)}, the best one, was "
            "deleted: start the search again as a new run"
        )

    def _name_of(self, model: _Model) -> str:
        parameters = repr_of(model.parameters, _LONGEST_PARAMETERS)
        return f"model {model.ident} of bracket {self._bracket} ({parameters})"

    @property
    def is_stopped(self) -> bool:
        """Whether an error, or a stop, has ended it."""
        return self.error is not None

    @property
    def is_due(self) -> bool:
        """Whether its bracket can go on."""
        return self.is_stopped or not self._open
