"""The fit calls of a halving search's jobs, from scikit-learn's own fit call."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from dask_hpsearch.strategies.halving.continued_fits import (
    Continuation,
    ContinuedFit,
    Step,
    may_continue,
)

if TYPE_CHECKING:
    from dask_hpsearch.sklearn_adapter import FitCall
    from dask_hpsearch.slots.model_state import ModelState
    from dask_hpsearch.strategies.halving.ladder import Job
    from dask_hpsearch.strategies.halving.rungs import Rungs


class Training:
    """Makes the fit calls of jobs.

    Parameters
    ----------
    call : FitCall
        scikit-learn's own for the search's data.
    rungs : Rungs
    n_splits : int
    warm_start : bool
        Whether fits go on with the models of the rung below where they can.

    Attributes
    ----------
    continues : bool
        Whether fits return the states of models.
    """

    def __init__(
        self,
        call: FitCall,
        rungs: Rungs,
        *,
        n_splits: int,
        warm_start: bool,
    ) -> None:
        self.continues = may_continue(rungs.resource, warm_start=warm_start)
        self._rungs = rungs
        self._call = dataclasses.replace(call, n_splits=n_splits)
        if self.continues:
            self._call = dataclasses.replace(
                self._call,
                function=ContinuedFit(call.function),
                shared={**call.shared, "return_estimator": True},
            )

    def call(
        self,
        job: Job,
        split: int,
        *,
        indices: tuple[Any, Any],
        state: ModelState | None = None,
        **places: Any,
    ) -> FitCall:
        """Return the call of one fit.

        Parameters
        ----------
        job : Job
        split : int
        indices : (train, test)
        state : ModelState, optional
            The model of the rung below.
        **places
            Further fields of the call: where its result belongs.
        """
        rungs = self._rungs
        parameters = rungs.params(job.candidate, job.rung)
        if self.continues:
            done = rungs.resources[job.rung - 1] if state is not None else 0
            step = Step(
                rungs.resource,
                rungs.resources[job.rung],
                done=done,
                state=state,
                keep=job.rung + 1 < len(rungs.resources),
            )
            parameters = Continuation(parameters, step)
        return dataclasses.replace(
            self._call,
            train=indices[0],
            test=indices[1],
            parameters=parameters,
            split=split,
            **places,
        )
