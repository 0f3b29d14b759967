"""Drives one search, start to end: cluster, data, backend, ``search.fit``, result."""

from __future__ import annotations

import numbers
import socket
import threading
import time
import warnings
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import joblib
from dask.system import CPU_COUNT
from distributed import Client

from dask_hpsearch import sklearn_adapter, sklearn_callbacks
from dask_hpsearch.budget import Budget, CostMeter, Tariff
from dask_hpsearch.clusters.local import local_cluster
from dask_hpsearch.data.collections import computed, current_client
from dask_hpsearch.engine.client import check_client, no_workers
from dask_hpsearch.engine.engine import Engine
from dask_hpsearch.exceptions import (
    SearchStoppedWarning,
    StoreError,
    UnsupportedSearchError,
)
from dask_hpsearch.execution.callers import user_stacklevel
from dask_hpsearch.joblib_backend.backend import EvaluationBackend
from dask_hpsearch.joblib_backend.session import Session, slots_for
from dask_hpsearch.journal import next_steps
from dask_hpsearch.progress import SearchProgress, show
from dask_hpsearch.recorder.recorder import Recorder
from dask_hpsearch.strategies.bayes.strategy import BayesStrategy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from dask_hpsearch.data import DataStore
    from dask_hpsearch.journal.run_journal import RunJournal
    from dask_hpsearch.stores import Store


# Keys of a manifest's settings in version 0.1.0.
_EARLIER_NAMES = {"asynchronous": "bayes_async", "share_prefixes": "share_steps"}


@dataclass(frozen=True, slots=True)
class Settings:
    """How a search is to be driven; the words of `DaskSearchCV`."""

    client: Client | None = None
    store: Store | None = None
    task_name: str | None = None
    max_time_s: float | None = None
    fit_timeout_s: float | None = None
    worker_timeout_s: float = 60.0
    progress: bool = False
    bayes_async: bool | None = None
    share_steps: bool = True
    max_cost_usd: float | None = None
    tariff: dict[str, Any] | None = None  # a `Tariff`, as JSON has it
    cluster: Any = None  # what can be scaled, where the client does not know it
    keep_cluster: bool = True

    @classmethod
    def from_manifest(cls, settings: Mapping[str, Any], **limits: Any) -> Settings:
        """Read the settings that a run keeps; earlier versions had other names."""
        renamed = {
            _EARLIER_NAMES.get(key, key): value for key, value in settings.items()
        }
        return cls(**renamed | limits)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted search.

    Attributes
    ----------
    search : object
        Of the user's own class.
    stopped : str or None
        "max_time", "max_cost" or "interrupted" if it covers only a part.
    url : str or None
        Of its run, if it keeps a journal.
    """

    search: Any
    stopped: str | None = None
    url: str | None = None


def fit_trials(
    search: Any,
    X: Any,
    y: Any,
    params: dict[str, Any],
    settings: Settings,
    *,
    data_store: DataStore,
    journal: RunJournal | None = None,
    meter: CostMeter | None = None,
    on_engine: Callable[[Engine], None] = lambda _: None,
) -> Fitted:
    """Fit a scikit-learn search, its fits in the slots of a Dask client's workers.

    Parameters
    ----------
    search : BaseSearchCV
        Left as it is; a copy is fitted.
    X, y : array-like
    params : dict
        What else ``search.fit`` takes.
    settings : Settings
    data_store : DataStore
        Where its data lies.
    journal : RunJournal, optional
        What the run has done before, and where new results go.
    meter : CostMeter, optional
        Adds up what the search costs.
    on_engine : callable
        Given the engine once it runs.

    Returns
    -------
    Fitted
    """
    sklearn_adapter.check_version()
    fitted = sklearn_adapter.without_fitted_state(search)
    progress = SearchProgress()
    if journal is not None:
        progress.hint = next_steps.to_resume(journal.folder.store.url)
    recorder = Recorder(
        progress,
        refit=getattr(fitted, "refit", None),
        tolerant=_is_model_based(fitted),
        journal=journal,
        unseeded=getattr(fitted, "random_state", 0) is None,
    )
    with ExitStack() as stack:
        client = stack.enter_context(client_for(settings, search))
        budget = _budget(meter, settings.cluster or client.cluster, stack)
        engine = stack.enter_context(
            Engine(
                client,
                data_store,
                fit_timeout_s=settings.fit_timeout_s,
                worker_timeout_s=settings.worker_timeout_s,
                on_slots=_shown(progress, budget),
                cluster=settings.cluster,
                on_problem=progress.problem_changed,
            )
        )
        if budget is not None:
            budget.stop = engine.stop
        on_engine(engine)
        stack.enter_context(show(progress, enabled=settings.progress))
        stack.enter_context(_all_written(journal))
        stack.enter_context(_deadline(engine, settings.max_time_s))
        stack.enter_context(recorder.driving(fitted))
        # A step that is not fitted again has nothing to tell callbacks.
        share = settings.share_steps and not sklearn_callbacks.callbacks_of(fitted)
        session = Session(engine, log=recorder, share_steps=share)
        recorder.answering = session.answering
        if _is_bayes(fitted):
            recorder.strategy = BayesStrategy(
                session, recorder, bayes_async=settings.bayes_async
            )
        backend = EvaluationBackend(session, ready=lambda: recorder.evaluating)
        stack.enter_context(joblib.parallel_config(backend=backend))
        fitted.fit(X, y, **params)
        progress.chosen(*sklearn_adapter.best_of(fitted))
        progress.ended(recorder.stopped)
    if recorder.stopped:
        _warn_stopped(recorder, progress.hint)
    return Fitted(fitted, recorder.stopped)


def fit_joblib(
    search: Any, X: Any, y: Any, params: dict[str, Any], settings: Settings
) -> Fitted:
    """Fit anything that parallelises with joblib, on Dask's own joblib backend."""
    is_search = sklearn_adapter.is_search(search)
    fitted = sklearn_adapter.without_fitted_state(search)
    with ExitStack() as stack:
        client = stack.enter_context(client_for(settings, search))
        _check_callbacks(fitted, client)
        wait_for_worker(client, settings.worker_timeout_s)
        if is_search:
            stack.enter_context(_all_parallel(fitted))
        stack.enter_context(joblib.parallel_config(backend="dask", client=client))
        args = (X,) if y is None else (X, y)
        fitted.fit(*args, **params)
    return Fitted(fitted)


@contextmanager
def client_for(settings: Settings, search: Any) -> Iterator[Client]:
    """Yield the client to use; without any, of a local cluster for the time being.

    Such a cluster has as many slots as the search's ``n_jobs`` says.

    Raises
    ------
    ClientClosedError
        If the given client is closed.
    """
    slots = slots_of_its_own(search)
    client = settings.client or current_client()
    if client is not None:
        check_client(client)
        yield client
        return
    with (
        local_cluster(slots_per_worker=slots, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as own,
    ):
        yield own


def slots_of_its_own(search: Any) -> int | None:
    """Resolve a search's ``n_jobs`` as joblib does; None if it says nothing.

    Raises
    ------
    ValueError
        If ``n_jobs`` is 0, in joblib's words.
    """
    n_jobs = getattr(search, "n_jobs", None)
    if not isinstance(n_jobs, numbers.Integral):  # others are scikit-learn's to refuse
        return None
    return slots_for(int(n_jobs), CPU_COUNT)


def wait_for_worker(client: Client, timeout_s: float) -> None:
    """Wait until a first worker is there.

    Raises
    ------
    NoWorkersError
        After ``timeout_s`` seconds without one.
    """
    try:
        client.wait_for_workers(1, timeout=timeout_s)
    except TimeoutError as error:
        raise no_workers(timeout_s, client.cluster) from error


def in_memory(
    X: Any, y: Any, params: dict[str, Any], settings: Settings
) -> tuple[Any, Any, dict[str, Any]]:
    """Compute Dask collections among what ``fit`` takes, on the search's client.

    Without one, Dask computes them as it would by itself: the search's own workers would
    have to be started for that alone.

    Raises
    ------
    DataTooLargeError
        If one does not fit into the memory of a worker, or of this process.
    DataUnavailableError
        If one was persisted on a cluster that is gone.
    NoWorkersError
        If no worker came within the time-out.
    """
    began = time.monotonic()

    def check_for_workers(client: Client) -> None:
        late = time.monotonic() > began + settings.worker_timeout_s
        if late and not client.scheduler_info()["workers"]:
            raise no_workers(settings.worker_timeout_s, client)

    client = settings.client or current_client()
    if client is not None:
        check_client(client)
    named = {"X": X, "y": y} | params
    values = computed(named, client, still_waiting=check_for_workers)
    return values.pop("X"), values.pop("y"), values


def check_limit(name: str, value: Any, unit: str) -> None:
    """Refuse a limit that is no positive number.

    Raises
    ------
    ValueError
        Names the limit and its value.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    optional = value is None and name != "worker_timeout"
    if not optional and not (number and value > 0):
        msg = f"{name} must be a positive number of {unit}, got {value!r}"
        raise ValueError(msg)


def meter_of(
    settings: Settings, spent_usd: float = 0.0, earlier_usd: float = 0.0
) -> CostMeter | None:
    """Return what adds up the cost of a search; None if the prices are not known.

    Parameters
    ----------
    settings : Settings
    spent_usd : float
        What earlier drivers of its run have spent.
    earlier_usd : float
        The part of it that was spent before the run was resumed after a stop, or
        extended: the limit does not count that.
    """
    if settings.tariff is None:
        return None
    limit_usd = settings.max_cost_usd
    return CostMeter(
        Tariff(**settings.tariff),
        spent_usd=spent_usd,
        limit_usd=None if limit_usd is None else limit_usd + earlier_usd,
    )


def tariff_of(client: Client | None) -> dict[str, Any] | None:
    """Return the tariff of the cluster that a client, or else the current one, is of."""
    cluster = getattr(client or current_client(), "cluster", None)
    tariff = getattr(cluster, "tariff", None)
    return asdict(tariff) if isinstance(tariff, Tariff) else None


def _budget(meter: CostMeter | None, cluster: Any, stack: ExitStack) -> Budget | None:
    if meter is None:
        return None
    budget = Budget(meter, cluster)
    stack.callback(budget.close)
    return budget


def _shown(
    progress: SearchProgress, budget: Budget | None
) -> Callable[[int, int, int], None]:
    """Return what shows how many slots there are, and what they have cost so far."""

    def show_slots(workers: int, slots: int, running: int) -> None:
        progress.slots_changed(workers=workers, slots=slots, running=running)
        if budget is not None:
            progress.spent(budget.count(workers))

    return show_slots


def end_cluster(client: Client | None) -> None:
    """End the cluster of a client, or of the one in use, whoever made it."""
    client = client or current_client()
    if client is None:
        return  # a search without one has had a cluster of its own
    cluster: Any = client.cluster
    if cluster is None:
        client.shutdown()
    else:
        getattr(cluster, "end", cluster.close)()


@contextmanager
def _all_parallel(search: Any) -> Iterator[None]:
    """Let the search hand over all its tasks, to as many slots as there will be.

    ``n_jobs`` is the cluster's; a ``pre_dispatch`` that is a number is obeyed, a string
    is in terms of an ``n_jobs`` that would be frozen at the start.
    """
    own = {
        name: getattr(search, name)
        for name in ("n_jobs", "pre_dispatch")
        if hasattr(search, name)
    }
    if "n_jobs" in own:
        search.n_jobs = -1
    if isinstance(own.get("pre_dispatch"), str):
        search.pre_dispatch = "all"
    try:
        yield
    finally:
        vars(search).update(own)


@contextmanager
def _deadline(engine: Engine, max_time_s: float | None) -> Iterator[None]:
    """Stop the engine after some seconds."""
    if max_time_s is None:
        yield
        return
    seconds = min(max_time_s, threading.TIMEOUT_MAX)  # it may be infinite
    timer = threading.Timer(seconds, engine.stop, args=("max_time",))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def _all_written(journal: RunJournal | None) -> Iterator[None]:
    """Write what the journal has gathered, however the search ends.

    Fits are shown once they are written: what is shown last has them all.
    """
    try:
        yield
    finally:
        if journal is not None:
            with suppress(StoreError):  # the run learns it when it stores its result
                journal.flush()


def _is_model_based(search: Any) -> bool:
    """Whether each call's scores steer the next ask (skopt's BayesSearchCV)."""
    return any(base.__module__.startswith("skopt.") for base in type(search).__mro__)


def _is_bayes(search: Any) -> bool:
    """Whether the search runs skopt's own strategy, which ours stands in for."""
    strategy = sklearn_adapter.strategy_of(type(search))
    return str(getattr(strategy, "__module__", "")).startswith("skopt.")


def _check_callbacks(search: Any, client: Client) -> None:
    """Refuse callbacks that Dask's joblib backend cannot relay from elsewhere."""
    callbacks = sklearn_callbacks.callbacks_of(search)
    if not callbacks:
        return
    hosts = set(client.run(socket.gethostname).values())
    if hosts - {socket.gethostname()}:
        names = ", ".join(type(one).__name__ for one in callbacks)
        msg = (
            f"scikit-learn callbacks ({names}) cannot reach workers on other machines "
            f"({', '.join(sorted(hosts))}) through Dask's joblib backend: use "
            "backend='trials', or unset them with set_callbacks()"
        )
        raise UnsupportedSearchError(msg)


def warn_stopped(stopped: str, covers: str, hint: str) -> None:
    """Warn, at the user's line, that a search covers only a part.

    Parameters
    ----------
    stopped : str
        Why.
    covers : str
        Which candidates its results cover.
    hint : str
        How it goes on; "" if it cannot.
    """
    text = f"the search was stopped ({stopped}): its results cover the {covers}"
    text += f"; {hint}" if hint else ""
    warnings.warn(text, SearchStoppedWarning, stacklevel=user_stacklevel())


def _warn_stopped(recorder: Recorder, hint: str) -> None:
    done = sum(len(call.complete()) for call in recorder.calls)
    total = sum(len(call.candidates) for call in recorder.calls)
    covers = f"{done} of {total} candidates that had finished"
    warn_stopped(str(recorder.stopped), covers, hint)
