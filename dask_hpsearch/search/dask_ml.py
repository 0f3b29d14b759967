"""The backend "dask-ml": one static graph of fits on the Dask client.

dask-ml's own GridSearchCV and RandomizedSearchCV are fitted as they are, except that a
failing candidate ends the search instead of being retried for ever. The code of a
scikit-learn search still makes the candidates, splits and results; only its fits run in a
graph of dask-ml.
"""

from __future__ import annotations

import contextlib
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
from joblib.parallel import BatchedCalls, ParallelBackendBase, SequentialBackend
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV

from dask_hpsearch import sklearn_adapter
from dask_hpsearch.exceptions import HPSearchError, UnsupportedSearchError
from dask_hpsearch.execution.client import client_for, wait_for_worker
from dask_hpsearch.execution.fitted import Fitted
from dask_hpsearch.extras import map_import_errors
from dask_hpsearch.joblib_backend.backend import EvaluationBackend
from dask_hpsearch.search.dask_ml_passthrough import (
    results_in_words,
    values_written_out,
    written_out,
)
from dask_hpsearch.sklearn_adapter import callbacks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from distributed import Client

    from dask_hpsearch.execution.settings import Settings
    from dask_hpsearch.sklearn_adapter import FitCall


def is_dask_ml_search(search: Any) -> bool:
    """Whether the object is one of dask-ml's static searches."""
    return any(
        base.__module__.startswith("dask_ml.") and base.__name__ == "DaskBaseSearchCV"
        for base in type(search).__mro__
    )


def why_not_dask_ml(search: Any) -> str | None:
    """Return the reason why dask-ml cannot run a search; None if it can."""
    if is_dask_ml_search(search):
        return None
    if type(search) not in (GridSearchCV, RandomizedSearchCV):
        return "it runs GridSearchCV and RandomizedSearchCV"
    if callable(search.scoring) and not hasattr(search.scoring, "_score_func"):
        return (
            "a scoring function that make_scorer did not make needs scikit-learn's code"
        )
    return None


def fit_dask_ml(
    search: Any, X: Any, y: Any, params: dict[str, Any], settings: Settings
) -> Fitted:
    """Fit a search by dask-ml's graph on the client.

    Raises
    ------
    HPSearchError
        If dask-ml cannot choose a best candidate because of failed ones.
    """
    with map_import_errors("backend='dask-ml'"):
        import dask_ml.model_selection  # noqa: F401 (fail before a cluster is started)
    fitted = sklearn_adapter.without_fitted_state(search)
    with ExitStack() as stack:
        client = stack.enter_context(client_for(settings, search))
        wait_for_worker(client, settings.worker_timeout_s)
        if is_dask_ml_search(search):
            _fit_own(fitted, X, y, params, client)
        else:
            sklearn_adapter.check_version()
            backend = EvaluationBackend(_GraphSession(client))
            stack.enter_context(joblib.parallel_config(backend=backend))
            fitted.fit(X, y, **params)
    return Fitted(fitted)


def _fit_own(
    search: Any, X: Any, y: Any, params: dict[str, Any], client: Client
) -> None:
    """Fit dask-ml's own search object.

    With a client's ``get``, dask-ml retries a failing candidate without end; with any
    other function it raises the error.
    """
    own = {"scheduler": search.scheduler}
    search.scheduler = _getter(client)
    try:
        with _steps_written_out(search):
            search.fit(X, y, **params)
    except IndexError as error:
        msg = (
            "dask-ml cannot choose a best candidate, since some failed with "
            f"error_score={search.error_score!r}: give error_score a number, or pass "
            "scikit-learn's class of the same name, which ranks failed candidates last"
        )
        raise HPSearchError(msg) from error
    finally:
        vars(search).update(own)


@contextlib.contextmanager
def _steps_written_out(search: Any) -> Iterator[None]:
    """Give a dask-ml search steps that it can fit, and restore its own afterwards."""
    name = "param_grid" if hasattr(search, "param_grid") else "param_distributions"
    own = {"estimator": search.estimator, name: getattr(search, name)}
    grids = own[name]
    several = not isinstance(grids, dict)
    written = [
        values_written_out(one, search.estimator, refits=True)
        for one in (grids if several else [grids])
    ]
    search.estimator = written_out(search.estimator)
    setattr(search, name, written if several else written[0])
    try:
        yield
        results_in_words(search)
    finally:
        vars(search).update(own)


def _getter(client: Client) -> Callable[..., Any]:
    def get(graph: Any, keys: Any, **_options: Any) -> Any:
        return client.get(graph, keys)

    return get


class _GraphSession(ParallelBackendBase):  # type: ignore[misc]
    """Gathers the fits of a call, and runs them as one graph."""

    supports_retrieve_callback = True

    def __init__(self, client: Client) -> None:
        super().__init__(nesting_level=0)
        self._client = client
        self._fits: list[tuple[FitCall, Callable[[Any], None]]] = []

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return a number above one, which means "not in this process"."""
        del n_jobs
        slots: int = sum(self._client.nthreads().values())
        return max(2, slots)

    def configure(self, n_jobs: int = 1, parallel: Any = None, **_options: Any) -> int:
        """Let joblib hand over all tasks before one runs."""
        parallel.pre_dispatch = "all"
        return int(super().configure(n_jobs, parallel))

    def get_nested_backend(self) -> tuple[Any, int | None]:
        """Return any backend: there are no nested calls."""
        return SequentialBackend(nesting_level=1), None

    def submit(
        self, func: BatchedCalls, callback: Callable[[Any], None] | None = None
    ) -> None:
        """Keep a fit for the graph."""
        call = sklearn_adapter.fit_call_of(func.items[0])
        if (
            call is None
            or len(func.items) > 1
            or not call.of_search
            or call.shared.get("score_params")
            or callbacks.CONTEXT in call.shared
        ):
            msg = (
                "dask-ml can run plain fits only, without callbacks and without metadata "
                "for the scorer: use backend='trials'"
            )
            raise UnsupportedSearchError(msg)
        self._fits.append((call, callback or (lambda _: None)))

    @contextlib.contextmanager
    def retrieval_context(self) -> Iterator[None]:
        """Run the gathered fits; joblib calls this after it has handed over all tasks."""
        fits, self._fits = self._fits, []
        results = _results(self._client, [call for call, _ in fits]) if fits else {}
        deliver = threading.Thread(target=_deliver, args=(fits, results))
        deliver.start()
        yield
        deliver.join()

    def retrieve_result_callback(self, out: Any) -> list[Any]:
        """Return a fit's result."""
        results: list[Any] = out
        return results


def _deliver(
    fits: list[tuple[FitCall, Callable[[Any], None]]],
    results: Mapping[tuple[Any, Any], dict[str, Any]],
) -> None:
    for call, callback in fits:
        callback([results[call.candidate, call.split]])


def _results(
    client: Client, calls: list[FitCall]
) -> dict[tuple[Any, Any], dict[str, Any]]:
    """Run the fits of one ``evaluate_candidates`` call in a graph of dask-ml."""
    from dask_ml.model_selection import GridSearchCV as DaskGridSearchCV

    first = calls[0]
    candidates = {call.candidate: call.parameters for call in calls}
    splits = {call.split: (call.train, call.test) for call in calls}
    graph_search = DaskGridSearchCV(
        written_out(first.estimator),
        [_alone(one, first.estimator) for one in candidates.values()],
        scoring=_scorers_of(first) or first.shared["scorer"],
        iid=False,
        refit=False,
        cv=list(splits.values()),
        error_score=first.shared["error_score"],
        return_train_score=bool(first.shared["return_train_score"]),
        scheduler=_getter(client),
    )
    graph_search.fit(first.X, first.y, **first.shared["fit_params"])
    table = graph_search.cv_results_
    return {(call.candidate, call.split): _result(table, call) for call in calls}


def _alone(parameters: Mapping[str, Any], estimator: Any) -> dict[str, list[Any]]:
    """Return a candidate as a parameter grid."""
    grid = {name: [value] for name, value in parameters.items()}
    return values_written_out(grid, estimator, refits=False)


def _result(table: Mapping[str, Any], call: FitCall) -> dict[str, Any]:
    """Take one fit's result from dask-ml's table."""
    scores = _scores(table, call, "test")
    result = {
        "fit_error": _failure(scores, call.shared["error_score"]),
        "test_scores": scores,
        "n_test_samples": len(call.test),
        "fit_time": float(table["mean_fit_time"][call.candidate]),
        "score_time": float(table["mean_score_time"][call.candidate]),
    }
    if call.shared["return_train_score"]:
        result["train_scores"] = _scores(table, call, "train")
    return result


def _scores(table: Mapping[str, Any], call: FitCall, kind: str) -> Any:
    start = f"split{call.split}_{kind}_"
    if f"{start}score" in table and not _scorers_of(call):
        return float(table[f"{start}score"][call.candidate])
    return {
        key.removeprefix(start): float(values[call.candidate])
        for key, values in table.items()
        if key.startswith(start)
    }


def _scorers_of(call: FitCall) -> dict[str, Any] | None:
    """Return the scorers by name, if there are several."""
    scorers: dict[str, Any] | None = getattr(call.shared["scorer"], "_scorers", None)
    return scorers


def _failure(scores: Any, error_score: Any) -> str | None:
    """Return the error of a failed fit, which dask-ml marks only by its score."""
    values = list(scores.values()) if isinstance(scores, dict) else [scores]
    if isinstance(error_score, str) or not np.array_equal(
        values, [error_score] * len(values), equal_nan=True
    ):
        return None
    return "the fit failed on a worker; dask-ml does not keep the error"
