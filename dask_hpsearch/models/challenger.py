"""The challenger: the model of a search, a run, or an estimator by itself."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dask_hpsearch.exceptions import HPSearchError, PromotionError
from dask_hpsearch.runs import SearchRun
from dask_hpsearch.safe_text import repr_of

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenger:
    """A fitted model, and what is known of its origin.

    Attributes
    ----------
    model : object
        Fitted.
    origin : dict
        JSON values: the search with its best parameters and score, the run with the pins of
        its data.
    scorer : callable or None
        Of the search.
    metric : str or None
        The name of that scorer.
    """

    model: Any
    origin: dict[str, Any] = field(default_factory=dict)
    scorer: Callable[[Any, Any, Any], Any] | None = None
    metric: str | None = None


def challenger_of(source: Any) -> Challenger:
    """Find the model in what `promote` was given.

    Parameters
    ----------
    source : SearchRun, URL of a run, fitted search, DaskSearchCV, or fitted estimator

    Raises
    ------
    PromotionError
        If it is not fitted, or has no refitted model.
    HPSearchError
        If the run has no result.
    """
    if isinstance(source, str | os.PathLike):
        source = SearchRun.attach(source)
    if isinstance(source, SearchRun):
        return _of_search(source.result(), _of_run(source))
    url = vars(source).get("run_url_") if hasattr(source, "__dict__") else None
    run = {} if url is None else _of_run_at(url)
    search = vars(source).get("search_", source) if run or _is_ours(source) else source
    if hasattr(search, "cv_results_") or hasattr(search, "best_params_"):
        return _of_search(search, run)
    _check_fitted(search)
    return Challenger(model=search)


def scorer_of(challenger: Challenger, scoring: Any) -> tuple[Any, str]:
    """Return the scorer, and its name.

    Parameters
    ----------
    challenger : Challenger
    scoring : str, callable or None
        None: the scorer of the challenger's search; else accuracy of a classifier, R² of a
        regressor.

    Raises
    ------
    PromotionError
        If there is no default for such a model.
    ValueError
        If scikit-learn does not know the name.
    """
    from sklearn.base import is_classifier, is_regressor
    from sklearn.metrics import get_scorer

    if scoring is None and challenger.scorer is not None:
        return challenger.scorer, challenger.metric or _name_of(challenger.scorer)
    if scoring is None:
        if is_classifier(challenger.model):
            scoring = "accuracy"
        elif is_regressor(challenger.model):
            scoring = "r2"
        else:
            msg = (
                f"scoring must be given for {repr_of(challenger.model)}, which is neither a "
                "classifier nor a regressor"
            )
            raise PromotionError(msg)
    if not isinstance(scoring, str) and not callable(scoring):
        msg = (
            "scoring must be one scorer: a name of scikit-learn, or a callable "
            f"scorer(estimator, X, y), got {scoring!r}"
        )
        raise PromotionError(msg)
    name = scoring if isinstance(scoring, str) else _name_of(scoring)
    return get_scorer(scoring), name


def _is_ours(source: Any) -> bool:
    return hasattr(source, "search_") and hasattr(source, "run_url_")


def _of_search(search: Any, run: dict[str, Any]) -> Challenger:
    name = type(search).__name__
    model = getattr(search, "best_estimator_", None)
    if model is None:
        msg = (
            f"this {name} has no best_estimator_: it was not fitted, or has refit=False. Fit "
            "it with refit=True, or pass a fitted estimator"
        )
        raise PromotionError(msg)
    results = getattr(search, "cv_results_", {})
    found = {
        "class": name,
        "n_candidates": len(results.get("params", ())),
        "best_params": _texts(getattr(search, "best_params_", {})),
        "best_score": _number(getattr(search, "best_score_", None)),
    }
    scorer, metric = _scorer_of_search(search)
    origin = {"search": found} | ({"run": run} if run else {})
    return Challenger(model=model, origin=origin, scorer=scorer, metric=metric)


def _scorer_of_search(search: Any) -> tuple[Any, str | None]:
    """Return the scorer by which the search chose; of several, that of ``refit``.

    The default scorer of an estimator (its ``score``) is none, since two models may differ in it.
    """
    scorer = getattr(search, "scorer_", None)
    refit = getattr(search, "refit", None)
    scoring = getattr(search, "scoring", None)
    if isinstance(scorer, dict):
        metric = refit if isinstance(refit, str) else None
        return scorer.get(metric), metric
    if scoring is None or not callable(scorer):
        return None, None
    if callable(scoring) and isinstance(refit, str):
        return None, None  # it returns several scores, as a dict
    return scorer, scoring if isinstance(scoring, str) else _name_of(scorer)


def _of_run(run: SearchRun) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "url": run.url,
        "task_name": run.task_name,
        "data": run.data_pins,
    }


def _of_run_at(url: str) -> dict[str, Any]:
    try:
        return _of_run(SearchRun.attach(url))
    except HPSearchError:  # deleted, or of a store that is out of reach
        return {"url": url}


def _check_fitted(model: Any) -> None:
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(model)
    except (NotFittedError, TypeError) as error:
        msg = (
            "the challenger must be a fitted estimator, a fitted search, a SearchRun or the "
            f"URL of a run, got {repr_of(model)}: {error}"
        )
        raise PromotionError(msg) from error


def _texts(params: Any) -> dict[str, Any]:
    return {str(name): plain(value) for name, value in dict(params).items()}


def plain(value: Any) -> Any:
    """Return a parameter as a JSON value; its text if it is not one."""
    item = getattr(value, "item", None)
    if item is not None and getattr(value, "shape", None) == ():
        value = item()
    if value is None or isinstance(value, bool | int | str):
        return value
    return _number(value) if isinstance(value, float) else repr_of(value, 500)


def _number(value: Any) -> Any:
    """Return a finite float; the text of any other, which JSON lacks."""
    if value is None:
        return None
    number = float(value)
    return number if abs(number) < float("inf") else str(number)


def _name_of(scorer: Any) -> str:
    return getattr(scorer, "__name__", None) or repr_of(scorer, 200)
