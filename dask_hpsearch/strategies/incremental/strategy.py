"""Runs dask-ml's searches that train models by ``partial_fit``, on current versions of Dask.

dask-ml's own code validates, splits, draws parameters, decides and builds the results. Only the
function that trains the models, ``fit`` in ``dask_ml.model_selection._incremental``, is replaced,
by `fit_bracket`. dask-ml's code gets numbers of rows in place of data: the data stay where they
are, and tasks select their rows.

The brackets of a HyperbandSearchCV are coroutines, which all run in the thread of the search.
"""

from __future__ import annotations

import contextlib
import queue
from types import FunctionType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from dask_hpsearch.exceptions import (
    HPSearchError,
    RunCancelledError,
    SearchStopped,
    UnsupportedSearchError,
)
from dask_hpsearch.raised_errors import came_from_fit
from dask_hpsearch.recorder.listener import RecordListener
from dask_hpsearch.slots.row_blocks import n_rows, sizes_of
from dask_hpsearch.strategies.incremental.kinds import is_hyperband
from dask_hpsearch.strategies.incremental.rounds import fit_bracket
from dask_hpsearch.strategies.incremental.trainer import BracketTrainer, Clock, Means
from dask_hpsearch.strategies.incremental.training import several_scores

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping

    from dask_hpsearch.data import DataStore
    from dask_hpsearch.joblib_backend.session import Session
    from dask_hpsearch.journal.run_journal import RunJournal
    from dask_hpsearch.progress import SearchProgress
    from dask_hpsearch.strategies.model_states import ModelStates

    Brackets = dict[int, Coroutine[Any, Any, Any]]

_SEED_BELOW = 2**31 - 1
_INTERRUPTED = "interrupted"


class IncrementalStrategy:
    """Fits one of dask-ml's searches that train models by ``partial_fit``.

    Parameters
    ----------
    session : Session
        Runs the tasks.
    data_store : DataStore
    states : ModelStates
    progress : SearchProgress
    journal : RunJournal, optional
        Has what earlier drivers have trained, and takes what is trained now.
    listener : RecordListener, optional
        Gets the scores of models.

    Attributes
    ----------
    stopped : str or None
        Why the search ended early, if it did.
    """

    def __init__(
        self,
        session: Session,
        data_store: DataStore,
        states: ModelStates,
        progress: SearchProgress,
        *,
        journal: RunJournal | None = None,
        listener: RecordListener | None = None,
    ) -> None:
        self.stopped: str | None = None
        self._session = session
        self._data_store = data_store
        self._states = states
        self._progress = progress
        self._journal = journal
        self._listener = listener or RecordListener()
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._trainers: dict[int, BracketTrainer] = {}
        self._current = 0

    def fit(self, search: Any, X: Any, y: Any, params: Mapping[str, Any]) -> None:
        """Fit a search; afterwards it is as dask-ml leaves it.

        Raises
        ------
        SearchStopped
            If it was stopped before any model was scored.
        RunCancelledError
            If its run was cancelled.
        UnsupportedSearchError
            If its scoring gives several scores, or its estimator is a Dask future.
        ValueError
            If X and y differ in length.
        Exception
            As a model's ``partial_fit`` or scoring has raised it.
        """
        import dask.array as da

        _check(search)
        sizes = sizes_of(X)
        _check_lengths(sum(sizes), y)
        rows = da.arange(sum(sizes), chunks=(sizes,))
        self._means = Means(
            session=self._session,
            group=self._session.new_group(),
            data_store=self._data_store,
            states=self._states,
            journal=self._journal,
            progress=self._progress,
            listener=self._listener,
            clock=Clock(self._seconds_before()),
            call_soon=self._events.put,
            X=X,
            y=y,
        )
        with self._seeded(search), _as_class(search, self._class_for(type(search))):
            search.fit(rows, rows, **params)

    def _seconds_before(self) -> float:
        """Return for how long earlier drivers of the run have trained models."""
        trainings = {} if self._journal is None else self._journal.trainings
        return max(
            (
                float(event.result.get("elapsed", 0.0))
                for training in trainings.values()
                for events in training.trained.values()
                for event in events
            ),
            default=0.0,
        )

    @contextlib.contextmanager
    def _seeded(self, search: Any) -> Iterator[None]:
        """Give a search without a seed one, which later drivers of its run use too."""
        from sklearn.utils import check_random_state

        own = search.random_state
        if own is None:

            def draw() -> int:
                return int(check_random_state(None).randint(_SEED_BELOW))

            name = "brackets/seed.pkl"
            seed = (
                draw() if self._journal is None else self._journal.made_once(name, draw)
            )
            search.random_state = check_random_state(seed)
        try:
            yield
        finally:
            search.random_state = own

    # --- dask-ml's code -------------------------------------------------------------------

    def _class_for(self, kind: type) -> type:
        """Return a subclass of a search's class whose models are trained here."""
        from dask_ml.model_selection import _incremental

        strategy = self

        async def train_here(*args: Any, **kwargs: Any) -> Any:
            trainer = strategy._begin_bracket()
            return await fit_bracket(trainer, *args, **kwargs)

        base = _incremental.BaseIncrementalSearchCV

        # Between dask-ml's classes and their base, so that `fit` of the search's own class,
        # which checks parameters, comes first.
        class OnOurSlots(base):  # type: ignore[misc, valid-type]
            _fit = _with_names(base._fit, fit=train_here)  # noqa: SLF001

            def fit(self, X: Any, y: Any = None, **fit_params: Any) -> Any:
                strategy._fit(self, X, y, fit_params)
                return self

        return type(kind.__name__, (kind, OnOurSlots), {})

    def _fit(self, search: Any, X: Any, y: Any, fit_params: dict[str, Any]) -> None:
        if is_hyperband(search):
            self._fit_hyperband(search, X, y, fit_params)
        else:
            self._run({0: search._fit(X, y, **fit_params)})  # noqa: SLF001

    def _fit_hyperband(
        self, search: Any, X: Any, y: Any, fit_params: dict[str, Any]
    ) -> None:
        """Run the brackets, then let dask-ml put their results together.

        Of a search that was stopped, only brackets that have a result count.
        """
        from dask_ml.model_selection import _hyperband

        _finish(search._validate_parameters(X, y))  # noqa: SLF001
        sizes = _hyperband._get_hyperband_params(  # noqa: SLF001
            search.max_iter, eta=search.aggressiveness
        )
        halvings = search._get_SHAs(sizes)  # noqa: SLF001
        with contextlib.ExitStack() as stack:
            for one in halvings.values():
                stack.enter_context(_as_class(one, self._class_for(type(one))))
            order = sorted(halvings, reverse=True)  # as in dask-ml
            done = self._run(
                {number: halvings[number]._fit(X, y, **fit_params) for number in order}  # noqa: SLF001
            )
        left = {number: one for number, one in halvings.items() if number in done}

        async def gathered(*results: Any) -> list[Any]:
            return [await one for one in results]

        put_together = _with_names(
            _hyperband.HyperbandSearchCV._fit,  # noqa: SLF001
            asyncio=SimpleNamespace(gather=gathered),
            _get_hyperband_params=lambda *_, **__: {n: sizes[n] for n in left},
        )
        with (
            _attributes(search, _get_SHAs=lambda _: left),
            contextlib.ExitStack() as stack,
        ):
            for one in left.values():
                stack.enter_context(_attributes(one, _fit=_already(one)))
            _finish(put_together(search, X, y, **fit_params))

    # --- the thread of the search -----------------------------------------------------------

    def _begin_bracket(self) -> BracketTrainer:
        """Make the trainer of the bracket that runs now."""
        trainer = BracketTrainer(self._current, self._means, _Pause())
        self._trainers[self._current] = trainer
        if self.stopped is not None:
            trainer.error = SearchStopped(self.stopped)
        return trainer

    def _run(self, brackets: Brackets) -> dict[int, Any]:
        """Run brackets until all have ended; return the results of those that have some."""
        results: dict[int, Any] = {}
        running = dict(brackets)
        try:
            while running:
                for number in [one for one in running if self._can_go_on(one)]:
                    self._current = number
                    try:
                        ended, result = _stepped(running[number])
                    except (SearchStopped, KeyboardInterrupt) as stop:
                        if came_from_fit(stop):
                            raise
                        self._stop(_reason_of(stop))
                        del running[number]
                        continue
                    if ended:
                        results[number] = result
                        del running[number]
                if running and not any(map(self._can_go_on, running)):
                    self._take_events()
        finally:
            for bracket in running.values():
                bracket.close()
            self._session.cancel(self._means.group)
        self._check_stop(results)
        return results

    def _check_stop(self, results: dict[int, Any]) -> None:
        """Raise if a stopped search has no results, or if its run was cancelled."""
        if self.stopped == "cancelled":
            msg = "the run was cancelled"
            raise RunCancelledError(msg)
        if self.stopped is not None and not results:
            if self.stopped == _INTERRUPTED:
                raise KeyboardInterrupt
            raise SearchStopped(self.stopped)

    def _can_go_on(self, number: int) -> bool:
        trainer = self._trainers.get(number)
        return trainer is None or trainer.is_due

    def _take_events(self) -> None:
        """Wait for something to happen to a model, and handle all that has."""
        try:
            event = self._events.get()
            while True:
                event()
                self._look_for_stop()
                event = self._events.get_nowait()
        except queue.Empty:
            return
        except KeyboardInterrupt:
            self._stop(_INTERRUPTED)

    def _look_for_stop(self) -> None:
        """End all brackets if one was stopped."""
        for trainer in self._trainers.values():
            if isinstance(trainer.error, SearchStopped):
                self._stop(str(trainer.error))

    def _stop(self, reason: str) -> None:
        if self.stopped is None:
            self.stopped = reason
        for trainer in self._trainers.values():
            if trainer.error is None:
                trainer.error = SearchStopped(self.stopped)


def _stepped(coroutine: Coroutine[Any, Any, Any]) -> tuple[bool, Any]:
    """Run a coroutine until it waits or ends; return whether it has ended, and its result."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return True, end.value
    return False, None


def _reason_of(stop: BaseException) -> str:
    """Return why a search was stopped."""
    return _INTERRUPTED if isinstance(stop, KeyboardInterrupt) else str(stop)


class _Pause:
    """Gives the thread to other brackets when it is awaited."""

    def __await__(self) -> Generator[None, None, None]:
        yield


def _check(search: Any) -> None:
    """Refuse a search that cannot be run here.

    Raises
    ------
    UnsupportedSearchError
    """
    from distributed import Future

    if isinstance(search.estimator, Future):
        msg = (
            "the estimator of the search is a Dask future, which workers cannot get: pass the "
            "estimator itself, future.result()"
        )
        raise UnsupportedSearchError(msg)
    if isinstance(search.scoring, list | tuple | set | dict):
        raise UnsupportedSearchError(several_scores(search.scoring))


def _check_lengths(length: int, y: Any) -> None:
    """Refuse a target with more or fewer rows than X: rows are selected by their number."""
    if y is not None and n_rows(y) != length:
        msg = f"X and y must have the same number of rows, got {length} and {n_rows(y)}"
        raise ValueError(msg)


def _with_names(function: Any, **names: Any) -> Any:
    """Return a copy of a function that finds other objects under some global names."""
    made = FunctionType(
        function.__code__,
        {**function.__globals__, **names},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    made.__kwdefaults__ = function.__kwdefaults__
    return made


def _finish(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Return the result of a coroutine that never waits."""
    ended, result = _stepped(coroutine)
    if ended:
        return result
    coroutine.close()
    msg = (
        "dask-ml's code waits where its version 2025.1.0 does not: install that version"
    )
    raise HPSearchError(msg)


def _already(fitted: Any) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Return a method ``_fit`` of a search that is fitted."""

    async def fit(*_args: Any, **_kwargs: Any) -> Any:
        return fitted

    return fit


@contextlib.contextmanager
def _as_class(instance: Any, kind: type) -> Iterator[None]:
    """Give an object another class while the block runs."""
    own = type(instance)
    instance.__class__ = kind
    try:
        yield
    finally:
        instance.__class__ = own


@contextlib.contextmanager
def _attributes(instance: Any, **values: Any) -> Iterator[None]:
    """Give an object attributes of its own while the block runs."""
    vars(instance).update(values)
    try:
        yield
    finally:
        for name in values:
            vars(instance).pop(name, None)
