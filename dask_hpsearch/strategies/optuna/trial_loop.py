"""Runs the trials of a study without a barrier: a free slot gets a new one at once.

`TrialLoop` decides what runs next, and when a trial ends. What a trial's parts are, and how
its scores follow from them, is up to its `Work`.
"""

from __future__ import annotations

import contextlib
import copy
import math
import queue
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from dask_hpsearch.engine.racing import DROPPED
from dask_hpsearch.exceptions import FitEndedError, HPSearchError
from dask_hpsearch.journal.events import AskEvent, ReportEvent
from dask_hpsearch.strategies.explorer import wanted_fits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from dask_hpsearch.journal.exploration import Step
    from dask_hpsearch.strategies.optuna.study import StudyTrials

_LOOK_EVERY_S = 0.5
_SMOOTHING = 0.2


@dataclass(slots=True, eq=False)
class RunningTrial:
    """A trial that was asked and not told.

    Attributes
    ----------
    ordinal : int
        Of its candidate.
    trial : optuna.Trial
    left : deque of int
        Splits whose next part may be submitted.
    running : int
        Parts that were submitted and have not ended.
    results : dict of int to dict
        By split.
    n_reported : int
        Steps that were reported to the pruner.
    is_whole, is_pruned : bool
        Why it is to be told.
    error : Exception or None
        Of a fit.
    """

    ordinal: int
    trial: Any
    left: deque[int] = field(default_factory=deque)
    running: int = 0
    results: dict[int, dict[str, Any]] = field(default_factory=dict)
    n_reported: int = 0
    is_whole: bool = False
    is_pruned: bool = False
    error: Exception | None = None

    @property
    def has_ended(self) -> bool:
        """Whether it can be told."""
        return self.is_whole or self.is_pruned or self.error is not None


class Work(Protocol):
    """The parts of trials, and their scores."""

    @property
    def slots(self) -> int:
        """Number of slots now."""

    @property
    def one_by_one(self) -> bool:
        """Whether a trial's next part waits while other trials can use the slots."""

    def begin(self, trial: RunningTrial) -> None:
        """Say which parts there are."""

    def submit(
        self, trial: RunningTrial, split: int, done: Callable[[Any], None]
    ) -> None:
        """Run a part; ``done`` is called in any thread with its result or error."""

    def recall(self, trial: RunningTrial) -> None:
        """Give a trial that was told before its results."""

    def take(self, trial: RunningTrial, split: int, result: dict[str, Any]) -> None:
        """Take in a part's result; note in the trial what follows from it."""

    def store(self, trial: RunningTrial) -> float:
        """Store the scores of a whole trial; return its value."""

    def store_partial(self, trial: RunningTrial) -> None:
        """Store the scores of a trial that ended early."""

    def drop(self, trial: RunningTrial) -> None:
        """Keep the parts of a trial that wait from beginning."""

    def cancel(self) -> None:
        """End all parts that run."""


class Notes(Protocol):
    """Notes the steps of the loop, so that a resumed search can repeat them."""

    def known(self, ordinal: int) -> Mapping[str, Any]:
        """Return the parameters of a trial that was asked before."""

    def asked(self, ordinal: int, params: Mapping[str, Any]) -> None:
        """Note that a trial was asked."""

    def told(self, ordinal: int, value: float, state: str) -> None:
        """Note how a trial has ended."""

    def store(self) -> None:
        """Return once all notes so far are stored."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of ``Study.optimize``; see its parameters."""

    n_trials: int | None = None
    timeout_s: float | None = None
    callbacks: Sequence[Callable[[Any, Any], None]] = ()
    catch: tuple[type[Exception], ...] = ()


class TrialLoop:
    """Runs trials as `optuna.Study.optimize` does, in the slots of a cluster.

    With one slot there is one trial at a time, and its trials are those of Optuna's own
    loop.

    Parameters
    ----------
    trials : StudyTrials
    work : Work
    notes : Notes
    limits : Limits
    clock : callable
        Returns seconds.
    """

    def __init__(
        self,
        trials: StudyTrials,
        work: Work,
        notes: Notes,
        *,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._trials = trials
        self._work = work
        self._notes = notes
        self._limits = limits
        self._clock = clock
        self._until = math.inf
        self._n_asked = 0
        self._running: dict[int, RunningTrial] = {}
        self._n_submitted = 0
        self._mean_s: float | None = None
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def run(self, steps: Iterable[Step] = ()) -> None:
        """Run trials until a limit is reached.

        Parameters
        ----------
        steps : iterable of AskEvent, ReportEvent or TellEvent
            Those of an earlier driver, which are repeated first.

        Raises
        ------
        Exception
            Raised by a fit and not among ``catch``, or by a callback; no fit is left
            running.
        """
        if self._limits.timeout_s is not None:
            self._until = self._clock() + self._limits.timeout_s
        with self._trials.optimizing():
            try:
                self._repeat(steps)
                self._fill()
                # Parts of trials that have ended may have the slots of the next ones.
                while self._running or (self._n_submitted and self._may_ask):
                    self._take_events()
                    self._fill()
            except BaseException:
                self._cut()
                raise
            finally:
                if self._n_submitted:
                    self._work.cancel()

    # --- what was done before ---------------------------------------------------------

    def _repeat(self, steps: Iterable[Step]) -> None:
        """Repeat the steps of an earlier driver; nothing is decided anew."""
        for step in steps:
            if isinstance(step, AskEvent):
                if step.candidate == self._n_asked:
                    self._restore(step.candidate)
                continue
            trial = self._running.get(step.candidate)
            if trial is None:
                continue
            if isinstance(step, ReportEvent):
                self._repeat_report(trial, step)
            else:
                self._repeat_tell(trial, step.trial or "COMPLETE")
        for trial in list(self._running.values()):
            if self._trials.is_finished(trial.trial):  # it was not noted any more
                self._note_end(trial, self._trials.frozen(trial.trial))
                del self._running[trial.ordinal]
            elif trial.has_ended:
                self._work.recall(trial)
                self._end(trial)

    def _restore(self, ordinal: int) -> None:
        self._n_asked += 1
        known = self._trials.restore(ordinal, self._notes.known(ordinal))
        self._begin(ordinal, known)

    def _repeat_report(self, trial: RunningTrial, step: ReportEvent) -> None:
        values = [math.nan if value is None else value for value in step.values]
        if not self._trials.is_finished(trial.trial):
            self._trials.repeat_report(
                trial.trial, values, step=step.step, marks=step.marks or {}
            )
        trial.n_reported = step.step + len(values)
        trial.is_pruned = step.pruned

    def _repeat_tell(self, trial: RunningTrial, state: str) -> None:
        del self._running[trial.ordinal]
        if self._trials.is_finished(trial.trial):
            return
        self._work.recall(trial)
        value = None
        if state == "PRUNED":
            self._work.store_partial(trial)
        elif trial.is_whole:
            with contextlib.suppress(Exception):  # then it has failed before too
                value = self._work.store(trial)
        self._trials.tell(trial.trial, value, state)

    # --- asking -----------------------------------------------------------------------

    def _fill(self) -> None:
        """Submit parts of trials while slots are free."""
        while self._n_submitted < self._wanted:
            trial = self._waiting(idle=True) or self._asked() or self._waiting()
            if trial is None:
                return
            self._submit_next(trial)
            while trial.left and not self._work.one_by_one:
                self._submit_next(trial)

    @property
    def _wanted(self) -> int:
        """How many parts may be submitted: with one slot, those of one trial."""
        slots = self._work.slots
        return 1 if slots <= 1 else wanted_fits(slots, self._mean_s)

    def _waiting(self, *, idle: bool = False) -> RunningTrial | None:
        """Return a trial whose next part can be submitted.

        Parameters
        ----------
        idle : bool
            Only one of which no part runs.
        """
        for trial in self._running.values():
            if trial.left and not (idle and trial.running):
                return trial
        return None

    def _asked(self) -> RunningTrial | None:
        """Ask for a trial, unless a limit is reached or there are enough."""
        if not self._may_ask or len(self._running) >= self._wanted:
            return None
        ordinal = self._n_asked
        self._n_asked += 1
        trial = self._trials.ask(ordinal)
        self._notes.asked(ordinal, trial.params)
        return self._begin(ordinal, trial)

    @property
    def _may_ask(self) -> bool:
        """Whether no limit of trials is reached."""
        n_trials = self._limits.n_trials
        return (
            not self._trials.is_stopped
            and (n_trials is None or self._n_asked < n_trials)
            and self._clock() < self._until
        )

    def _begin(self, ordinal: int, trial: Any) -> RunningTrial:
        running = RunningTrial(ordinal, trial)
        self._running[ordinal] = running
        self._work.begin(running)
        return running

    def _submit_next(self, trial: RunningTrial) -> None:
        split = trial.left.popleft()
        self._n_submitted += 1
        trial.running += 1
        self._work.submit(trial, split, self._taker(trial, split))

    # --- telling ----------------------------------------------------------------------

    def _taker(self, trial: RunningTrial, split: int) -> Callable[[Any], None]:
        def done(result: Any) -> None:
            self._events.put(lambda: self._take(trial, split, result))

        return done

    def _take_events(self) -> None:
        """Wait for an event, and handle every one in the queue."""
        try:
            event = self._events.get(timeout=_LOOK_EVERY_S)
            while True:
                event()
                event = self._events.get_nowait()
        except queue.Empty:
            return

    def _take(self, trial: RunningTrial, split: int, result: Any) -> None:
        self._n_submitted -= 1
        trial.running -= 1
        if isinstance(result, BaseException) and not is_of_fit(result):
            raise result
        if trial.ordinal not in self._running or result is DROPPED:
            return
        if isinstance(result, Exception):
            trial.error = result
        else:
            self._take_time(result)
            self._work.take(trial, split, result)
        if trial.has_ended:
            self._end(trial)

    def _take_time(self, result: Mapping[str, Any]) -> None:
        seconds = sum(result.get(key) or 0.0 for key in ("fit_time", "score_time"))
        mean_s = seconds if self._mean_s is None else self._mean_s
        self._mean_s = mean_s + _SMOOTHING * (seconds - mean_s)

    def _end(self, trial: RunningTrial) -> None:
        """Tell how a trial has ended, and call the callbacks."""
        del self._running[trial.ordinal]
        if trial.running or trial.left:
            trial.left.clear()
            self._work.drop(trial)
        value, state = None, "FAIL"
        try:
            if trial.error is None and trial.is_pruned:
                self._work.store_partial(trial)
                state = "PRUNED"
            elif trial.error is None:
                value, state = self._work.store(trial), "COMPLETE"
        except Exception as error:  # noqa: BLE001 (raised again, unless the user catches it)
            trial.error = error
        if self._trials.is_shared:
            # A trial that has ended in the study's storage can never run again: a driver
            # that is killed now must have left in the journal how it came about.
            self._notes.store()
        frozen = self._trials.tell(trial.trial, value, state)
        self._note_end(trial, frozen)
        if trial.error is not None and not self._is_caught(trial.error):
            raise trial.error
        for callback in self._limits.callbacks:
            callback(self._trials.study, copy.deepcopy(frozen))

    def _is_caught(self, error: Exception) -> bool:
        """Whether the study goes on after an error, as the user has asked."""
        return is_of_fit(error) and isinstance(error, self._limits.catch)

    def _note_end(self, trial: RunningTrial, frozen: Any) -> None:
        value = math.nan if frozen.value is None else frozen.value
        self._notes.told(trial.ordinal, value, frozen.state.name)

    def _cut(self) -> None:
        """Let the trials that have not ended fail: the search has ended before them.

        The journal does not get to know of it: a resumed search goes on with them.
        """
        for trial in self._running.values():
            self._work.store_partial(trial)
            self._trials.tell(trial.trial, None, "FAIL")
        self._running.clear()


def is_of_fit(error: BaseException) -> bool:
    """Whether an error came from a fit, and not from the engine that runs it."""
    if isinstance(error, HPSearchError):
        return isinstance(error, FitEndedError)
    return isinstance(error, Exception)
