"""The events of a run's journal: one class for each kind, and the JSON that is stored.

A stored event is a JSON object. Long runs have many of them, so that the keys are short:

============  ================  ==================================================
key           kinds             meaning
============  ================  ==================================================
``e``         all               kind: ``call``, ``ask``, ``tell``, ``fit``,
                                ``report``, ``drop``, ``train``, ``round``,
                                ``state``, ``beat`` (a heartbeat) or ``callback``
``g``         all               generation of the run; the first is 0
``t``         all               time, in seconds since the epoch
``c``         call, ask, tell,  ordinal of the call of ``evaluate_candidates``;
              fit, report,      of a search that trains models by
              drop, train,      ``partial_fit``: its bracket
              round
``i``         ask, tell, fit,   ordinal of the candidate within its call
              report, drop,
              train
``k``         call              number of splits
``n``         call              number of candidates that will be asked, if they
                                are not all known when the call begins
``params``    call, ask         parameters to display; of a call, a list of them
``extra``     call              columns that the search adds to ``cv_results_``
``s``         fit               ordinal of the split
``d``         ask, fit, drop,   digest of the candidate's parameters
              train
``r``         fit, train        result, as `serialization.encode_result` encodes it
``calls``     train, round      calls of ``partial_fit``: of the model so far; those
                                that come next, by model
``model``     train             name of the model's state
``number``    round             ordinal of the round within its bracket
``p``         ask               parameters, encoded in the same way
``space``     ask, tell         ordinal of the search space; of a promotion in a halving
                                search, of the candidate in the lowest rung
``value``     tell              mean score; null if the candidate failed
``trial``     tell              state of an Optuna trial
``step``      report            step of the first of the values
``values``    report            scores reported to a pruner; null for NaN
``pruned``    report            whether the pruner then ended the candidate
``marks``     report            what the pruner keeps in the trial, by name
``w n b``     beat              workers, their slots, busy slots
``x``         beat              problem of the cluster
``m``         beat              peak memory of the driver, in bytes
``of``        callback          call, ordinal and digest of candidates that
                                ``on_candidate`` was called with
``usd``       beat              cost of the run so far, in US dollars
``state``     state             a `RunState`
``driver``    state             name of the driver, unique
``host``      state             host of its process
``pid``       state             its process
``process``   state             start time of that process
``own``       state             whether the process ends with the driver
``heartbeat_  state             seconds without an event after which the driver
timeout``                       counts as lost (earlier: ``patience``)
``error``     state             error that led to the state
``reason``    state             why the search was stopped early
``best``      state             best candidate: its ``score`` and ``params``
``unstored``  state             why the result is not whole in the store
============  ================  ==================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from dask_hpsearch.journal.callback_events import CallbackEvent
from dask_hpsearch.journal.run_state import RunState
from dask_hpsearch.journal.stored_event import Stored, StoredEvent, given
from dask_hpsearch.journal.training_events import RoundEvent, TrainEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEvent(StoredEvent):
    """A call of ``evaluate_candidates`` began.

    Attributes
    ----------
    generation : int
        Of the run, as for each event.
    time : float
        Seconds since the epoch, as for each event.
    call, n_splits : int
    params : list of dict
        Parameters of the candidates to display.
    extra : dict of str to list
        Columns that the search adds to ``cv_results_``.
    n_candidates : int, optional
        How many will be asked; None: ``params`` has them all.
    """

    KIND: ClassVar[str] = "call"

    generation: int
    time: float
    call: int
    n_splits: int
    params: list[dict[str, Any]]
    extra: dict[str, list[Any]]
    n_candidates: int | None = None

    @property
    def trains_models(self) -> bool:
        """Whether it is a bracket whose models ``partial_fit`` trains: without splits."""
        return not self.n_splits


@dataclass(frozen=True, slots=True, kw_only=True)
class AskEvent(StoredEvent):
    """A strategy asked for a candidate, or promoted one; its fits come later.

    Attributes
    ----------
    call, candidate, space : int
    digest : str
        Of the candidate's parameters.
    encoded : dict
        The parameters, as `serialization.encode_result` encodes them.
    params : dict
        The parameters to display.
    """

    KIND: ClassVar[str] = "ask"

    generation: int
    time: float
    call: int
    candidate: int
    space: int
    digest: str
    encoded: dict[str, Any]
    params: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TellEvent(StoredEvent):
    """A Bayes strategy has learned the value of a candidate.

    Attributes
    ----------
    call, candidate, space : int
    value : float or None
        None if the candidate failed.
    trial : str, optional
        The state of an Optuna trial, by its name there.
    """

    KIND: ClassVar[str] = "tell"

    generation: int
    time: float
    call: int
    candidate: int
    space: int
    value: float | None
    trial: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FitEvent(StoredEvent):
    """A fit has finished.

    Attributes
    ----------
    call, candidate, split : int
    digest : str
        Of the candidate's parameters.
    result : dict
        As `serialization.encode_result` encodes it.
    """

    KIND: ClassVar[str] = "fit"

    generation: int
    time: float
    call: int
    candidate: int
    split: int
    digest: str
    result: dict[str, Any]

    def is_of(self, call: int, generation: int) -> bool:
        """Whether it is a fit of a call in a generation of the run."""
        return (self.call, self.generation) == (call, generation)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportEvent(StoredEvent):
    """Scores of a candidate were reported to a pruner, which has decided on it.

    Attributes
    ----------
    call, candidate : int
    step : int
        Of the first value.
    values : tuple of (float or None)
        One for each step; None for NaN.
    pruned : bool
        Whether the pruner has ended the candidate at the last of these steps.
    marks : dict, optional
        What the pruner has kept in the trial meanwhile: system attributes of Optuna.
    """

    KIND: ClassVar[str] = "report"

    generation: int
    time: float
    call: int
    candidate: int
    step: int
    values: Sequence[float | None]
    pruned: bool
    marks: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DropEvent(StoredEvent):
    """A race or a pruner has dropped a candidate: no further fit of it begins.

    Attributes
    ----------
    call, candidate : int
    digest : str
        Of the candidate's parameters.
    """

    KIND: ClassVar[str] = "drop"

    generation: int
    time: float
    call: int
    candidate: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterUsage:
    """The size of a driver's cluster.

    Attributes
    ----------
    workers, slots, running : int
        Workers, their slots, and the fits that run in these.
    problem : str
        The cluster's problem; empty if there is none.
    dashboard : str
        URL of Dask's dashboard, as the driver knows it; empty if it is not known.
    """

    workers: int
    slots: int
    running: int
    problem: str = ""
    dashboard: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatEvent(StoredEvent):
    """A driver is alive.

    Attributes
    ----------
    usage : ClusterUsage, optional
        None before the driver uses a cluster.
    cost_usd : float, optional
        Cost of the run so far; None if prices are not known.
    peak_nbytes : int
        The most memory that the driver's process has used; 0 if it is shared.
    """

    KIND: ClassVar[str] = "beat"

    generation: int
    time: float
    usage: ClusterUsage | None = None
    cost_usd: float | None = None
    peak_nbytes: int = 0

    def to_json(self) -> Stored:
        """Return the event as it is stored."""
        stored: Stored = {"e": self.KIND, "g": self.generation, "t": self.time}
        stored |= given(usd=self.cost_usd)
        usage = self.usage
        if usage is not None:
            stored |= {"w": usage.workers, "n": usage.slots, "b": usage.running}
            stored |= given(x=usage.problem or None, l=usage.dashboard or None)
        return stored | given(m=self.peak_nbytes or None)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Read a stored event."""
        usage = None
        if "w" in stored:
            usage = ClusterUsage(
                workers=stored["w"],
                slots=stored["n"],
                running=stored["b"],
                problem=stored.get("x", ""),
                dashboard=stored.get("l", ""),
            )
        return cls(
            generation=stored["g"],
            time=stored["t"],
            usage=usage,
            cost_usd=stored.get("usd"),
            peak_nbytes=stored.get("m", 0),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverProcess:
    """The process of a driver.

    Attributes
    ----------
    driver : str
        Name of the driver, unique.
    host : str
    pid : int
    started : float
        Start time of the process, which tells it from a later one with the same pid.
    own : bool
        Whether the process ends with the driver.
    heartbeat_timeout_s : float, optional
        Seconds without an event after which a driver in a pod counts as lost.
    """

    driver: str
    host: str
    pid: int
    started: float
    own: bool
    heartbeat_timeout_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BestCandidate:
    """The best candidate of a result; ``params`` is None if there is none."""

    score: float | None = None
    params: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StateEvent(StoredEvent):
    """The state of a run has changed.

    Attributes
    ----------
    state : RunState
    process : DriverProcess
        The driver that notes it, or on whose behalf it is noted.
    error : str
        The error that led to the state.
    best : BestCandidate, optional
        Of a state with a result.
    reason : str, optional
        Why the search was stopped early.
    unstored : str
        Why the result is not whole in the store.
    """

    KIND: ClassVar[str] = "state"

    generation: int
    time: float
    state: RunState
    process: DriverProcess
    error: str = ""
    best: BestCandidate | None = None
    reason: str | None = None
    unstored: str = ""

    def to_json(self) -> Stored:
        """Return the event as it is stored."""
        process, best = self.process, self.best
        stored: Stored = {
            "e": self.KIND,
            "g": self.generation,
            "t": self.time,
            "state": self.state.value,
            "driver": process.driver,
            "host": process.host,
            "pid": process.pid,
            "process": process.started,
            "own": process.own,
        }
        stored |= given(heartbeat_timeout=process.heartbeat_timeout_s)
        stored |= given(error=self.error or None)
        if best is not None:
            found = {"score": best.score, "params": best.params}
            stored["best"] = None if best.params is None else found
            stored |= {"reason": self.reason, "unstored": self.unstored}
        return stored

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Read a stored event."""
        process = DriverProcess(
            driver=stored["driver"],
            host=stored["host"],
            pid=stored["pid"],
            started=stored["process"],
            own=stored["own"],
            heartbeat_timeout_s=stored.get("heartbeat_timeout", stored.get("patience")),
        )
        best = BestCandidate(**(stored["best"] or {})) if "best" in stored else None
        return cls(
            generation=stored["g"],
            time=stored["t"],
            state=RunState(stored["state"]),
            process=process,
            error=stored.get("error", ""),
            best=best,
            reason=stored.get("reason"),
            unstored=stored.get("unstored", ""),
        )


Event = (
    CallEvent
    | AskEvent
    | TellEvent
    | FitEvent
    | ReportEvent
    | DropEvent
    | TrainEvent
    | RoundEvent
    | StateEvent
    | HeartbeatEvent
    | CallbackEvent
)

_READERS: dict[str, Callable[[Mapping[str, Any]], Event]] = {
    CallEvent.KIND: CallEvent.from_json,
    AskEvent.KIND: AskEvent.from_json,
    TellEvent.KIND: TellEvent.from_json,
    FitEvent.KIND: FitEvent.from_json,
    ReportEvent.KIND: ReportEvent.from_json,
    DropEvent.KIND: DropEvent.from_json,
    TrainEvent.KIND: TrainEvent.from_json,
    RoundEvent.KIND: RoundEvent.from_json,
    StateEvent.KIND: StateEvent.from_json,
    HeartbeatEvent.KIND: HeartbeatEvent.from_json,
    CallbackEvent.KIND: CallbackEvent.from_json,
}


def event_from_json(stored: Mapping[str, Any]) -> Event | None:
    """Read a stored event; return None for a kind that only later versions know.

    Raises
    ------
    ValueError
        If the event lacks a key, or has a state that does not exist.
    """
    try:
        read = _READERS.get(stored["e"])
        return None if read is None else read(stored)
    except (AttributeError, KeyError, TypeError) as error:
        msg = f"invalid event in a journal: {type(error).__name__}: {error}"
        raise ValueError(msg) from error
