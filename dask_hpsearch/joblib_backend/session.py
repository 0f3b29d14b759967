"""Serves one ``Parallel`` object of joblib: hands its tasks to the engine."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from joblib.parallel import (
    AutoBatchingMixin,
    BatchedCalls,
    ParallelBackendBase,
    SequentialBackend,
)

from dask_hpsearch import sklearn_adapter
from dask_hpsearch.engine.policy import most_queued
from dask_hpsearch.engine.racing import DROPPED, RaceOver
from dask_hpsearch.engine.tasks import TaskGroup
from dask_hpsearch.engine.waiting_tasks import WaitingTasks
from dask_hpsearch.exceptions import HPSearchError
from dask_hpsearch.joblib_backend.capture import CapturedFit
from dask_hpsearch.joblib_backend.results import (
    ErrorsInTurn,
    FitWarnings,
    describe,
    fit_result,
    result_of,
)
from dask_hpsearch.joblib_backend.task_builder import TaskBuilder
from dask_hpsearch.sklearn_adapter import callbacks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dask_hpsearch.engine.engine import Engine
    from dask_hpsearch.engine.racing import Race
    from dask_hpsearch.joblib_backend.pickling import SharedParts
    from dask_hpsearch.messages import Outcome
    from dask_hpsearch.sklearn_adapter import FitCall

# Called with a result, and with a function to call when it may be noted.
BeforeNoted = Callable[[dict[str, Any], Callable[[BaseException | None], None]], None]
_START_S = 0.3
_PAUSE_S = 0.005
_MOST_QUEUED = 20_000
_MOST_AT_ONCE = 64


class FitLog(Protocol):
    """Knows the results of finished fits, and takes new ones."""

    @property
    def n_fits(self) -> int:
        """Number of fits of the call that begins."""

    @property
    def candidates(self) -> Sequence[Mapping[str, Any]] | None:
        """Candidates of the call that begins; None if more come later for its rows."""

    @property
    def race(self) -> Race | None:
        """Which candidates of the call are dropped; None if none may be."""

    def known(self, call: FitCall) -> dict[str, Any] | None:
        """Return a fit's result if the fit need not run."""

    def finished(self, call: FitCall, result: dict[str, Any]) -> dict[str, Any]:
        """Take a result; the returned one goes to scikit-learn."""

    def drop_beaten(self) -> list[int]:
        """Drop the candidates that are beaten by the last result; return them."""


class Session(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """Serves one ``Parallel`` object: its calls' tasks go to the engine.

    Parameters
    ----------
    engine : Engine
    log : FitLog, optional
        Takes every fit of a search. With it, all slots are used, also later ones: the
        search's ``n_jobs`` is ignored, and so is a ``pre_dispatch`` that is a string, since
        joblib computes it from the ``n_jobs`` of the start. A number is obeyed.
    share_steps : bool
        Whether slots may keep pipeline steps that several fits share.
    most_queued : int
        Most fits of a search that wait here, unless there are very many slots: each takes
        memory and, when the search ends, time. Further ones are made as fits end.
    """

    supports_retrieve_callback = True
    default_n_jobs = -1
    MIN_IDEAL_BATCH_DURATION = 0.2
    MAX_IDEAL_BATCH_DURATION = 1.0

    def __init__(
        self,
        engine: Engine,
        *,
        log: FitLog | None = None,
        share_steps: bool = False,
        most_queued: int = _MOST_QUEUED,
        nesting_level: int = 0,
    ) -> None:
        super().__init__(nesting_level=nesting_level)
        self._engine = engine
        self._log = log
        self._most_queued = most_queued
        self._tasks = TaskBuilder(engine, share_steps=share_steps)
        self._group = TaskGroup()
        self._most_running: int | None = None
        self._warnings = FitWarnings()
        self._errors = ErrorsInTurn()
        self._captured: CapturedFit | None = None
        self._all = False
        self._started = time.monotonic()

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return the slots that the call may use; at least two, as one means "here"."""
        if self._log is None:
            return max(2, slots_for(n_jobs, self._engine.slots))
        # joblib makes so many tasks at a time: with 10,000 slots, for seconds.
        return max(2, min(self._engine.slots, _MOST_AT_ONCE))

    def configure(self, n_jobs: int = 1, parallel: Any = None, **_options: Any) -> int:
        """Begin to serve a ``Parallel`` object."""
        self.parallel = parallel
        self._all = self._log is not None and isinstance(parallel.pre_dispatch, str)
        self._most_running = n_jobs if n_jobs > 0 and self._log is None else None
        return self.effective_n_jobs(n_jobs)

    def start_call(self) -> None:
        """Begin a call, without tasks of an earlier one.

        joblib keeps the tasks that it had not handed over when a call failed, and would
        hand them over in the next call of the same ``Parallel`` object.
        """
        left = getattr(self.parallel, "_ready_batches", None)
        if left is not None:
            with left.mutex:
                left.queue.clear()
        if self._log is None:  # a search begins with an engine of its own
            self._engine.modules.forget_compared()
        self._errors = ErrorsInTurn()
        self._group = self.new_group()
        self._group.unfinished = None if self._log is None else self._log.n_fits
        self._started = time.monotonic()
        self._tasks.begin_call(None if self._log is None else self._log.candidates)
        if self._log is not None and self._all:
            most = most_queued(self._engine.slots, self._most_queued)
            self.parallel.pre_dispatch = "all" if self._log.n_fits <= most else most

    def stop_call(self) -> None:
        """End a call, and forget what only its tasks needed."""
        self._tasks.end_call()

    def terminate(self) -> None:
        """Let go of the data."""
        self._tasks.close()

    def abort_everything(self, ensure_ready: bool = True) -> None:  # noqa: FBT001, FBT002
        """End the call's running fits and drop its queue."""
        self._engine.cancel(self._group)
        if ensure_ready:
            self._group = self.new_group()

    def get_nested_backend(self) -> tuple[Any, int | None]:
        """Tasks set up their own inner backend in the slot."""
        return SequentialBackend(nesting_level=1), None

    def submit(
        self, func: BatchedCalls, callback: Callable[[Any], None] | None = None
    ) -> None:
        """Hand a batch to the engine: fits one by one, other calls as one task."""
        deliver = callback or (lambda _: None)
        if not self._engine.is_current_thread():
            self._submit(func, deliver)
            return
        try:  # a fit has ended, and joblib hands over the next one
            self._submit(func, deliver)
        except Exception as error:  # noqa: BLE001 (raised again in the caller's thread)
            deliver(error)

    def _submit(self, func: BatchedCalls, deliver: Callable[[Any], None]) -> None:
        fits = [sklearn_adapter.fit_call_of(item) for item in func.items]
        if self._captured is not None:
            self._captured.take(fits[0], self._engine.call_soon, deliver)
        elif all(fits):
            self._submit_fits(fits, deliver)
        else:
            self._submit_calls(func, deliver)

    def _submit_fits(self, fits: list[Any], deliver: Callable[[Any], None]) -> None:
        """Run the fits of a batch; deliver the list of their results, or one error."""
        gather = gathering(len(fits), deliver)
        for place, call in enumerate(fits):
            take = functools.partial(gather, place)
            self.submit_fit(
                call,
                self._group,
                self._errors.expect(take),
                on_end=functools.partial(self._errors.end, take),
            )

    def _submit_calls(self, func: BatchedCalls, deliver: Callable[[Any], None]) -> None:
        """Run a batch of any calls as one task; deliver the list of what they return."""
        task, refs = self._tasks.call_task(func)
        in_turn, errors = self._errors.expect(deliver), self._errors

        def done(outcome: Outcome | HPSearchError) -> None:
            if isinstance(outcome, HPSearchError):
                errors.end(deliver, outcome)
                return
            self._take_in(outcome)
            in_turn(_result_or_error(outcome, what=f"a call of {describe(func)}"))

        self._engine.submit(task, refs, self._group, done)

    def compute_batch_size(self) -> int:
        """Take a search's fits one by one: the engine batches them itself."""
        if self._log is None:
            return int(super().compute_batch_size())
        if not self._engine.is_current_thread():
            self._let_the_engine_run()
        return 1

    def _let_the_engine_run(self) -> None:
        """Pause between two tasks. joblib's lock is free meanwhile.

        The caller's thread makes tasks as fast as it can, and would keep Python's lock for
        5 ms at a time: the first batches took 0.7 s to come back, with a pause 0.1 s.
        """
        if self._engine.behind:
            time.sleep(_PAUSE_S)
        elif self._engine.hungry or time.monotonic() < self._started + _START_S:
            time.sleep(0)

    def retrieve_result_callback(self, out: Any) -> list[Any]:
        """Return the results of a batch, or raise the error that ended it."""
        if isinstance(out, BaseException):
            raise out
        results: list[Any] = out
        return results

    @contextmanager
    def answering(self, results: list[dict[str, Any]]) -> Iterator[None]:
        """Let the ``Parallel`` object answer its next call with known results.

        To make a task for each result takes 0.15 ms: half a minute if a search of 200,000
        fits is stopped shortly before its end.
        """
        with sklearn_adapter.answering(self.parallel, lambda _: results):
            yield

    # --- fits that a strategy runs ----------------------------------------------------

    @property
    def slots(self) -> int:
        """Slots there are now."""
        return self._engine.slots

    def wait_for_slots(self) -> int:
        """Wait until there is a slot; return how many there are then."""
        self._engine.wait_for_slots()
        return self._engine.slots

    @contextmanager
    def capturing(self) -> Iterator[CapturedFit]:
        """Capture the first fit that scikit-learn hands over, and end its call.

        No fit runs, and scikit-learn adds nothing to its results.
        """
        self._captured = captured = CapturedFit()
        try:
            yield captured
        except CapturedFit as error:
            if error is not captured:
                raise
        finally:
            self._captured = None

    def new_group(self) -> TaskGroup:
        """Make a group for tasks that are cancelled together."""
        waiting = WaitingTasks(None if self._log is None else self._log.race)
        return TaskGroup(most_running=self._most_running, waiting=waiting)

    def submit_fit(
        self,
        call: FitCall,
        group: TaskGroup,
        deliver: Callable[[Any], None],
        *,
        on_end: Callable[[HPSearchError], None] | None = None,
        before_noted: BeforeNoted | None = None,
    ) -> None:
        """Run a fit, unless its result is known or its candidate is dropped.

        Parameters
        ----------
        call : FitCall
        group : TaskGroup
            The tasks that it is cancelled with.
        deliver : callable
            Called once, in the engine's thread, with the fit's result, its error, or
            `DROPPED` if it never begins.
        on_end : callable, optional
            Called instead with an error that ends the engine or the group, and with it
            all fits; default: ``deliver``. It also ends a call whose remaining candidates
            are all dropped, which otherwise goes on.
        before_noted : callable, optional
            Called with a new result before the log takes it, and with a function to call
            from any thread when the log may take it, with None or with an error that is
            delivered instead.
        """
        race = self._log.race if self._log else None

        def deliver_in_race(result: Any) -> None:
            if race is not None and race.is_over and on_end is not None:
                on_end(RaceOver())
            else:
                deliver(result)

        if self._end_without_task(call, group, deliver, deliver_in_race):
            return

        def note(result: Any) -> None:
            result = self._noted(call, result)
            beaten = self._log.drop_beaten() if self._log and race is not None else []
            if beaten:
                self._engine.drop(beaten)
            deliver_in_race(result)

        def done(outcome: Outcome | HPSearchError) -> None:
            if isinstance(outcome, HPSearchError):
                (on_end or deliver)(outcome)
            elif outcome.status == "dropped":
                deliver_in_race(DROPPED)
            else:
                self._take_in(outcome)
                self._prepared(_fit_result(call, outcome), before_noted, note)

        task, refs = self._tasks.fit_task(call)
        self._engine.submit(task, refs, group, done, parameters=call.parameters)

    def _end_without_task(
        self,
        call: FitCall,
        group: TaskGroup,
        deliver_known: Callable[[Any], None],
        deliver_dropped: Callable[[Any], None],
    ) -> bool:
        """Deliver a result that is known, or `DROPPED`; return whether it was delivered."""
        if self._log is None:
            return False
        known, race = self._log.known(call), self._log.race
        if known is not None:
            self._engine.call_soon(group.ended)
            self._engine.call_soon(lambda: deliver_known(known))
            return True
        if race is not None and call.candidate in race.dropped:
            self._engine.call_soon(group.ended)
            self._engine.call_soon(lambda: deliver_dropped(DROPPED))
            return True
        return False

    def shared_call(self, function: Callable[..., Any]) -> SharedParts:
        """Pickle a function, once for all its calls by `submit_call`.

        What it holds is sent with each call; `BundleValue` objects in it, and in the
        arguments, are read by reference.

        Raises
        ------
        UnpicklableError
            If it cannot be pickled.
        """
        return self._tasks.shared_call(function)

    def submit_call(
        self,
        shared: SharedParts,
        arguments: tuple[Any, ...],
        group: TaskGroup,
        deliver: Callable[[Any], None],
        *,
        what: str,
    ) -> None:
        """Run one call of a function as a task.

        Parameters
        ----------
        shared : SharedParts
            The function, as `shared_call` returned it.
        arguments : tuple
            By position.
        group : TaskGroup
            The tasks that it is cancelled with.
        deliver : callable
            Called once, in the engine's thread, with what the call returns, or with its
            error.
        what : str
            Names the call in errors.
        """

        def done(outcome: Outcome | HPSearchError) -> None:
            if isinstance(outcome, HPSearchError):
                deliver(outcome)
                return
            self._take_in(outcome)
            result = _result_or_error(outcome, what=what)
            deliver(result if isinstance(result, BaseException) else result[0])

        task, refs = self._tasks.one_call(shared, arguments, what=what)
        self._engine.submit(task, refs, group, done)

    def cancel(self, group: TaskGroup) -> None:
        """End a group's running fits and drop its queue."""
        self._engine.cancel(group)

    def drop(self, candidates: Sequence[int]) -> None:
        """Keep the waiting fits of some candidates from beginning; `DROPPED` is delivered."""
        self._engine.call_soon(lambda: self._engine.drop(candidates))

    def _take_in(self, outcome: Outcome) -> None:
        """Log an outcome's warnings, and deliver its callbacks' messages."""
        self._warnings.log(outcome)
        if outcome.relayed:
            callbacks.deliver(outcome.relayed)

    def _prepared(
        self, result: Any, prepare: BeforeNoted | None, note: Callable[[Any], None]
    ) -> None:
        """Note a result after something else was done with it, or an error at once."""
        if prepare is None or isinstance(result, BaseException):
            note(result)
            return

        def go_on(error: BaseException | None) -> None:
            self._engine.call_soon(lambda: note(result if error is None else error))

        prepare(result, go_on)

    def _noted(self, call: FitCall, result: Any) -> Any:
        """Return a fit's result, after the log has taken it, or an error."""
        if self._log is None or isinstance(result, BaseException):
            return result
        try:
            return self._log.finished(call, result)
        except BaseException as error:  # noqa: BLE001 (raised again in the caller's thread)
            return error


def _fit_result(call: FitCall, outcome: Outcome) -> Any:
    """Return a fit's result, or its error."""
    try:
        return fit_result(call, outcome)
    except BaseException as error:  # noqa: BLE001 (raised again in the caller's thread)
        return error


def _result_or_error(outcome: Outcome, *, what: str) -> Any:
    try:
        return result_of(outcome, what=what)
    except BaseException as error:  # noqa: BLE001 (raised again in the caller's thread)
        return error


def gathering(size: int, deliver: Callable[[Any], None]) -> Callable[[int, Any], None]:
    """Return a function that takes a batch's results one by one, with their places.

    The list of results is delivered once it is complete. An error is delivered at once
    instead of it.
    """
    results: dict[int, Any] = {}

    def take(place: int, result: Any) -> None:
        if len(results) > size:
            return
        if isinstance(result, BaseException):
            results.update(dict.fromkeys(range(size + 1)))  # nothing more is waited for
            deliver(result)
            return
        results[place] = result
        if len(results) == size:
            deliver([results[index] for index in range(size)])

    return take


def slots_for(n_jobs: int | None, slots: int) -> int:
    """Resolve joblib's ``n_jobs`` against the slots there are."""
    if n_jobs == 0:
        msg = "n_jobs == 0 in Parallel has no meaning"
        raise ValueError(msg)
    if n_jobs is None or n_jobs == -1:
        return max(1, slots)
    if n_jobs < 0:
        return max(1, slots + 1 + n_jobs)
    return max(1, min(n_jobs, slots or n_jobs))
