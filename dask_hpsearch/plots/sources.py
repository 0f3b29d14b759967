"""Reads whatever a display is made from into a `SearchData`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.exceptions import NotFittedError

from dask_hpsearch.exceptions import HPSearchError
from dask_hpsearch.journal.fit_columns import score_of
from dask_hpsearch.plots.parameter_scale import ParameterScale
from dask_hpsearch.plots.search_data import ClusterSizes, Fits, SearchData, Status
from dask_hpsearch.runs import SearchRun

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dask_hpsearch.plots.search_data import FloatArray
    from dask_hpsearch.runs.history import RunHistory

_MEAN = "mean_test_"


def read_search(source: Any) -> SearchData:
    """Read a search.

    Parameters
    ----------
    source : fitted search, DaskSearchCV, SearchRun, mapping or DataFrame
        A mapping or DataFrame has the columns of ``cv_results_``. Of a `DaskSearchCV`, the
        journal of its run is read if it is still there, since it has times.

    Raises
    ------
    TypeError
        If it is none of these.
    NotFittedError
        If the search is not fitted.
    ValueError
        If ``cv_results_`` lacks columns.
    """
    if isinstance(source, SearchRun):
        return _from_history(source.history())
    if hasattr(source, "fit"):
        return _from_fitted(source)
    if hasattr(source, "keys") and hasattr(source, "__getitem__"):
        return _from_results(dict(source))
    msg = (
        "source must be a fitted search, a DaskSearchCV, a SearchRun or cv_results_, got "
        f"{type(source).__name__!r}; SearchRun.attach(url) finds a run"
    )
    raise TypeError(msg)


def read_parameters(
    source: Any, params: Sequence[str] | None, scoring: str | None
) -> dict[str, Any]:
    """Read the candidates of the last rung, by their parameters.

    Parameters
    ----------
    source : fitted search, DaskSearchCV, SearchRun or cv_results_
    params : sequence of str, optional
        Which parameters; default: all that vary.
    scoring : str, optional
        Which of several scores; default: that of ``refit``.

    Returns
    -------
    dict of str to object
        ``values`` and ``scales`` by parameter, ``mean_scores``, ``status`` and
        ``score_name``.

    Raises
    ------
    ValueError
        If there is no such score or parameter.
    """
    data = read_search(source)
    name = data.score_name(scoring)
    rows = data.last_rung_rows()
    values = {}
    for one in data.choose_parameters(params):
        of_all = data.values_of(one)
        values[one] = [of_all[row] for row in rows]
    return {
        "values": values,
        "scales": {one: ParameterScale.of(one, has) for one, has in values.items()},
        "mean_scores": data.mean_scores[name][rows],
        "status": [data.status[row] for row in rows],
        "score_name": name,
    }


# --- fitted searches and cv_results_ ----------------------------------------------------


def _from_fitted(search: Any) -> SearchData:
    url = vars(search).get("run_url_")
    if url is not None:
        try:
            return _from_history(SearchRun.attach(url).history())
        except HPSearchError:  # deleted, or of a store that is out of reach
            pass
    search = vars(search).get("search_", search)
    results = getattr(search, "cv_results_", None)
    if results is None:
        msg = (
            f"this {type(search).__name__} is not fitted: call fit first, or display the "
            "run that submit returned"
        )
        raise NotFittedError(msg)
    refit = getattr(search, "refit", None)
    return _from_results(
        dict(results),
        refit=refit if isinstance(refit, str) else None,
        dropped=getattr(search, "dropped_", None),
    )


def _from_results(
    results: Mapping[str, Any],
    *,
    refit: str | None = None,
    dropped: Mapping[str, Any] | None = None,
) -> SearchData:
    """Read columns of ``cv_results_``, and of dropped candidates."""
    if "params" not in results or not _score_names(results):
        msg = (
            "cv_results_ must have 'params', and 'mean_test_score' or a mean for each of "
            f"several scores; it has {sorted(map(str, results))}"
        )
        raise ValueError(msg)
    tables = [results]
    if dropped is not None and len(dropped["params"]):
        tables.append(dropped)
    params = [dict(one) for table in tables for one in table["params"]]
    names = _score_names(results)
    n_splits = max(_n_splits(table, name) for table in tables for name in names)
    split_scores = {
        name: np.vstack([_split_scores(table, name, n_splits) for table in tables])
        for name in names
    }
    mean_scores = {
        name: np.concatenate([_mean_scores(table, name) for table in tables])
        for name in names
    }
    status = [
        Status.DROPPED if table is not results else one
        for table in tables
        for one in _status(table, mean_scores, n_splits)[: len(table["params"])]
    ]
    return SearchData(
        params=params,
        split_scores=split_scores,
        mean_scores=mean_scores,
        status=status,
        rungs=_whole_numbers(results.get("iter"), len(params)),
        resources=_whole_numbers(results.get("n_resources"), len(params)),
        ends=np.full(len(params), np.nan),
        refit=refit,
    )


def _score_names(results: Mapping[str, Any]) -> list[str]:
    names = [key.removeprefix(_MEAN) for key in results if key.startswith(_MEAN)]
    # dask-ml's incremental searches have one validation set.
    return names or (["score"] if "test_score" in results else [])


def _mean_scores(table: Mapping[str, Any], name: str) -> FloatArray:
    column = table.get(_MEAN + name, table.get("test_score"))
    if column is None:  # of candidates that were dropped before any fit
        return np.full(len(table["params"]), np.nan)
    return np.asarray(column, dtype=np.float64)


def _n_splits(table: Mapping[str, Any], name: str) -> int:
    split = 0
    while f"split{split}_test_{name}" in table:
        split += 1
    return max(split, 1)


def _split_scores(table: Mapping[str, Any], name: str, n_splits: int) -> FloatArray:
    """Return scores of shape (n_candidates, n_splits)."""
    scores = np.full((len(table["params"]), n_splits), np.nan)
    if f"split0_test_{name}" not in table:
        scores[:, 0] = _mean_scores(table, name)
        return scores
    for split in range(_n_splits(table, name)):
        column = table[f"split{split}_test_{name}"]
        scores[:, split] = np.asarray(column, dtype=np.float64)
    return scores


def _status(
    table: Mapping[str, Any], mean_scores: Mapping[str, FloatArray], n_splits: int
) -> list[Status]:
    """Return the status of each row, which `SearchRun.trials` says more of."""
    n_rows = len(table["params"])
    means = np.column_stack([one[:n_rows] for one in mean_scores.values()])
    failed = np.isnan(means.sum(axis=1))
    dropped = np.asarray(table.get("dropped", np.zeros(n_rows)), dtype=bool)
    n_fits = np.asarray(table.get("n_fits", np.full(n_rows, n_splits)))
    return [
        Status.DROPPED
        if dropped[row]
        else Status.UNFINISHED
        if n_fits[row] < n_splits
        else Status.FAILED
        if failed[row]
        else Status.COMPLETE
        for row in range(n_rows)
    ]


def _whole_numbers(column: Any, length: int) -> Any:
    """Return a column of integers, 0 where there is none."""
    numbers = np.zeros(length, dtype=np.int64)
    if column is not None:
        numbers[: len(column)] = np.asarray(column)
    return numbers


# --- journals ---------------------------------------------------------------------------


def _from_history(history: RunHistory) -> SearchData:
    candidates, n_splits = history.candidates, history.n_splits
    row_of = {(one.call, one.number): row for row, one in enumerate(candidates)}
    names = _names_of_scores(history)
    split_scores = {
        name: np.full((len(candidates), n_splits), np.nan) for name in names
    }
    for row, one in enumerate(candidates):
        for split, result in one.results.items():
            for name in names:
                scores = result.get("test_scores")
                split_scores[name][row, split] = score_of(scores, name)
    ends = np.full(len(candidates), np.nan)
    for fit in history.fits:  # in the order of their ends
        ends[row_of[fit.call, fit.candidate]] = fit.ended
    return SearchData(
        params=[one.params for one in candidates],
        split_scores=split_scores,
        mean_scores={
            name: np.array(
                [
                    # A failed fit makes the mean NaN, as in scikit-learn.
                    np.mean(scores[row, sorted(one.results)])
                    for row, one in enumerate(candidates)
                ]
            )
            for name, scores in split_scores.items()
        },
        status=_status_of_history(history),
        rungs=np.array(
            [one.extra.get("iter", 0) for one in candidates], dtype=np.int64
        ),
        resources=np.array(
            [one.extra.get("n_resources", 0) for one in candidates], dtype=np.int64
        ),
        ends=ends,
        refit=history.refit,
        fits=_fits(history, row_of),
        sizes=_sizes(history),
        driver_starts=_driver_starts(history),
    )


def _names_of_scores(history: RunHistory) -> list[str]:
    scores = [
        result.get("test_scores")
        for one in history.candidates
        for result in one.results.values()
    ]
    named = dict.fromkeys(
        name for one in scores if isinstance(one, dict) for name in one
    )
    return list(named) or (["score"] if scores else [])


def _status_of_history(history: RunHistory) -> list[Status]:
    status = []
    for one in history.candidates:
        failed = any(
            result.get("fit_error") is not None for result in one.results.values()
        )
        if failed:
            status.append(Status.FAILED)
        elif len(one.results) == history.n_splits:
            status.append(Status.COMPLETE)
        elif (one.call, one.number) in history.dropped:
            status.append(Status.DROPPED)
        else:
            status.append(Status.UNFINISHED)
    return status


def _fits(history: RunHistory, row_of: Mapping[tuple[int, int], int]) -> Fits:
    fits = history.fits
    ends = _floats([fit.ended for fit in fits])
    return Fits(
        starts=ends - _floats([fit.seconds for fit in fits]),
        ends=ends,
        candidates=np.array(
            [row_of[fit.call, fit.candidate] for fit in fits], dtype=np.int64
        ),
        splits=np.array([fit.split for fit in fits], dtype=np.int64),
        failed=np.array([fit.failed for fit in fits], dtype=bool),
    )


def _sizes(history: RunHistory) -> ClusterSizes:
    noted = [one for one in history.heartbeats if one.usage is not None]
    usages = [one.usage for one in noted if one.usage is not None]
    return ClusterSizes(
        times=_floats([one.time for one in noted]),
        workers=np.array([one.workers for one in usages], dtype=np.int64),
        slots=np.array([one.slots for one in usages], dtype=np.int64),
    )


def _driver_starts(history: RunHistory) -> FloatArray:
    """Return when each driver first noted a state."""
    first: dict[str, float] = {}
    for event in history.states:
        if event.state.is_under_way:
            first.setdefault(event.process.driver, event.time)
    return _floats(sorted(first.values()))


def _floats(values: Sequence[float]) -> FloatArray:
    return np.array(values, dtype=np.float64)
