"""Runs tasks on a Dask client's workers and hands out outcomes as they come."""

from __future__ import annotations

import contextlib
import itertools
import logging
import queue
import threading
import time
import uuid
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from distributed.scheduler import KilledWorker

from dask_hpsearch.data import DataSender, DataStore
from dask_hpsearch.engine.client import check_client, reason_of, register_slots
from dask_hpsearch.engine.cluster_features import as_features
from dask_hpsearch.engine.cluster_watch import ClusterWatch
from dask_hpsearch.engine.futures import take_back, when_ended, when_fetched
from dask_hpsearch.engine.module_sync import ModuleSender
from dask_hpsearch.engine.policy import most_in_flight, most_predicted
from dask_hpsearch.engine.tasks import (
    InFlightBatch,
    TaskGroup,
    TaskState,
    crash_outcome,
    tried_twice,
)
from dask_hpsearch.engine.worker_watch import CHECK_S, SlotWatch
from dask_hpsearch.exceptions import HPSearchError, SearchStopped
from dask_hpsearch.messages import DataRef, Outcome, Task, decode_outcomes
from dask_hpsearch.slots.plugin import cancel_groups, run_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from distributed import Client, Future

    from dask_hpsearch.engine.cluster_features import Problem
    from dask_hpsearch.engine.futures import Fetched

    Report = dict[str, Any]

_logger = logging.getLogger(__name__)
_MOST_RETURNS = 20
_MAY_RUN_AGAIN = ("returned", "killed", "disk")
_CANCEL_WAIT_S = 2.0
_MOST_PER_MESSAGE = 64
_LARGE_MESSAGE_NBYTES = 2**20
# Many slots ask for batches all the time. A message for each of them would keep client and
# scheduler busy; batches that wait on the workers hide the delay.
_MANY_SLOTS = 256
_GATHER_S = 0.02
_MOST_EVENTS_S = 0.05
# Of the time, at most one such part goes into predictions; what a few seconds did not need of
# it is there for the next ones.
_LEARN_PART = 50
_LEARN_SAVED_S = 3.0


@dataclass(frozen=True, slots=True)
class _NewBatch:
    """A batch that is about to be submitted."""

    group: TaskGroup
    number: int
    states: list[TaskState]
    payload: bytes


class Engine:
    """Keeps all slots of a client busy with the tasks it is given.

    Results are delivered one by one, in a thread of the engine's own.

    Parameters
    ----------
    client : Client
    data_store : DataStore
        Holds the data of the tasks.
    fit_timeout_s : float or None
        Longest time one task may run.
    worker_timeout_s : float
        How long to wait for a first worker.
    on_slots : callable, optional
        Called with (workers, slots, running) as they change.
    cluster : object, optional
        Asked for problems of its pods; default: the client's cluster.
    on_problem : callable
        Called with the text to show of these problems, as it changes.

    Attributes
    ----------
    hungry : bool
        Whether Dask could have more tasks than were submitted.
    behind : bool
        Whether outcomes wait to be delivered, while every slot has what it can have.

    Raises
    ------
    ClientClosedError
        If the client is closed or asynchronous.
    WorkersLackPackageError
        If a worker cannot import dask_hpsearch.
    """

    def __init__(
        self,
        client: Client,
        data_store: DataStore,
        *,
        fit_timeout_s: float | None = None,
        worker_timeout_s: float = 60.0,
        on_slots: Callable[[int, int, int], None] | None = None,
        cluster: Any = None,
        on_problem: Callable[[str], None] = lambda _: None,
    ) -> None:
        check_client(client)
        self.client = client
        self.data_store = data_store
        self._fit_timeout_s = fit_timeout_s
        self._topic = f"dask-hpsearch-{uuid.uuid4().hex[:16]}"
        self._numbers = itertools.count()
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._inbox: deque[TaskState] = deque()
        self.hungry, self.behind = True, False
        self._groups: list[TaskGroup] = []
        self._tasks: dict[int, TaskState] = {}
        self._flights: dict[int, InFlightBatch] = {}
        self._writers: dict[str, Report] = {}
        self._learn_at = 0.0
        self._fill_at = 0.0
        self._failure: HPSearchError | None = None
        self._closed = False
        self.task_bytes = self.tasks_sent = 0
        register_slots(client)
        self.modules = ModuleSender(client)
        self._sender = DataSender(client, data_store, self._topic)
        client.subscribe_topic(self._topic, self._on_worker_event)
        features = as_features(cluster or client.cluster)
        self.watch = SlotWatch(
            client,
            worker_timeout_s=worker_timeout_s,
            on_slots=on_slots,
            cluster=features,
        )
        self.watch.report(0)
        self._thread = threading.Thread(
            target=self._run, name="dask-hpsearch-engine", daemon=True
        )
        self._thread.start()
        self.problems = ClusterWatch(
            features, on_problem=self._on_problem, on_text=on_problem
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def slots(self) -> int:
        """Slots there are now, as of less than a second ago."""
        return self.watch.slots

    def wait_for_slots(self) -> None:
        """Wait until there is a slot; a cluster that scales by its tasks grows one.

        Raises
        ------
        NoWorkersError
            If there is none within the time-out.
        """
        self.watch.wait()

    def next_number(self) -> int:
        """Return a number that no other task of this engine has."""
        return next(self._numbers)

    def submit(
        self,
        task: Task,
        data: Iterable[DataRef],
        group: TaskGroup,
        done: Callable[[Outcome | HPSearchError], None],
        *,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        """Queue a task; never blocks.

        Parameters
        ----------
        task : FitTask or CallTask
        data : iterable of DataRef
            The bundles it needs.
        group : TaskGroup
        done : callable
            Called once, in the engine's thread, with the outcome, or with the error
            that ended the engine or the group.
        parameters : mapping of str to object, optional
            Of the candidate that it fits, by which its time is predicted.
        """
        self._inbox.append(TaskState(task, tuple(data), group, done, parameters))
        if self.hungry:  # else it is looked into when a batch has ended
            self._events.put(self._take_inbox)

    def call_soon(self, function: Callable[[], None]) -> None:
        """Call a function in the engine's thread, as outcomes are delivered."""
        self._events.put(function)

    def cancel(self, group: TaskGroup) -> None:
        """End a group: queued tasks are dropped, running ones' processes end.

        Returns when the workers have been informed, or after two seconds.
        """
        sent = threading.Event()
        group.cancelled = True
        self._events.put(lambda: self._cancel([group], sent))
        if not self.is_current_thread():
            sent.wait(_CANCEL_WAIT_S)

    def drop(self, candidates: Iterable[int]) -> None:
        """Drop candidates: their fits that wait here never begin, others go on.

        Only in the engine's thread. The outcome of a dropped fit is "dropped".
        """
        self._take_inbox()
        for candidate in candidates:
            for group in self._groups:
                for state in group.waiting.drop(candidate):
                    self._resolve(state, Outcome(state.number, "dropped"))

    def is_current_thread(self) -> bool:
        """Whether this is the engine's thread, in which outcomes are delivered."""
        return threading.current_thread() is self._thread

    def stop(self, reason: str) -> None:
        """End all tasks with `SearchStopped`: running, queued and later ones."""
        self._events.put(lambda: self._fail(SearchStopped(reason)))

    def close(self) -> None:
        """End everything that still runs, and the engine's threads."""
        if self._closed:
            return
        self._closed = True
        self.problems.close()
        self._events.put(lambda: self._fail(SearchStopped("closed")))
        self._thread.join()
        self._sender.close()
        with contextlib.suppress(Exception):  # a lost client has no subscriptions
            self.client.unsubscribe_topic(self._topic)

    # --- the engine's thread ---------------------------------------------------------

    def _run(self) -> None:
        while not (self._closed and self._events.empty() and not self._inbox):
            try:
                self._take_events()
                self._take_inbox()
                self._count_slots()
                self._fill_slots()
                self._learn_times()
            except HPSearchError as error:
                self._fail(error)
            except Exception as error:
                _logger.exception("the engine failed")
                self._fail(HPSearchError(f"the engine failed: {error!r}"))

    def _take_events(self) -> None:
        """Wait a moment for an event, and handle those in the queue.

        Not all of very many: slots wait for new batches meanwhile.
        """
        overlooked = self.hungry and self._inbox  # it came while slots were filled
        until_fill_s = self._fill_at - time.monotonic()
        wait_s = until_fill_s if until_fill_s > 0 else CHECK_S
        with contextlib.suppress(queue.Empty):
            event = self._events.get(timeout=0 if overlooked else wait_s)
            until = time.monotonic() + _MOST_EVENTS_S
            event()
            while time.monotonic() < until:
                self._events.get_nowait()()
            self.behind = not self.hungry
            return
        self.behind = False

    def _take_inbox(self) -> None:
        """Queue the tasks that were submitted."""
        while self._inbox:
            self._enqueue(self._inbox.popleft())

    def _enqueue(self, state: TaskState) -> None:
        if self._failure is not None or state.group.cancelled:
            self._resolve(state, self._failure or SearchStopped("cancelled"))
            return
        if state.group.waiting.has_dropped(state):
            self._resolve(state, Outcome(state.number, "dropped"))
            return
        if state.group not in self._groups:
            self._groups.append(state.group)
        if not self._tasks:
            self.watch.work_begins()
        self._tasks[state.number] = state
        state.group.waiting.append(state)

    def _count_slots(self) -> None:
        if self.watch.is_due() and self._failure is None and self._tasks:
            check_client(self.client)
            self.watch.count()
            self.watch.report(len(self._flights))
            self.watch.want(self._topic, sum(group.wants() for group in self._groups))
            self.watch.check_for_workers()

    def _fill_slots(self) -> None:
        """Submit batches, the groups taking turns, while Dask may have more."""
        if time.monotonic() < self._fill_at:
            self.hungry = False  # until then nobody needs to announce a new task
            return
        sent = self.tasks_sent
        room = most_in_flight(self.watch.slots) - len(self._flights)
        batches: list[_NewBatch] = []
        groups = deque(
            group
            for group in self._groups
            if group.waiting and not group.lingers(self.watch.nodes)
        )
        while room > 0 and groups and self._failure is None:
            group = groups.popleft()
            if group.may_begin(self.watch.slots):
                batches.append(self._next_batch(group))
                room -= 1
                nbytes = sum(len(batch.payload) for batch in batches)
                if len(batches) == _MOST_PER_MESSAGE or nbytes > _LARGE_MESSAGE_NBYTES:
                    self._submit(batches)
                    batches = []
                if group.waiting:
                    groups.append(group)
        self._submit(batches)
        self.hungry = room > 0 or self._failure is not None
        if self.tasks_sent > sent and self.watch.slots >= _MANY_SLOTS:
            self._fill_at = time.monotonic() + _GATHER_S

    def _learn_times(self) -> None:
        """Predict the times of waiting fits anew, in a moment when nothing else is to do."""
        began, cpu = time.monotonic(), time.thread_time()
        for group in self._groups:
            if not self._events.empty() or began < self._learn_at:
                return
            if group.waiting.can_learn:
                group.waiting.learn(most_predicted(self.watch.slots))
                took = time.thread_time() - cpu  # others may have had the core
                saved_from = max(self._learn_at, began - _LEARN_SAVED_S)
                self._learn_at = saved_from + _LEARN_PART * took

    def _next_batch(self, group: TaskGroup) -> _NewBatch:
        states = group.take_batch(self.watch.slots, nodes=self.watch.nodes)
        number = self.next_number()
        payload = group.batch_of(
            states,
            number,
            topic=self._topic,
            fit_timeout_s=self._fit_timeout_s,
            later=self._later(group),
        ).to_bytes()
        group.in_flight += 1
        return _NewBatch(group, number, states, payload)

    def _submit(self, batches: list[_NewBatch]) -> None:
        """Submit batches in one message, which the scheduler takes in much faster."""
        if not batches:
            return
        # One key prefix for all: the scheduler then queues what has no free slot yet,
        # and gives it to the first worker that is free, new ones included.
        futures = self.client.map(
            run_batch,
            [batch.payload for batch in batches],
            key=[(self._topic, batch.number) for batch in batches],
            pure=False,
        )
        for batch, future in zip(batches, futures, strict=True):
            self.task_bytes += len(batch.payload)
            self.tasks_sent += len(batch.states)
            numbers = {state.number for state in batch.states}
            self._flights[batch.number] = InFlightBatch(batch.group, numbers, future)
            self._watch_end(batch.number, future)
        self.watch.report(len(self._flights))

    def _later(self, group: TaskGroup) -> int | None:
        """Return how many tasks each worker gets later; None if it is not known."""
        if group.unfinished is None or len(self._groups) > 1:
            return None
        later = group.unfinished - len(self._tasks) + len(group.waiting)
        return max(later, 0) // max(self.watch.workers, 1)

    def _watch_end(self, number: int, future: Future[bytes]) -> None:
        when_ended(future, lambda: self._events.put(lambda: self._ended(number)))

    def _ended(self, number: int) -> None:
        """Note a batch's end; fetch outcomes that were not reported."""
        flight = self._flights.get(number)
        if flight is None:
            return
        if flight.open or flight.future.status != "finished":
            when_fetched(
                self.client,
                flight.future,
                lambda fetched: self._events.put(lambda: self._landed(number, fetched)),
            )
            return
        del self._flights[number]
        flight.group.in_flight -= 1
        self.watch.report(len(self._flights))

    def _landed(self, number: int, fetched: Fetched) -> None:
        flight = self._flights.pop(number, None)
        if flight is None:
            return
        flight.group.in_flight -= 1
        for outcome in self._outcomes_of(flight, fetched):
            self._take(outcome, flight)
        for lost in list(flight.open):  # reported, but the report was lost
            self._take(Outcome(lost, "returned"), flight)
        self.watch.report(len(self._flights))

    def _outcomes_of(self, flight: InFlightBatch, fetched: Fetched) -> list[Outcome]:
        """Read a batch's outcomes; tasks that were lost with their worker run again."""
        try:
            return decode_outcomes(fetched.result())
        except KilledWorker:
            # Only slots run the user's code: no fit is to blame for a worker's loss.
            return [Outcome(number, "returned") for number in flight.open]
        except Exception as error:  # noqa: BLE001
            self._fail(reason_of(error, flight.future, self.client))
            return []

    def _take(self, outcome: Outcome, flight: InFlightBatch) -> None:
        """Deliver an outcome, or queue the task again."""
        state = self._tasks.get(outcome.number)
        mine = outcome.number in flight.open
        flight.open.discard(outcome.number)
        if state is None or (outcome.status in _MAY_RUN_AGAIN and not mine):
            return
        if outcome.status == "returned" or self.modules.sent_for(outcome):
            self._run_again(state)
        elif outcome.status in ("killed", "disk") and not state.deaths:
            # The fit may not be to blame; if it happens again, it is.
            _logger.warning("%s: the fit is tried once more", outcome.message)
            state.deaths += 1
            self._put_back(state)
        else:
            if outcome.status not in ("unreadable", "no data"):
                state.group.took(state, outcome.seconds)
            self._resolve(state, tried_twice(outcome) if state.deaths else outcome)
        state.group.steps.end(state.steps_group, ran=outcome.status != "returned")

    def _note_crash(self, report: dict[str, Any]) -> None:
        """Blame a fit for its worker's end; after the first time Dask itself runs it again."""
        state = self._tasks.get(report["crashed"])
        if state is None:
            return
        state.deaths += 1
        outcome = crash_outcome(report)
        if state.deaths == 1:
            _logger.warning("%s: the fit is tried once more", outcome.message)
            return
        for key in [
            n for n, one in self._flights.items() if outcome.number in one.open
        ]:
            flight = self._flights.pop(key)
            flight.group.in_flight -= 1
            for one in flight.open - {outcome.number}:
                self._put_back(self._tasks[one])
            take_back(self.client, flight.future, self._topic, outcome.number)
        self._resolve(state, tried_twice(outcome))

    def _note_eviction(self, problem: Problem) -> None:
        """Blame the fit that wrote most if its worker's pod was evicted for a full disk."""
        report = self._writers.pop(problem.pod, None)
        if report is not None and problem.is_full_disk:
            self._note_crash(
                {
                    "crashed": report["writes"],
                    "nbytes": report["nbytes"],
                    "evicted": problem.message,
                }
            )

    def _run_again(self, state: TaskState) -> None:
        state.returns += 1
        if state.returns > _MOST_RETURNS:
            msg = f"its worker was lost {state.returns} times"
            self._resolve(state, Outcome(state.number, "killed", message=msg))
        else:
            self._put_back(state)

    def _put_back(self, state: TaskState) -> None:
        """Queue a task again that has not run to its end, unless its candidate is dropped."""
        if state.group.waiting.has_dropped(state):
            self._resolve(state, Outcome(state.number, "dropped"))
        else:
            state.group.waiting.appendleft(state)

    def _take_report(self, number: int, payload: bytes) -> None:
        """Take outcomes that a worker reported before its batch had ended."""
        flight = self._flights.get(number)
        if flight is not None:
            for outcome in decode_outcomes(payload):
                self._take(outcome, flight)

    def _resolve(self, state: TaskState, outcome: Outcome | HPSearchError) -> None:
        self._tasks.pop(state.number, None)
        if not state.resolved:
            state.resolved = True
            state.group.ended()
            state.done(outcome)

    def _cancel(
        self, groups: list[TaskGroup], sent: threading.Event | None = None
    ) -> None:
        names = [group.name for group in groups]
        flights = {n: f for n, f in self._flights.items() if f.group.name in names}
        for number, flight in flights.items():
            del self._flights[number]
            flight.group.in_flight -= 1
        futures = [flight.future for flight in flights.values()]
        for group in groups:
            group.cancelled = True
            group.waiting.clear()
        for number in [
            n for n, state in self._tasks.items() if state.group.name in names
        ]:
            del self._tasks[number]
        self._groups = [group for group in self._groups if group.name not in names]
        if futures and self.client.status == "running":
            with contextlib.suppress(Exception):  # workers may be leaving too
                self.client.cancel(futures)
                self.client.run(cancel_groups, names, on_error="ignore")
        if sent is not None:
            sent.set()

    def _fail(self, error: HPSearchError) -> None:
        """End all tasks with an error; later ones too."""
        self._failure = self._failure or error
        states = list(self._tasks.values())
        self._cancel(list({group.name: group for group in self._groups}.values()))
        for state in states:
            self._resolve(state, self._failure)

    # --- the client's event loop -----------------------------------------------------

    def _on_worker_event(self, event: tuple[float, dict[str, Any]]) -> None:
        _, message = event
        if "need" in message:
            self._sender.request(message["need"], message["worker"])
        elif "crashed" in message:
            self._events.put(lambda: self._note_crash(message))
        elif "writes" in message:
            self._writers[message["pod"]] = message
        elif "outcomes" in message:
            number, outcomes = message["batch"], message["outcomes"]
            self._events.put(lambda: self._take_report(number, outcomes))

    # --- the thread that watches the cluster -----------------------------------------

    def _on_problem(self, problem: Problem) -> None:
        self._events.put(lambda: self._note_eviction(problem))
