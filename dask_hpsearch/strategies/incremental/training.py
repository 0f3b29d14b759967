"""Trains a model by some calls of ``partial_fit``, and scores it: **runs in slots**."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sklearn.base import clone

from dask_hpsearch.exceptions import UnsupportedSearchError
from dask_hpsearch.slots.model_state import ModelState
from dask_hpsearch.slots.row_blocks import rows_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np

# Short calls are made one after the other, as long as they take less than this together. A
# task that is lost repeats as many.
_BATCH_S = 0.2


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training task returns.

    Attributes
    ----------
    state : ModelState
    calls : int
        The calls of ``partial_fit`` that it made.
    result : dict
        ``partial_fit_time``, of the last call; ``score`` and ``score_time``, if the model
        was scored; ``seconds`` of the whole task.
    """

    state: ModelState
    calls: int
    result: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a bracket's data.

    Attributes
    ----------
    train : list of ndarray
        By block.
    test : ndarray
    """

    train: list[np.ndarray[Any, Any]]
    test: np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Training:
    """Trains the models of a bracket.

    Attributes
    ----------
    estimator : object
    fit_params : mapping
        Further arguments of ``partial_fit``.
    scorer : callable or None
        None: the estimator's own ``score``.
    X, y : object
        All data; ``y`` may be None.
    rows : Rows
    """

    estimator: Any
    fit_params: Mapping[str, Any]
    scorer: Any
    X: Any
    y: Any
    rows: Rows

    def __call__(
        self,
        state: ModelState | None,
        parameters: Mapping[str, Any],
        blocks: Sequence[int],
        *,
        batch_s: float = _BATCH_S,
    ) -> Trained:
        """Train a model on some blocks, or the first of them, and score it after the last.

        Parameters
        ----------
        state : ModelState or None
            None: a new model.
        parameters : mapping
            Of a new model.
        blocks : sequence of int
            The block of each call.
        batch_s : float
            Further calls begin within so many seconds.
        """
        began = time.perf_counter()
        model = self._new(parameters) if state is None else state.load()
        partial_fit_time, calls = 0.0, 0
        while not calls or (
            calls < len(blocks) and time.perf_counter() < began + batch_s
        ):
            partial_fit_time = self._partial_fit(model, blocks[calls])
            calls += 1
        result: dict[str, Any] = {"partial_fit_time": partial_fit_time}
        if calls == len(blocks):
            result |= self._score(model)
        trained = ModelState.of(model)
        result["seconds"] = time.perf_counter() - began
        return Trained(trained, calls, result)

    def _new(self, parameters: Mapping[str, Any]) -> Any:
        return clone(self.estimator).set_params(**parameters)

    def _partial_fit(self, model: Any, block: int) -> float:
        rows = self.rows.train[block]
        began = time.perf_counter()
        if len(rows):  # as dask-ml does
            X, y = rows_of(self.X, rows), rows_of(self.y, rows)
            model.partial_fit(X, y, **self.fit_params)
        return time.perf_counter() - began

    def _score(self, model: Any) -> dict[str, Any]:
        began = time.perf_counter()
        X, y = rows_of(self.X, self.rows.test), rows_of(self.y, self.rows.test)
        score = self.scorer(model, X, y) if self.scorer else model.score(X, y)
        if isinstance(score, dict):
            raise UnsupportedSearchError(several_scores(score))
        return {"score": score, "score_time": time.perf_counter() - began}


def several_scores(names: Iterable[Any]) -> str:
    """Return the message for a search with several scores."""
    return (
        "dask-ml compares models by one score, and the search's scoring gives several "
        f"({', '.join(map(str, names))}): name one, scoring=..."
    )
