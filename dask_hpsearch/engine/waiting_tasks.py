"""The fits that wait in the engine, and which of them begins next.

Fits begin in the order in which they came, with two exceptions. At first, one split each of
some different candidates runs, so that times can be predicted. And a long fit begins early
enough not to end last. Fits that share a pipeline's first steps can be taken together.
In a race, candidates run one split at a time (see `RaceOrder`). Pure: no clock, no cluster.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from dask_hpsearch.engine.policy import (
    RACE_BATCH_S,
    TARGET_BATCH_S,
    Durations,
    most_in_race,
)
from dask_hpsearch.engine.predictions import Encoder, fit_times
from dask_hpsearch.engine.racing import RaceOrder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from dask_hpsearch.engine.predictions import Row, TimeModel
    from dask_hpsearch.engine.racing import Race
    from dask_hpsearch.engine.step_groups import StepGroups

# A fit is due when the waiting fits keep the slots busy for this many times its own time.
DUE_ROUNDS = 4.0
MOST_PREDICTED = 4096
_MOST_MEASURED = 512
_MOST_STALE = 2
_LEAST_MEASURED = 3
_LEAST_S = 1e-4
_GROWTH = 1.25
_OWN_WEIGHT = 0.3  # of the model; each measured time of the candidate counts 1
_GOLDEN = (math.sqrt(5) - 1) / 2


class Waiting(Protocol):
    """A task of the engine that waits."""

    @property
    def candidate(self) -> int | None:
        """Ordinal of the candidate, if it is a fit of one."""

    @property
    def n_splits(self) -> int | None:
        """How many fits the candidate has."""

    @property
    def parameters(self) -> Mapping[str, Any] | None:
        """The candidate's parameters."""

    @property
    def steps_group(self) -> int | None:
        """The number of the group of fits that share a pipeline's first steps with it."""


@dataclass(slots=True, eq=False)
class _Candidate:
    """The waiting fits of a candidate, and the times of those that have run.

    Attributes
    ----------
    ordinal : int
        Its number in the search.
    place : int
        Its position in the order in which candidates came.
    n_running : int
        How many of its fits have begun but not ended.
    predicted_s : float or None
        Expected seconds of each of its fits.
    model_log : float or None
        The model's prediction, as a logarithm.
    """

    ordinal: int
    place: int
    row: Row
    waiting: list[Any] = field(default_factory=list)
    n_running: int = 0
    begun: bool = False
    listed: bool = False
    predicted_s: float | None = None
    model_log: float | None = None
    n_ended: int = 0
    n_measured: int = 0
    sum_log: float = 0.0

    def expected_s(self) -> float | None:
        """Weigh the model's prediction against the times of the candidate's own fits."""
        if self.model_log is None and not self.n_measured:
            return None
        weight = _OWN_WEIGHT if self.model_log is not None else 0.0
        logs = self.sum_log + weight * (self.model_log or 0.0)
        return math.exp(logs / (self.n_measured + weight))


class WaitingTasks:
    """Tasks that wait, and the order in which they begin.

    Adding and taking a task is O(log n), and so is each task that is taken with its group. A
    new prediction is O(n), and is made only when the number of known times has grown enough.

    Parameters
    ----------
    race : Race, optional
        Drops candidates.

    Attributes
    ----------
    durations : Durations
        Of the typical tasks that have ended; of all that have ended if none is typical.
    returned : deque
        Tasks that were put back: they come first.
    """

    def __init__(self, race: Race | None = None) -> None:
        self.durations = Durations()
        self._race = None if race is None else RaceOrder(race)
        self.returned: deque[Any] = deque()
        self._plain: OrderedDict[Any, None] = OrderedDict()
        self._by_group: dict[int, OrderedDict[Any, None]] = {}
        self._candidates: dict[int, _Candidate] = {}
        self._arrived: list[_Candidate] = []
        self._next = 0
        self._upcoming: _Candidate | None = None
        self._upcoming_is_due = False
        self._n_waiting = 0
        self._explored = self._n_taken = 0
        self._encoder = Encoder()
        self._measured: list[_Candidate] = []
        self._n_results = 0
        self._any_typical = False
        self._learn_at = 0
        self._model: TimeModel | None = None
        self._longest: list[tuple[float, int, _Candidate]] = []
        self._predicted_sum_s = 0.0
        self._n_predicted = 0
        self._places = itertools.count()

    def __len__(self) -> int:
        return self._n_waiting + len(self.returned) + len(self._plain)

    def __iter__(self) -> Iterator[Any]:
        """Iterate in the order in which tasks came; those that were put back come first."""
        yield from self.returned
        yield from self._plain
        for candidate in self._ahead():
            yield from candidate.waiting

    # --- in ---------------------------------------------------------------------------

    def append(self, task: Waiting) -> None:
        """Add a task that is new."""
        if task.steps_group is not None:
            self._by_group.setdefault(task.steps_group, OrderedDict())[task] = None
        if task.candidate is None or task.parameters is None:
            self._plain[task] = None
            return
        candidate = self._candidates.get(task.candidate)
        if candidate is None:
            row = self._encoded(task.parameters)
            candidate = _Candidate(task.candidate, next(self._places), row)
            self._candidates[task.candidate] = candidate
        candidate.waiting.append(task)
        self._count(candidate, 1)
        if not candidate.listed:
            candidate.listed = True
            self._arrived.append(candidate)
        if len(candidate.waiting) == 1:
            self._note_longest(candidate)
            if self._race is not None:
                self._race.note(candidate)

    def appendleft(self, task: Waiting) -> None:
        """Put back a task that has not run to its end: it comes next."""
        self.returned.appendleft(task)

    def drop(self, ordinal: int) -> list[Any]:
        """Take out all fits of a candidate; return them."""
        tasks = [task for task in self.returned if task.candidate == ordinal]
        for task in tasks:
            self.returned.remove(task)
        candidate = self._candidates.get(ordinal)
        if candidate is not None:
            new = list(candidate.waiting)
            for task in new:
                self._leave_group(task)
            candidate.waiting.clear()
            self._count(candidate, -len(new))
            tasks += new
        return tasks

    def has_dropped(self, task: Waiting) -> bool:
        """Whether a task is a fit of a candidate that is dropped."""
        return self._race is not None and task.candidate in self._race.race.dropped

    def clear(self) -> None:
        """Drop all tasks."""
        self.returned.clear()
        self._plain.clear()
        self._by_group.clear()
        self._candidates.clear()
        self._arrived.clear()
        self._longest.clear()
        self._measured.clear()
        if self._race is not None:
            self._race.clear()
        self._upcoming = None
        self._next = self._n_waiting = self._n_predicted = 0
        self._predicted_sum_s = 0.0

    def _encoded(self, parameters: Mapping[str, Any]) -> Row:
        try:
            return self._encoder.row(parameters)
        except Exception:  # noqa: BLE001 (the user's values: a bad one is not predicted)
            return (), ()

    # --- out --------------------------------------------------------------------------

    def take(self, slots: int, steps: StepGroups | None = None) -> Any:
        """Take the task that begins next.

        Parameters
        ----------
        slots : int
            Slots that share the waiting tasks.
        steps : StepGroups, optional
            The shared steps that are being made. A fit that would wait for them begins
            later, unless it is due.
        """
        if self.returned:
            return self.returned.popleft()
        task = self.next_task(slots)
        if steps is not None and steps.is_being_made(task.steps_group):
            task = self._task_that_need_not_wait(task, steps)
        self._remove(task)
        return task

    def take_group(self, first: Waiting, size: int, most_s: float) -> list[Any]:
        """Take a new task, and others that share steps with it, in the order they came.

        In a race, one of each candidate without a running fit, if that is its next one.

        Parameters
        ----------
        first : task
            A waiting task that has a group and was not put back.
        size : int
            How many to take at most.
        most_s : float
            Limit of their expected seconds in total; the first one alone may take longer.
        """
        tasks, seconds = [first], self.expected_s(first) or 0.0
        for task in self._by_group[first.steps_group or 0]:
            if len(tasks) == size:
                break
            if task is not first and self._may_go_along(task):
                seconds += self.expected_s(task) or 0.0
                if seconds > most_s:
                    break
                tasks.append(task)
        for task in tasks:
            self._remove(task)
        return tasks

    def _may_go_along(self, task: Waiting) -> bool:
        """Whether a task may begin together with others that share steps with it."""
        candidate = None if self._race is None else self._candidate_of(task)
        if candidate is None:
            return True
        return not candidate.n_running and task is candidate.waiting[0]

    def n_in_group(self, group: int) -> int:
        """Return how many new tasks of a group wait."""
        return len(self._by_group.get(group, ()))

    def may_begin(self, slots: int, in_flight: int) -> bool:
        """Whether another batch may go to Dask.

        In a race, a decision may spare a fit that has not begun: few fits wait with Dask,
        and a candidate runs several splits at once only in slots that are free.

        Parameters
        ----------
        slots : int
            Number of slots.
        in_flight : int
            Batches that are with Dask.
        """
        if self._race is None or not slots or self.returned or self._plain:
            return True
        if self.has_free_candidate:
            return in_flight < most_in_race(slots, self.durations.mean_s)
        return in_flight < slots

    @property
    def has_free_candidate(self) -> bool:
        """Whether a task waits whose candidate has no running fit; or there is no race."""
        if self._race is None or self.returned or self._plain:
            return True
        return (self._race.best_begun() or self._race.first_new()) is not None

    @property
    def target_batch_s(self) -> float:
        """Seconds of work in a batch of short tasks."""
        return TARGET_BATCH_S if self._race is None else RACE_BATCH_S

    def next_task(self, slots: int) -> Any:
        """Return the task that `take` would return, regardless of the steps being made."""
        if self.returned:
            return self.returned[0]
        if self._plain:
            return next(iter(self._plain))
        return self._chosen(slots).waiting[0]

    def _task_that_need_not_wait(self, task: Any, steps: StepGroups) -> Any:
        """Return a task that need not wait for shared steps; the given one if there is none."""
        among: list[Iterable[Any]] = [self]
        if not self._plain and self._upcoming is not None:
            splits = self._upcoming.waiting
            among = [splits] if self._upcoming_is_due else [splits, self]
            if self._race is not None:  # others may have fits that run
                among = [splits]
        for tasks in among:
            place = steps.next_place(tasks)
            other = next(itertools.islice(tasks, place, None))
            if not steps.is_being_made(other.steps_group):
                return other
        return task

    def _leave_group(self, task: Any) -> None:
        if task.steps_group is not None:
            of_group = self._by_group[task.steps_group]
            del of_group[task]
            if not of_group:
                del self._by_group[task.steps_group]

    def _remove(self, task: Any) -> None:
        """Take a new task out."""
        self._leave_group(task)
        if task in self._plain:
            del self._plain[task]
            return
        candidate = self._candidates[task.candidate]
        candidate.begun = True
        candidate.n_running += 1
        candidate.waiting.remove(task)
        self._n_taken += 1
        self._count(candidate, -1)

    def expected_s(self, task: Waiting) -> float | None:
        """Return the expected seconds of a task.

        For a task whose candidate is not known yet, this is the mean of all.
        """
        candidate = self._candidate_of(task)
        if candidate is None or candidate.predicted_s is None:
            return self.durations.mean_s
        return candidate.predicted_s

    def total_s(self) -> float | None:
        """Return the expected seconds of all waiting tasks; None if nothing is known."""
        mean_s = self.durations.mean_s
        if mean_s is None:
            return None
        return (
            max(self._predicted_sum_s, 0.0) + (len(self) - self._n_predicted) * mean_s
        )

    def _chosen(self, slots: int) -> _Candidate:
        """Return the candidate whose turn it is."""
        if self._upcoming is None:
            due = self._due(slots)
            self._upcoming_is_due = due is not None
            self._upcoming = due or self._next_candidate(slots)
        return self._upcoming

    def _next_candidate(self, slots: int) -> _Candidate:
        """Return the candidate whose turn it is if none is due."""
        if self._race is None:
            return self._to_explore(slots) or self._first_come()
        begun = self._race.best_begun()
        if begun is not None and self._race.race.leads(begun.ordinal):
            return begun  # type: ignore[no-any-return]
        unbegun = self._to_explore(slots) or self._race.first_new()
        return unbegun or begun or self._race.best_of(self._ahead())

    def _due(self, slots: int) -> _Candidate | None:
        """Return the candidate with the longest fits, if they must begin now."""
        heap = self._longest
        while heap and not self._may_be_due(*heap[0]):
            heapq.heappop(heap)
        total_s = self.total_s()
        if not heap or total_s is None:
            return None
        seconds, _, candidate = heap[0]
        due = total_s <= DUE_ROUNDS * max(slots, 1) * -seconds
        return candidate if due else None

    def _may_be_due(self, seconds: float, place: int, candidate: _Candidate) -> bool:
        """Whether an entry of the heap is still valid."""
        del place
        if not candidate.waiting or -seconds != candidate.predicted_s:
            return False
        return self._race is None or not candidate.n_running

    def _to_explore(self, slots: int) -> _Candidate | None:
        """Return a candidate of which no fit has begun; None once enough are explored."""
        if self._explored >= 2 * max(slots, 1):
            return None
        # Any number of multiples of the golden section are spread evenly.
        part = (self._n_taken * _GOLDEN) % 1.0
        place = self._next + int(part * (len(self._arrived) - self._next))
        candidate = self._arrived[place]
        if candidate.begun or not candidate.waiting:
            return None
        self._explored += 1
        return candidate

    def _first_come(self) -> _Candidate:
        return next(self._ahead())

    def _ahead(self) -> Iterator[_Candidate]:
        """Iterate over the candidates that have waiting fits, in the order they came."""
        arrived = self._arrived
        while self._next < len(arrived) and not arrived[self._next].waiting:
            arrived[self._next].listed = False
            self._next += 1
        if self._next > len(arrived) // 2:
            del arrived[: self._next]
            self._next = 0
        ahead = (arrived[place] for place in range(self._next, len(arrived)))
        return (one for one in ahead if one.waiting)

    def _count(self, candidate: _Candidate, tasks: int) -> None:
        self._upcoming = None
        self._n_waiting += tasks
        if candidate.predicted_s is not None:
            self._n_predicted += tasks
            self._predicted_sum_s += tasks * candidate.predicted_s

    # --- times ------------------------------------------------------------------------

    def took(self, task: Waiting, seconds: float, *, is_typical: bool = True) -> None:
        """Note how long a task took.

        Parameters
        ----------
        task : task
            It has run to its end.
        seconds : float
        is_typical : bool
            False: the task made steps that other fits then share. Its time counts only
            while no other is known.
        """
        self._n_results += 1
        if is_typical and not self._any_typical:
            self._any_typical = True
            self.durations = Durations()
        if is_typical or not self._any_typical:
            self.durations.add(seconds)
        candidate = self._candidate_of(task)
        if candidate is None:
            return
        candidate.n_running -= 1
        if self._race is not None:
            self._race.note(candidate)
            self._upcoming = None
        candidate.n_ended += 1
        if not candidate.waiting and candidate.n_ended == task.n_splits:
            self._candidates.pop(task.candidate or 0, None)
        if candidate.row[0]:
            if is_typical:
                self._measure(candidate, seconds)
            if candidate.waiting:
                self._expect(candidate, candidate.model_log)

    def _measure(self, candidate: _Candidate, seconds: float) -> None:
        """Note how long a fit of a candidate took."""
        if not candidate.n_measured:
            self._measured.append(candidate)
            if len(self._measured) > _MOST_MEASURED:
                del self._measured[::2]
        candidate.n_measured += 1
        candidate.sum_log += math.log(max(seconds, _LEAST_S))

    @property
    def can_learn(self) -> bool:
        """Whether there are enough new times, or new candidates, for a new prediction."""
        if self._n_waiting < 2 or len(self._measured) < _LEAST_MEASURED:  # noqa: PLR2004
            return False
        unknown = self._n_waiting - self._n_predicted
        few = self._n_predicted < min(unknown, MOST_PREDICTED // 4)
        return few or self._n_results >= self._learn_at

    def learn(self, most: int = MOST_PREDICTED) -> None:
        """Predict the times of the waiting candidates from the known times.

        Parameters
        ----------
        most : int
            How many candidates to predict, the next ones first.
        """
        if self._model is None or self._n_results >= self._learn_at:
            self._learn_at = math.ceil(_GROWTH * self._n_results)
            self._model = fit_times(
                [one.row for one in self._measured],
                [math.exp(one.sum_log / one.n_measured) for one in self._measured],
                self._encoder.numeric,
            )
        chosen = list(itertools.islice(self._ahead(), most))
        self._longest = []
        for first in range(0, len(chosen), MOST_PREDICTED):
            some = chosen[first : first + MOST_PREDICTED]
            logs = self._model.predict([one.row for one in some]).tolist()
            for candidate, log in zip(some, logs, strict=True):
                self._expect(candidate, log)

    def _expect(self, candidate: _Candidate, model_log: float | None) -> None:
        """Update the expected time of a waiting candidate."""
        waiting = len(candidate.waiting)
        self._count(candidate, -waiting)
        candidate.model_log = model_log
        candidate.predicted_s = candidate.expected_s()
        self._count(candidate, waiting)
        self._note_longest(candidate)

    def _note_longest(self, candidate: _Candidate) -> None:
        if candidate.predicted_s is not None:
            entry = -candidate.predicted_s, candidate.place, candidate
            heapq.heappush(self._longest, entry)
            if len(self._longest) > _MOST_STALE * len(self._arrived) + _MOST_MEASURED:
                self._longest = [one for one in self._longest if _is_current(one)]
                heapq.heapify(self._longest)

    def _candidate_of(self, task: Waiting) -> _Candidate | None:
        return None if task.candidate is None else self._candidates.get(task.candidate)


def _is_current(entry: tuple[float, int, _Candidate]) -> bool:
    """Whether a candidate still waits, with the prediction of this entry."""
    return bool(entry[2].waiting) and -entry[0] == entry[2].predicted_s
