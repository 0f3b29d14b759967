"""Outputs of shared pipeline steps on the rows of a test set, computed once.

Candidates that share a pipeline's first steps also share the output of these steps on the
test set, which scikit-learn computes anew for every score. Here a fit gets it from the cache
that has the fitted steps (`pipeline_cache`).

An output is kept if the transform was seen to do nothing that another one might do
differently, as for fits. In particular it left the fitted step as it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dask_hpsearch.slots.fit_watch import FitWatch
from dask_hpsearch.slots.snapshots import snapshot_of_output
from dask_hpsearch.slots.step_work import Work, surroundings

if TYPE_CHECKING:
    from collections.abc import Hashable

    from dask_hpsearch.slots.pipeline_cache import PipelineCache
    from dask_hpsearch.slots.step_work import Step

_METHOD = "transform"
_LEAST_S = 0.0005  # a copy of the output takes about as long


class SharedTransforms:
    """The transforms of one fit's test set.

    A shared step gets a ``transform`` of its own, until `end`.

    Parameters
    ----------
    cache : PipelineCache
    rows : tuple of str
        Digests of the data of the pipeline's first step.

    Attributes
    ----------
    test_rows : object
        The X of the test set. Only this object's output is shared, not that of other data.
    """

    def __init__(self, cache: PipelineCache, rows: tuple[str, ...]) -> None:
        self.test_rows: Any = None
        self._cache, self._rows = cache, rows
        self._surroundings: Hashable | None = None
        self._steps: list[Any] = []
        self._outputs: dict[int, Any] = {}

    def share(self, fitted: Any, key: Hashable, step: Step) -> None:
        """Share the output of the pipeline's next fitted step.

        Parameters
        ----------
        fitted : estimator
        key : hashable
            Names the step, the steps before it, and their data.
        step : Step
            The step as it was before its fit.
        """
        own = getattr(fitted, "__dict__", None)
        if own is None or _METHOD in own or not hasattr(fitted, _METHOD):
            self.end()  # the later steps get data of unknown origin
            return
        if not self._steps:
            self._surroundings = surroundings()
        own[_METHOD] = _SharedTransform(self, fitted, len(self._steps), key, step)
        self._steps.append(fitted)

    def end(self) -> None:
        """Give the steps their own ``transform`` back, and share no more."""
        for fitted in self._steps:
            vars(fitted).pop(_METHOD, None)
        self._steps.clear()
        self._outputs.clear()
        self.test_rows = None

    def is_of_test_set(self, X: Any, position: int) -> bool:
        """Whether data are what the step at a position gets for the test set."""
        given = self.test_rows if position == 0 else self._outputs.get(position - 1)
        return X is given and X is not None and surroundings() == self._surroundings

    def output(self, work: Work, position: int) -> Any:
        """Transform data of the test set, or recall the output."""
        result = self._cache.result_of(work, may_wait=False)
        (output,) = result.value
        if result.repeatable:
            self._outputs[position] = output
        else:
            self._outputs.pop(position, None)
        return output

    def work(self, own: Any, X: Any, fitted: Any, key: Hashable, step: Step) -> Work:
        """Return the transform of the test set by one step as work for the cache."""
        return Work(
            (_METHOD, key),
            run=lambda: (own(X),),
            watch=FitWatch(
                (X,),
                known_code=step.is_known_code,
                unchanged=(fitted,),
                draws=False,
            ),
            snapshot=lambda output: snapshot_of_output(output, given=X, step=fitted),
            timed_as=tuple((_METHOD, name) for name in step.timed_as(type(fitted))),
            rows=self._rows,
            waits=True,
            least_s=_LEAST_S,
        )


class _SharedTransform:
    """The method ``transform`` of one step in one fit."""

    def __init__(
        self,
        transforms: SharedTransforms,
        fitted: Any,
        position: int,
        key: Hashable,
        step: Step,
    ) -> None:
        self._transforms, self._position = transforms, position
        self._fitted, self._key, self._step = fitted, key, step
        self._own = fitted.transform

    def __call__(self, X: Any, *args: Any, **options: Any) -> Any:
        if args or options or not self._transforms.is_of_test_set(X, self._position):
            return self._own(X, *args, **options)
        work = self._transforms.work(self._own, X, self._fitted, self._key, self._step)
        return self._transforms.output(work, self._position)

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy of the step has its class's method.
        return getattr, (self._fitted, _METHOD)
