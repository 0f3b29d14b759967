"""Makes tasks for the engine from joblib's batches: fits, and calls of any function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dask_hpsearch import sklearn_adapter
from dask_hpsearch.data import KnownObjects
from dask_hpsearch.data.collections import Collections
from dask_hpsearch.exceptions import HPSearchError, UnpicklableError
from dask_hpsearch.identity import IdentityMemo
from dask_hpsearch.joblib_backend.pickling import SharedParts, pickled
from dask_hpsearch.joblib_backend.results import describe
from dask_hpsearch.joblib_backend.shared_steps import SharedSteps
from dask_hpsearch.messages import CallTask, DataRef, FitSpec, FitTask
from dask_hpsearch.safe_text import message_of, repr_of

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from joblib.parallel import BatchedCalls

    from dask_hpsearch.engine.engine import Engine
    from dask_hpsearch.sklearn_adapter import FitCall

_THE_SEARCH = "the search"  # in errors

TaskData = tuple[DataRef, ...]


class TaskBuilder:
    """Makes tasks, and puts their data into the data store.

    What fits share is pickled and stored once: the estimator and the settings of a call,
    its data, its splits, the parameters of a candidate.

    Parameters
    ----------
    engine : Engine
        Numbers the tasks, holds the data store, and sends user modules to the workers.
    share_steps : bool
        Whether slots may keep pipeline steps that several fits share.
    """

    def __init__(self, engine: Engine, *, share_steps: bool = False) -> None:
        self._engine = engine
        self._share_steps = share_steps
        self._candidates: Sequence[Mapping[str, Any]] | None = None
        self._shared_steps: SharedSteps | None = None
        self._known = KnownObjects(engine.data_store)
        self._collections = Collections(engine.client)
        self._specs: list[_SentSpec] = []
        self._splits: IdentityMemo[DataRef] = IdentityMemo()
        self._parameters: _SentParameters | None = None

    def begin_call(self, candidates: Sequence[Mapping[str, Any]] | None) -> None:
        """Begin a call with these candidates; None if they are not known yet."""
        self._candidates = candidates
        self._shared_steps = None

    def fit_task(self, call: FitCall) -> tuple[FitTask, TaskData]:
        """Return a fit as a task, with the references to its data.

        Raises
        ------
        UnpicklableError
            If a part of it cannot be pickled.
        """
        spec = self._spec(call)
        split_ref = self._split(call)
        own = self._own_parameters(call, after=spec.parts)
        n_steps, group = self._steps_of(call, own, split_ref)
        task = FitTask(
            number=self._engine.next_number(),
            spec=spec.ref,
            split_data=split_ref,
            candidate=call.candidate,
            split=call.split,
            n_candidates=call.n_candidates,
            n_splits=call.n_splits,
            parameters=own.payload,
            shared_steps=n_steps,
            steps_group=group,
        )
        return task, (spec.ref, split_ref, *spec.data, *own.data)

    def call_task(self, batch: BatchedCalls) -> tuple[CallTask, TaskData]:
        """Return a batch of calls as one task, with the references to its data.

        The functions are pickled once, the arguments of each call by themselves.

        Raises
        ------
        UnpicklableError
            If a part of it cannot be pickled.
        """
        try:
            functions, of_call = sklearn_adapter.distinct_functions(batch.items)
            shared = SharedParts(functions, self._known, self._collections)
            own = [
                shared.followed_by((which, *arguments))
                for which, (_, *arguments) in zip(of_call, batch.items, strict=True)
            ]
        except HPSearchError:
            raise
        except Exception as error:
            msg = (
                f"a call of {describe(batch)} cannot be sent to the workers: pickling it "
                f"failed with {type(error).__name__}: {message_of(error)}"
            )
            raise UnpicklableError(msg) from error
        calls = tuple(payload for payload, _ in own)
        self._engine.modules.compare(b"".join([shared.content, *calls]))
        refs = dict(shared.refs)
        for _, more in own:
            refs |= more
        task = CallTask(self._engine.next_number(), shared.content, calls)
        return task, tuple(refs.values())

    def shared_call(self, function: Callable[..., Any]) -> SharedParts:
        """Pickle a function, once for all its calls by `one_call`.

        Raises
        ------
        UnpicklableError
            If it cannot be pickled.
        """
        try:
            shared = SharedParts([function], self._known, self._collections)
        except HPSearchError:
            raise
        except Exception as error:
            raise UnpicklableError.of(_THE_SEARCH, error) from error
        self._engine.modules.compare(shared.content)
        return shared

    def one_call(
        self, shared: SharedParts, arguments: tuple[Any, ...], *, what: str
    ) -> tuple[CallTask, TaskData]:
        """Return a call of a function as a task, with the references to its data.

        Parameters
        ----------
        shared : SharedParts
            The function, as `shared_call` returned it.
        arguments : tuple
        what : str
            Names the call in errors.

        Raises
        ------
        UnpicklableError
            If an argument cannot be pickled.
        """
        try:
            payload, refs = shared.followed_by((0, arguments, {}))
        except HPSearchError:
            raise
        except Exception as error:
            raise UnpicklableError.of(what, error) from error
        task = CallTask(self._engine.next_number(), shared.content, (payload,))
        return task, tuple((shared.refs | refs).values())

    def end_call(self) -> None:
        """Forget what only the tasks of one call needed."""
        self._specs.clear()
        self._splits.clear()
        self._parameters = None
        self._candidates = self._shared_steps = None

    def close(self) -> None:
        """Let go of the data."""
        self._known.clear()
        self._collections.clear()

    def _spec(self, call: FitCall) -> _SentSpec:
        """Find or make the bundle of the parts that a call's fits share."""
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
            X=X,
            y=y,
            share_steps=self._share_steps,
        )
        self._engine.modules.compare(parts.content)
        ref = self._engine.data_store.put(spec, what=_THE_SEARCH)
        sent = _SentSpec(call, estimator, parts, ref, (X, y, *parts.refs.values()))
        self._specs.append(sent)
        return sent

    def _parts(self, call: FitCall) -> SharedParts:
        """Pickle the estimator and the settings; an error names the failing part."""
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
        known = self._splits.get(call.train, call.test)
        if known is not None:
            return known
        pair = call.train, call.test
        ref = self._engine.data_store.put(pair, what="a split")
        return self._splits.put(*pair, value=ref)

    def _steps_of(
        self, call: FitCall, own: _SentParameters, split: DataRef
    ) -> tuple[int | None, int | None]:
        """Return how many steps a fit shares, and the number of its group."""
        if not self._share_steps or not call.of_search:
            return None, None
        if self._shared_steps is None:
            self._shared_steps = SharedSteps(call.estimator, self._candidates)
        if own.steps is None:
            own.steps = self._shared_steps.of(call.parameters)
        n_steps, prefix = own.steps
        if not n_steps:
            return n_steps, None
        return n_steps, self._shared_steps.number(split.digest, prefix)

    def _own_parameters(self, call: FitCall, *, after: SharedParts) -> _SentParameters:
        """Pickle a candidate's parameters, once for all its splits."""
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


@dataclass(frozen=True, slots=True, eq=False)
class _SentSpec:
    """The parts that fits share, as scikit-learn passed them and as they were stored.

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
        The data of every fit, without its split and its own parameters.
    """

    call: FitCall
    estimator: bytes
    parts: SharedParts
    ref: DataRef
    data: TaskData


@dataclass(slots=True, eq=False)
class _SentParameters:
    """A candidate's parameters, and their pickle that follows a spec's parts.

    Attributes
    ----------
    steps : (int, hashable) or None
        The steps that it shares, once they are known; see `SharedSteps.of`.
    """

    parameters: Any
    after: SharedParts
    payload: bytes
    data: TaskData
    steps: tuple[int, Hashable] | None = None
