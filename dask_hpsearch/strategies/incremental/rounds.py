"""The rounds of one bracket: dask-ml's own loop, without its tasks.

`fit_bracket` takes the place of the function ``fit`` in ``dask_ml.model_selection._incremental``,
with the same arguments and result: the same blocks of data in the same order, the same
history, the same decisions, which are those of dask-ml's objects. What trains the models is a
`Trainer`.
"""

from __future__ import annotations

import itertools
import logging
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from sklearn.utils import check_random_state

from dask_hpsearch.exceptions import SearchStopped
from dask_hpsearch.strategies.incremental.training import Rows

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

    Meta = dict[str, Any]
    History = list[Meta]
    Info = dict[int, History]

logger = logging.getLogger(
    "dask_ml.model_selection"
)  # dask-ml's own: `verbose` shows it


class Trainer(Protocol):
    """Trains and scores the models of one bracket."""

    def begin(
        self,
        candidates: list[dict[str, Any]],
        *,
        estimator: Any,
        fit_params: Mapping[str, Any],
        scorer: Any,
        rows: Rows,
    ) -> list[dict[str, Any]]:
        """Begin a bracket; return the parameters of its models.

        These are the given ones, or those with which an earlier driver has begun it.
        """

    async def train(self, wanted: Mapping[int, Sequence[int]]) -> list[Meta]:
        """Train models on blocks of data, then score them.

        Parameters
        ----------
        wanted : mapping of int to sequence of int
            By model, the block of each further call.

        Returns
        -------
        list of dict
            By model, in the order of ``wanted``: ``partial_fit_time``, ``score``,
            ``score_time``, ``elapsed_wall_time``.

        Raises
        ------
        SearchStopped
            If the search ends before that.
        """

    def scored(self) -> dict[int, Meta]:
        """Return the results of the models that a stopped round has scored."""

    def decide(
        self, number: int, rule: Callable[[], Mapping[int, int]]
    ) -> dict[int, int]:
        """Return how a bracket goes on after a round: as it was decided before, or now."""

    def drop(self, models: Iterable[int]) -> None:
        """Note that models are not trained any more, and cannot be the best one."""

    def best_of(self, scores: Mapping[int, float], *, complete: bool) -> int:
        """Return the model with the highest score; of equal ones the first.

        Parameters
        ----------
        scores : mapping of int to float
        complete : bool
            Whether the bracket has ended by itself. If it was stopped, only models count
            that are still known as they were when they were scored.
        """

    def model(self, ident: int) -> Any:
        """Return a model as it was when it was scored."""


class BlockOrder:
    """The order of the blocks of training data: shuffled, again and again.

    Parameters
    ----------
    n_blocks : int
    rng : RandomState
    """

    def __init__(self, n_blocks: int, rng: np.random.RandomState) -> None:
        self._n_blocks = n_blocks
        self._rng = rng
        self._order: list[int] = []

    def of_call(self, number: int) -> int:
        """Return the block of a model's call, by its ordinal; all models share the order."""
        while number >= len(self._order):
            blocks = list(range(self._n_blocks))
            self._rng.shuffle(blocks)
            self._order.extend(blocks)
        return self._order[number]

    def of_calls(self, begun: int, more: int) -> list[int]:
        """Return the blocks of some calls after those of a model so far."""
        blocks = [self.of_call(begun + number) for number in range(more)]
        self.of_call(begun + more)  # dask-ml looks one ahead, and shuffles for it
        return blocks


class Ready:
    """A model where dask-ml expects a future of one."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __await__(self) -> Generator[Any, Any, Any]:
        yield from ()  # it never waits
        return self._model


async def fit_bracket(  # noqa: PLR0917 (as dask-ml calls it)
    trainer: Trainer,
    model: Any,
    params: Iterable[dict[str, Any]],
    X_train: Any,
    _y_train: Any,
    X_test: Any,
    _y_test: Any,
    additional_calls: Callable[[Info], Mapping[int, int]],
    *,
    fit_params: Mapping[str, Any] | None = None,
    scorer: Any = None,
    random_state: Any = None,
    verbose: bool | float = False,
    prefix: str = "",
) -> Any:
    """Train the models of a bracket as ``dask_ml.model_selection._incremental.fit`` does.

    Parameters
    ----------
    trainer : Trainer
    model : estimator
    params : iterable of dict
        Parameters of the models.
    X_train, X_test : dask array of int
        Rows of the data, in blocks, in place of the data.
    additional_calls : callable
        dask-ml's rule: how often each model is trained further, by the history of all.
    fit_params, scorer, random_state, verbose, prefix
        As for dask-ml's function.

    Returns
    -------
    Results
        Of dask-ml. ``models`` has the best one only, by its place among the models.

    Raises
    ------
    SearchStopped
        If the search ended before any model was scored.
    """
    show = _log_interval(verbose)
    rng = check_random_state(random_state)
    candidates = list(params)
    logger.info("[CV%s] creating %d models", prefix, len(candidates))
    rows = Rows(_blocks(X_train), _computed(X_test))
    lengths = [len(one) for one in rows.train]
    msg = "[CV%s] For training there are between %d and %d examples in each chunk"
    logger.info(msg, prefix, min(lengths), max(lengths))
    candidates = trainer.begin(
        candidates,
        estimator=model,
        fit_params=fit_params or {},
        scorer=scorer,
        rows=rows,
    )
    rounds = _Rounds(trainer, candidates, BlockOrder(len(rows.train), rng))
    calls = dict.fromkeys(range(len(candidates)), 1)
    for number in itertools.count():
        if not await rounds.train(calls):
            break
        if show and number % show == 0:
            rounds.log_best(prefix)
        calls = trainer.decide(number, lambda: additional_calls(rounds.info))
        rounds.keep(calls)
        if not any(calls.values()):
            break
    return rounds.results()


class _Rounds:
    """What is known of a bracket's models.

    Attributes
    ----------
    info : dict of int to list of dict
        The history of each model that was not dropped, as dask-ml's rule takes it.
    """

    def __init__(
        self, trainer: Trainer, candidates: list[dict[str, Any]], order: BlockOrder
    ) -> None:
        self._trainer = trainer
        self._candidates = candidates
        self._order = order
        self.info: Info = {ident: [] for ident in range(len(candidates))}
        self._history: History = []
        self._newest: History = []
        self._complete = True

    async def train(self, calls: Mapping[int, int]) -> bool:
        """Train models further and score them; return False if the search was stopped."""
        wanted = {
            # A negative number is one call in dask-ml, which has made it by then.
            ident: self._order.of_calls(self._calls_of(ident), max(more, 1))
            for ident, more in calls.items()
            if more
        }
        try:
            results = await self._trainer.train(wanted)
        except SearchStopped:
            scored = self._trainer.scored()
            self._add({ident: wanted[ident] for ident in sorted(scored)}, scored)
            if not self._history:
                raise
            self._complete = False
            return False
        self._add(wanted, dict(zip(wanted, results, strict=True)))
        return True

    def _add(
        self, wanted: Mapping[int, Sequence[int]], results: Mapping[int, Meta]
    ) -> None:
        self._newest = []
        for ident, blocks in wanted.items():
            meta = {
                "model_id": ident,
                "params": self._candidates[ident],
                "partial_fit_calls": self._calls_of(ident) + len(blocks),
                **results[ident],
            }
            self.info[ident].append(meta)
            self._newest.append(meta)
        self._history += self._newest

    def _calls_of(self, ident: int) -> int:
        history = self.info[ident]
        return int(history[-1]["partial_fit_calls"]) if history else 0

    def log_best(self, prefix: str) -> None:
        """Log the best score of the last round, as dask-ml does."""
        best = self._newest[int(np.argmax([meta["score"] for meta in self._newest]))]
        msg = "[CV%s] validation score of %0.4f received after %d partial_fit calls"
        logger.info(msg, prefix, best["score"], best["partial_fit_calls"])

    def keep(self, idents: Iterable[int]) -> None:
        """Drop all models but some."""
        dropped = [ident for ident in self.info if ident not in set(idents)]
        for ident in dropped:
            del self.info[ident]
        self._trainer.drop(dropped)

    def results(self) -> Any:
        """Return the results in dask-ml's form."""
        from dask_ml.model_selection._incremental import Results

        scores = {ident: one[-1]["score"] for ident, one in self.info.items() if one}
        best = self._trainer.best_of(scores, complete=self._complete)
        model = self._trainer.model(best)
        if self._complete:
            self._trainer.drop(ident for ident in self.info if ident != best)
        info: dict[int, History] = defaultdict(list)
        for meta in self._history:
            meta.pop("_adapt", None)
            info[meta["model_id"]].append(meta)
        # dask-ml takes the best model's number for its place: some may have no score yet.
        place = sorted(info).index(best)
        return Results(
            {ident: info[ident] for ident in sorted(info)},
            {place: Ready(model)},
            self._history,
            (place, info[best][-1]),
        )


def _blocks(rows: Any) -> list[np.ndarray[Any, Any]]:
    """Compute the blocks of an array, in order."""
    ends = np.cumsum(rows.chunks[0])[:-1]
    return np.split(_computed(rows), ends)


def _computed(rows: Any) -> np.ndarray[Any, Any]:
    return np.asarray(rows.compute(scheduler="sync"))


def _log_interval(verbose: bool | float) -> int:  # noqa: FBT001 (dask-ml's parameter)
    """Return after how many rounds dask-ml logs the best score; 0: never."""
    if isinstance(verbose, bool):
        verbose = 1.0  # the level of the logger decides
    if not 0 <= verbose <= 1:
        msg = f"verbose={verbose} does not satisfy 0 <= verbose <= 1"
        raise ValueError(msg)
    return int(1 / verbose) if verbose > 0 else 0
