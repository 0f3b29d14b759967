"""skopt's BayesSearchCV without a barrier.

skopt evaluates ``n_points`` candidates, waits for all of them, fits a model, and repeats.
Here the search explores first: `BayesStrategy` captures scikit-learn's own fit call from a
first ``evaluate_candidates``, and runs it for new candidates as slots become free. Then
scikit-learn builds its results from one last ``evaluate_candidates`` with all candidates,
whose fits are known.
"""

from __future__ import annotations

import dataclasses
import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

from dask_hpsearch.strategies.bayes.model_process import ModelProcess
from dask_hpsearch.strategies.explorer import Explorer, Space, add_models
from dask_hpsearch.strategies.optuna.asker import OptunaAsker
from dask_hpsearch.strategies.optuna.samplers import SKOPT, sampler_for
from dask_hpsearch.strategies.session_slots import SessionSlots

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dask_hpsearch.joblib_backend.session import Session
    from dask_hpsearch.recorder.call import RecordedCall
    from dask_hpsearch.recorder.recorder import Evaluate, Recorder
    from dask_hpsearch.sklearn_adapter import FitCall
    from dask_hpsearch.strategies.explorer import Asker as AnyAsker
    from dask_hpsearch.strategies.explorer import AskLog

    _MakeAsker = Callable[[int, list[str], Any], AnyAsker]


class BayesStrategy:
    """Runs a BayesSearchCV.

    Parameters
    ----------
    session : Session
        Runs the fits.
    recorder : Recorder
    bayes_async : bool or None
        Whether to explore without skopt's barrier; None: if there is more than one slot
        when the search begins. A resumed run keeps its first choice.
    sampler : str, optuna.samplers.BaseSampler or None
        As for `DaskSearchCV`; anything but "skopt" asks Optuna for the candidates.
    asks : AskLog, optional
        Default: the recorder's journal.
    """

    def __init__(
        self,
        session: Session,
        recorder: Recorder,
        *,
        bayes_async: bool | None,
        sampler: Any = None,
        asks: AskLog | None = None,
    ) -> None:
        self._session = session
        self._recorder = recorder
        self._bayes_async = bayes_async
        self._sampler = None if sampler == SKOPT else sampler
        self._asks = asks

    def __call__(self, search: Any, evaluate: Evaluate) -> bool:
        """Run a search; return False to leave it to skopt's own loop."""
        bayes_async = self._recorder.explored_before()
        if bayes_async is None:
            bayes_async = self._bayes_async
        if self._sampler is not None:
            bayes_async = True
        if bayes_async is None:
            bayes_async = self._session.wait_for_slots() > 1
        spaces = _spaces_of(search)
        if not bayes_async or any(n_iter < 1 for _, n_iter in spaces):
            return False
        call, splits = self._capture(search, evaluate)
        if call is None:
            return False
        total = sum(n_iter for _, n_iter in spaces)
        recorded = self._recorder.open_call(splits, n_candidates=total)
        call = dataclasses.replace(call, n_candidates=total)
        slots = SessionSlots(self._session, call, recorded)
        self._explore(search, spaces, slots, recorded)
        self._recorder.build_results(recorded, evaluate)
        return True

    def _capture(
        self, search: Any, evaluate: Evaluate
    ) -> tuple[FitCall | None, list[Any]]:
        """Capture scikit-learn's fit call and splits from a call that ends with that."""
        splits: list[Any] = []
        verbose, search.verbose = search.verbose, 0
        try:
            with self._session.capturing() as captured:
                evaluate([{}], cv=self._recorder.splitter_of(search, splits.extend))
        finally:
            search.verbose = verbose
        return captured.call, splits

    def _explore(
        self,
        search: Any,
        spaces: list[tuple[dict[str, Any], int]],
        slots: SessionSlots,
        recorded: RecordedCall,
    ) -> None:
        from skopt.utils import eval_callbacks

        process = ModelProcess() if self._sampler is None else None
        explored = _explored(search, spaces, self._asker_of(process))
        value = _Value(search)
        explorer = Explorer(
            explored,
            slots,
            n_splits=len(recorded.splits),
            open_candidate=recorded.candidates.append,
            value=value,
            asks=self._asks or _RecordedAsks(self._recorder, recorded),
            stops=lambda result: bool(eval_callbacks(search._callbacks, result)),  # noqa: SLF001
            most_in_flight=search.n_points if search.n_points > 1 else None,
            split_by_split=self._recorder.race is not None,
        )
        try:
            explorer.run()
        except BaseException:
            take_in_known(explored, recorded, value)
            raise
        finally:
            if process is not None:
                process.close()
            for space in explored:
                put_in_order(space)
        told = [space.optimizer for space in explored if space.told]
        search._optim_results = [one.get_result() for one in told]  # noqa: SLF001

    def _asker_of(self, process: ModelProcess | None) -> _MakeAsker:
        """Return the function that makes the asker of a space."""
        from dask_hpsearch.strategies.bayes.asker import Asker

        if self._sampler is None:
            return lambda index, _names, optimizer: Asker(
                index, optimizer, process=process
            )
        return lambda _index, names, optimizer: OptunaAsker(
            names,
            optimizer.space.dimensions,
            # skopt has drawn from its generator already, and goes on with it.
            sampler_for(self._sampler, int(optimizer.rng.randint(2**31 - 1))),
        )


class _RecordedAsks:
    """The asks of a recorded call."""

    def __init__(self, recorder: Recorder, call: RecordedCall) -> None:
        self._recorder = recorder
        self._call = call

    def asked(self, ordinal: int, space_index: int) -> Mapping[str, Any] | None:
        space, params = self._call.asks.get(ordinal, (None, None))
        return params if space == space_index else None

    def record_ask(
        self, ordinal: int, space_index: int, params: Mapping[str, Any]
    ) -> None:
        self._call.asks[ordinal] = space_index, dict(params)
        self._recorder.note_ask(self._call, ordinal, space_index, params)

    def told(self, ordinal: int, space_index: int, value: float) -> None:
        self._recorder.note_tell(self._call, ordinal, space_index, value)


class _Value:
    """Returns a candidate's value for skopt: its mean score, negated."""

    def __init__(self, search: Any) -> None:
        self._search = search
        self._name: str | None = None

    def __call__(self, results: list[dict[str, Any]]) -> float:
        scores = [self._score_of(result["test_scores"]) for result in results]
        # The same mean as scikit-learn's, to the last digit.
        mean = np.average(np.array(scores, dtype=np.float64).reshape(1, -1), axis=1)[0]
        return -float(mean) if np.isfinite(mean) else math.nan

    def _score_of(self, scores: Any) -> float:
        """Return the score for the refit; that of a failed fit may have no name."""
        if not isinstance(scores, dict):
            return float(scores)
        if self._name is None:
            self._name = self._name_in(scores)
        return float(scores[self._name])

    def _name_in(self, scores: dict[str, Any]) -> str:
        if len(scores) == 1:
            return str(next(iter(scores)))
        self._search._check_refit_for_multimetric(set(scores))  # noqa: SLF001
        return str(self._search.refit)


def take_in_known(
    spaces: list[Space],
    call: RecordedCall,
    value: Callable[[list[dict[str, Any]]], float],
) -> None:
    """Tell complete candidates that a stopped search had not told yet."""
    while (ask := call.asks.get(len(call.candidates))) is not None:
        index, parameters = ask
        names = spaces[index].names
        call.candidates.append(OrderedDict((name, parameters[name]) for name in names))
    splits = range(len(call.splits))
    for candidate in call.complete():
        if candidate not in call.asks:
            continue
        index, parameters = call.asks[candidate]
        space = spaces[index]
        if candidate in space.told:
            continue
        found = value([call.results[candidate, split] for split in splits])
        space.told[candidate] = found
        point = [parameters[name] for name in space.names]
        # Failed candidates get their value when all are put in order.
        told = found if np.isfinite(found) else 0.0
        space.optimizer.tell(point, told, fit=False)


def put_in_order(space: Space) -> None:
    """Sort an optimizer's points and values by candidate.

    Candidates finish in any order; ``cv_results_`` and `optimizer_results_` must have the
    same order. Failed candidates get the worst value.
    """
    optimizer = space.optimizer
    points = dict(zip(space.told, optimizer.Xi, strict=True))
    finite = [value for value in space.told.values() if np.isfinite(value)]
    worst = max(finite, default=0.0)
    told = sorted(space.told.items())
    # In place: results that a callback has kept share these lists, as with skopt.
    optimizer.Xi[:] = [points[ordinal] for ordinal, _ in told]
    optimizer.yi[:] = [value if np.isfinite(value) else worst for _, value in told]
    add_models(optimizer, space.asker.models())
    if not optimizer.models:
        space.asker.model_at_last()
        add_models(optimizer, space.asker.models())
    next_point = space.asker.next_point() if optimizer.models else None
    if next_point is not None:
        optimizer._next_x = next_point  # noqa: SLF001


def _spaces_of(search: Any) -> list[tuple[dict[str, Any], int]]:
    """List the spaces with the number of candidates of each."""
    spaces = search.search_spaces
    if isinstance(spaces, dict):
        spaces = [spaces]
    return [one if isinstance(one, tuple) else (one, search.n_iter) for one in spaces]


def _explored(
    search: Any, spaces: list[tuple[dict[str, Any], int]], asker_of: _MakeAsker
) -> list[Space]:
    """Make the optimizers, as skopt does, and their askers."""
    from sklearn.utils import check_random_state

    random_state = check_random_state(search.random_state)
    search.optimizer_kwargs_["random_state"] = random_state
    search.optimizers_ = [search._make_optimizer(space) for space, _ in spaces]  # noqa: SLF001
    search._optim_results = []  # noqa: SLF001
    return [
        Space(
            index=index,
            names=sorted(space),
            n_iter=n_iter,
            optimizer=optimizer,
            asker=asker_of(index, sorted(space), optimizer),
        )
        for index, ((space, n_iter), optimizer) in enumerate(
            zip(spaces, search.optimizers_, strict=True)
        )
    ]
