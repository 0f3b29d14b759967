"""Serves one ``Parallel`` object of joblib: its tasks become the engine's."""

from __future__ import annotations

import functools
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from joblib.parallel import (
    AutoBatchingMixin,
    BatchedCalls,
    ParallelBackendBase,
    SequentialBackend,
)

from dask_hpsearch import sklearn_adapter, sklearn_callbacks
from dask_hpsearch.data import KnownObjects
from dask_hpsearch.data.collections import Collections
from dask_hpsearch.engine.tasks import Group
from dask_hpsearch.exceptions import HPSearchError, UnpicklableError
from dask_hpsearch.joblib_backend.capture import CapturedFit
from dask_hpsearch.joblib_backend.pickling import SharedParts, pickled
from dask_hpsearch.joblib_backend.results import (
    ErrorsInTurn,
    FitWarnings,
    describe,
    fit_result,
    result_of,
)
from dask_hpsearch.messages import CallTask, DataRef, FitSpec, FitTask, Outcome
from dask_hpsearch.safe_text import message_of, repr_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dask_hpsearch.engine.engine import Engine
    from dask_hpsearch.sklearn_adapter import FitCall

_START_S = 0.3
_MOST_QUEUED = 20_000
_MOST_QUEUED_PER_SLOT = 100
_THE_SEARCH = "the search"  # in errors


class FitLog(Protocol):
    """Knows results from before, and learns new ones."""

    @property
    def n_fits(self) -> int:
        """Fits of the call that begins."""

    def known(self, call: FitCall) -> dict[str, Any] | None:
        """Return a fit's result if it need not run."""

    def finished(self, call: FitCall, result: dict[str, Any]) -> dict[str, Any]:
        """Take in a result; what is returned goes to scikit-learn."""


@dataclass(frozen=True, slots=True, eq=False)
class _Sent:
    """What fits of a call share: as it came, and as it was sent.

    Attributes
    ----------
    call : FitCall
        The first of them.
    estimator : bytes
        Its pickled estimator, where those of the others may differ from it.
    parts : SharedParts
    ref : DataRef
        Of the `FitSpec`.
    data : tuple of DataRef
        All that a fit needs, but for its split and its own parameters.
    """

    call: FitCall
    estimator: bytes
    parts: SharedParts
    ref: DataRef
    data: tuple[DataRef, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _SentParameters:
    parameters: Any
    after: SharedParts
    payload: bytes
    data: tuple[DataRef, ...]


class Session(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """Serves one ``Parallel`` object: its calls' tasks go to the engine.

    Parameters
    ----------
    engine : Engine
    log : FitLog, optional
        Told of every fit of a search. With it, all slots are used, as many as there
        will be: the search's ``n_jobs`` is the cluster's affair, and a ``pre_dispatch``
        that is a string is in terms of an ``n_jobs`` frozen at the start. A number is
        obeyed.
    share_steps : bool
        Whether slots may keep a pipeline's steps that several fits have in common.
    most_queued : int
        Fits of a search that wait here at most, unless there are very many slots: each
        takes memory and, when the search ends, time. Others are made as fits end.
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
        self._share_steps = share_steps
        self._most_queued = most_queued
        self._known = KnownObjects(engine.data_store)
        self._collections = Collections(engine.client)
        self._group = Group()
        self._specs: list[_Sent] = []
        self._splits: dict[tuple[int, int], tuple[Any, Any, DataRef]] = {}
        self._parameters: _SentParameters | None = None
        self._most_running: int | None = None
        self._warnings = FitWarnings()
        self._errors = ErrorsInTurn()
        self._captured: CapturedFit | None = None
        self._all = False
        self._started = time.monotonic()

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Slots that the call may use, two at least: one would mean "in this process"."""
        wanted = n_jobs if self._log is None else -1
        return max(2, slots_for(wanted, self._engine.slots))

    def configure(self, n_jobs: int = 1, parallel: Any = None, **_options: Any) -> int:
        """Begin to serve a ``Parallel`` object."""
        self.parallel = parallel
        self._all = self._log is not None and isinstance(parallel.pre_dispatch, str)
        self._most_running = n_jobs if n_jobs > 0 and self._log is None else None
        return self.effective_n_jobs(n_jobs)

    def start_call(self) -> None:
        """Begin a call, and no tasks of one before.

        joblib keeps what it had not handed over of a call that failed meanwhile, and hands
        it over in the next call of the same ``Parallel`` object.
        """
        left = getattr(self.parallel, "_ready_batches", None)
        if left is not None:
            with left.mutex:
                left.queue.clear()
        if self._log is None:  # a search begins with an engine of its own
            self._engine.modules.compare_anew()
        self._errors = ErrorsInTurn()
        self._group = Group(most_running=self._most_running)
        self._started = time.monotonic()
        if self._log is not None and self._all:
            most = max(self._most_queued, _MOST_QUEUED_PER_SLOT * self._engine.slots)
            self.parallel.pre_dispatch = "all" if self._log.n_fits <= most else most

    def stop_call(self) -> None:
        """End a call: what only its tasks needed may go."""
        self._specs.clear()
        self._splits.clear()
        self._parameters = None

    def terminate(self) -> None:
        """Let go of the data."""
        self._known.clear()
        self._collections.clear()

    def abort_everything(self, ensure_ready: bool = True) -> None:  # noqa: FBT001, FBT002
        """End the call's running fits and drop its queue."""
        self._engine.cancel(self._group)
        if ensure_ready:
            self._group = Group(most_running=self._most_running)

    def get_nested_backend(self) -> tuple[Any, int | None]:
        """Tasks set up their own inner backend in the slot."""
        return SequentialBackend(nesting_level=1), None

    def submit(
        self, func: BatchedCalls, callback: Callable[[Any], None] | None = None
    ) -> None:
        """Hand a batch of joblib's to the engine: each fit apart, other calls together."""
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
            return
        if not all(fits):
            self._submit_calls(func, deliver)
            return
        gather = gathering(len(fits), deliver)
        for place, call in enumerate(fits):
            self._submit_fit(call, functools.partial(gather, place))

    def compute_batch_size(self) -> int:
        """Let a search's fits come one by one: the engine puts them together."""
        return 1 if self._log is not None else int(super().compute_batch_size())

    def retrieve_result_callback(self, out: Any) -> list[Any]:
        """Return the results of a batch, or raise what ended it."""
        if isinstance(out, BaseException):
            raise out
        results: list[Any] = out
        return results

    @contextmanager
    def answering(self, results: list[dict[str, Any]]) -> Iterator[None]:
        """Let the ``Parallel`` object answer its next call with results that are there.

        To make a task of each, only to find its result, takes 0.15 ms: half a minute where
        a search of 200,000 fits is stopped shortly before its end.
        """
        parallel, own = self.parallel, type(self.parallel)
        members = {"__call__": lambda _self, _tasks: results}
        parallel.__class__ = type(own.__name__, (own,), members)
        try:
            yield
        finally:
            parallel.__class__ = own

    # --- fits that a strategy of ours runs --------------------------------------------

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
        """Take the first fit that scikit-learn hands over, and end its call with that.

        Nothing has run then, and scikit-learn has added nothing to its results.
        """
        self._captured = captured = CapturedFit()
        try:
            yield captured
        except CapturedFit as error:
            if error is not captured:
                raise
        finally:
            self._captured = None

    def submit_fit(
        self, call: FitCall, group: Group, deliver: Callable[[Any], None]
    ) -> None:
        """Run a fit; ``deliver`` is called with its result, or with an error."""

        def done(outcome: Outcome | HPSearchError) -> None:
            if isinstance(outcome, HPSearchError):
                deliver(outcome)
                return
            self._take_in(outcome)
            results = self._fit_results(call, outcome)
            deliver(results if isinstance(results, BaseException) else results[0])

        known = self._log.known(call) if self._log else None
        if known is not None:
            self._engine.call_soon(lambda: deliver(known))
        else:
            self._engine.submit(*self._task(call), group, done)

    def cancel(self, group: Group) -> None:
        """End a group's running fits and drop its queue."""
        self._engine.cancel(group)

    def _submit_fit(self, call: Any, deliver: Callable[[Any], None]) -> None:
        known = self._log.known(call) if self._log else None
        if known is not None:
            self._engine.call_soon(lambda: deliver([known]))
            return

        def results(outcome: Outcome) -> Any:
            return self._fit_results(call, outcome)

        done = self._done(results, deliver)
        self._engine.submit(*self._task(call), self._group, done)
        if self._engine.hungry or time.monotonic() < self._started + _START_S:
            # This thread makes tasks as fast as it can, and would keep Python's lock for
            # 5 ms at a time: the first batches took 0.7 s to come back, now 0.1 s.
            time.sleep(0)

    def _task(self, call: FitCall) -> tuple[FitTask, tuple[DataRef, ...]]:
        """Return a fit as a task, and the data that it needs."""
        sent = self._spec(call)
        split_ref = self._split(call)
        own = self._own_parameters(call, sent.parts)
        task = FitTask(
            job=self._engine.next_number(),
            spec=sent.ref.digest,
            split_data=split_ref.digest,
            candidate=call.candidate,
            split=call.split,
            n_candidates=call.n_candidates,
            n_splits=call.n_splits,
            parameters=own.payload,
        )
        return task, (sent.ref, split_ref, *sent.data, *own.data)

    def _done(
        self,
        results: Callable[[Outcome], Any],
        deliver: Callable[[Any], None],
    ) -> Callable[[Outcome | HPSearchError], None]:
        """Deliver results as they come, and the first error in the order of tasks."""
        errors = self._errors
        in_turn = errors.expect(deliver)

        def done(outcome: Outcome | HPSearchError) -> None:
            if isinstance(outcome, HPSearchError):  # of the engine: it ends all tasks
                errors.end(deliver, outcome)
                return
            self._take_in(outcome)
            in_turn(results(outcome))

        return done

    def _take_in(self, outcome: Outcome) -> None:
        """Take what comes beside a result: warnings, messages of callbacks."""
        self._warnings.log(outcome)
        if outcome.relayed:
            sklearn_callbacks.deliver(outcome.relayed)

    def _fit_results(self, call: FitCall, outcome: Outcome) -> Any:
        """Turn a fit's outcome into what `retrieve_result_callback` takes."""
        try:
            result = fit_result(call, outcome)
            if self._log is not None:
                result = self._log.finished(call, result)
        except BaseException as error:  # noqa: BLE001 (raised again in the caller's thread)
            return error
        return [result]

    def _submit_calls(self, func: BatchedCalls, deliver: Callable[[Any], None]) -> None:
        task, refs = self._call_task(func)

        def results(outcome: Outcome) -> Any:
            try:
                return result_of(outcome, what=f"a call of {describe(func)}")
            except BaseException as error:  # noqa: BLE001
                return error

        done = self._done(results, deliver)
        self._engine.submit(task, tuple(refs.values()), self._group, done)

    def _spec(self, call: FitCall) -> _Sent:
        """Find or make the bundle of what the call's fits share."""
        estimator = b"" if call.of_search else pickled(call.estimator, "the estimator")
        for sent in self._specs:
            same_estimator = call.of_search or estimator == sent.estimator
            if same_estimator and sklearn_adapter.same_settings(sent.call, call):
                if call.of_search:
                    call.let_go(sent.call)
                return sent
        parts = self._parts(call)
        X, y = (
            self._known.put(self._collections.value(value, what=name), what=name)
            for name, value in (("X", call.X), ("y", call.y))
        )
        spec = FitSpec(
            function=sklearn_adapter.Portable(call.function),
            parts=parts.content,
            X=X.digest,
            y=y.digest,
            share_steps=self._share_steps,
        )
        self._engine.modules.compare(parts.content)
        ref = self._engine.data_store.put(spec, what=_THE_SEARCH)
        sent = _Sent(call, estimator, parts, ref, (X, y, *parts.refs.values()))
        self._specs.append(sent)
        return sent

    def _parts(self, call: FitCall) -> SharedParts:
        shared = {
            name: self._collections.value(value, what=name)
            for name, value in call.shared.items()
        }
        try:
            return SharedParts((call.estimator, shared), self._known, self._collections)
        except HPSearchError:
            raise
        except Exception as error:
            pickled(call.estimator, "the estimator")
            for name, value in shared.items():
                pickled(value, name)
            raise UnpicklableError.of(_THE_SEARCH, error) from error

    def _split(self, call: FitCall) -> DataRef:
        key = id(call.train), id(call.test)
        if key not in self._splits:
            pair = (call.train, call.test)
            self._splits[key] = *pair, self._engine.data_store.put(pair, what="a split")
        return self._splits[key][2]

    def _own_parameters(self, call: FitCall, after: SharedParts) -> _SentParameters:
        """Pickle a candidate's parameters; its next splits find them here."""
        known = self._parameters
        if (
            known is not None
            and known.parameters is call.parameters
            and known.after is after
        ):
            return known
        try:
            payload, refs = after.followed_by(call.parameters)
        except HPSearchError:
            raise
        except Exception as error:
            what = f"candidate {call.candidate} ({repr_of(call.parameters)})"
            raise UnpicklableError.of(what, error) from error
        self._engine.modules.compare(payload)
        known = _SentParameters(call.parameters, after, payload, tuple(refs.values()))
        self._parameters = known
        return known

    def _call_task(self, func: BatchedCalls) -> tuple[CallTask, dict[str, DataRef]]:
        """Return calls as a task, and the data that it needs.

        Functions are pickled once; each call's arguments as of a pickle of its own with
        its function.
        """
        try:
            functions, of_call = sklearn_adapter.distinct_functions(func.items)
            shared = SharedParts(functions, self._known, self._collections)
            own = [
                shared.followed_by((which, *arguments))
                for which, (_, *arguments) in zip(of_call, func.items, strict=True)
            ]
        except HPSearchError:
            raise
        except Exception as error:
            msg = (
                f"a call of {describe(func)} cannot be sent to the workers: pickling it "
                f"failed with {type(error).__name__}: {message_of(error)}"
            )
            raise UnpicklableError(msg) from error
        calls = tuple(payload for payload, _ in own)
        self._engine.modules.compare(b"".join([shared.content, *calls]))
        refs = dict(shared.refs)
        for _, more in own:
            refs |= more
        return CallTask(self._engine.next_number(), shared.content, calls), refs


def gathering(size: int, deliver: Callable[[Any], None]) -> Callable[[int, Any], None]:
    """Return what takes the results of a batch's tasks one by one, and delivers them.

    The first error is delivered at once, in place of the results.
    """
    if size == 1:
        return lambda _place, results: deliver(results)
    parts: dict[int, Any] = {}

    def take(place: int, results: Any) -> None:
        if len(parts) > size:
            return
        if isinstance(results, BaseException):
            parts.update(dict.fromkeys(range(size + 1)))  # nothing more is waited for
            deliver(results)
            return
        parts[place] = results
        if len(parts) == size:
            deliver([one for index in range(size) for one in parts[index]])

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
