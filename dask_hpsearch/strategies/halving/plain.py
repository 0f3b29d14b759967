"""An `AsyncHalvingSearchCV` in this process: one candidate after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sklearn.base import clone
from sklearn.utils.parallel import delayed

from dask_hpsearch import sklearn_adapter
from dask_hpsearch.recorder.call import RecordingSplitter
from dask_hpsearch.strategies.halving.continued_fits import MODEL_STATE
from dask_hpsearch.strategies.halving.exploration import Exploration, LeadingScore
from dask_hpsearch.strategies.halving.ladder import Job, RungLadder
from dask_hpsearch.strategies.halving.results import Row, build_results
from dask_hpsearch.strategies.halving.training import Training

if TYPE_CHECKING:
    from collections.abc import Callable

    from dask_hpsearch.sklearn_adapter import FitCall
    from dask_hpsearch.slots.model_state import ModelState
    from dask_hpsearch.strategies.halving.rungs import Rungs


def run_here(search: Any, evaluate: Callable[..., Any], rungs: Rungs) -> None:
    """Run a search; its fits run as scikit-learn's would, by joblib.

    Parameters
    ----------
    search : AsyncHalvingSearchCV
    evaluate : callable
        ``evaluate_candidates`` of the search.
    rungs : Rungs
    """
    parallel = sklearn_adapter.parallel_of(evaluate)
    call, splits = captured_fit(search, evaluate)
    training = Training(call, rungs, n_splits=len(splits), warm_start=search.warm_start)
    splits_of = [rungs.splits(splits, rung) for rung in range(len(rungs.resources))]
    fits = _FitsHere(parallel, training, splits_of)
    ladder = RungLadder(
        len(rungs.candidates), n_rungs=len(rungs.resources), factor=rungs.factor
    )
    score = LeadingScore(search.requested_refit)
    Exploration(ladder, fits, n_splits=len(splits), score=score).run()
    jobs = [
        Job(candidate, rung)
        for rung in range(len(rungs.resources))
        for candidate in ladder.entered(rung)
    ]
    rows = [
        Row(job.rung, rungs.params(job.candidate, job.rung), fits.results[job])
        for job in jobs
    ]
    build_results(search, evaluate, rungs, rows, splits=splits)


def captured_fit(
    search: Any, evaluate: Callable[..., Any]
) -> tuple[FitCall, list[tuple[Any, Any]]]:
    """Return scikit-learn's own fit call for the search's data, and the splits."""
    splits: list[tuple[Any, Any]] = []
    own = sklearn_adapter.splitter_of(search)
    splitter = RecordingSplitter(own, splits.extend)
    parallel = sklearn_adapter.parallel_of(evaluate)
    verbose, search.verbose = search.verbose, 0
    try:
        call = sklearn_adapter.first_fit(parallel, lambda: evaluate([{}], cv=splitter))
    finally:
        search.verbose = verbose
    assert call is not None  # noqa: S101 (scikit-learn's searches run nothing else)
    return call, splits


class _FitsHere:
    """Runs the splits of a job by a search's ``Parallel`` object."""

    slots = 1

    def __init__(
        self,
        parallel: Any,
        training: Training,
        splits_of: list[list[tuple[Any, Any]]],
    ) -> None:
        self.results: dict[Job, list[dict[str, Any]]] = {}
        self._parallel = parallel
        self._training = training
        self._splits_of = splits_of
        self._states: dict[tuple[int, int], ModelState] = {}

    def begin(self, job: Job) -> None:
        pass

    def submit(self, job: Job, done: Callable[[int, Any], None]) -> None:
        calls = [
            self._training.call(
                job,
                split,
                indices=indices,
                candidate=job.candidate,
                state=self._states.pop((job.candidate, split), None),
            )
            for split, indices in enumerate(self._splits_of[job.rung])
        ]
        self.results[job] = self._parallel(
            delayed(sklearn_adapter.run_fit)(*_fit_arguments(one)) for one in calls
        )
        for split, result in enumerate(self.results[job]):
            state = result.pop(MODEL_STATE, None)
            if state is not None:
                self._states[job.candidate, split] = state
            done(split, result)


def _fit_arguments(call: FitCall) -> tuple[Any, ...]:
    """Return the arguments of `sklearn_adapter.run_fit` for a call."""
    progress = (call.split, call.n_splits), (call.candidate, call.n_candidates)
    data, indices = (call.X, call.y), (call.train, call.test)
    own = call.parameters, progress, call.shared
    return call.function, clone(call.estimator), data, indices, *own
