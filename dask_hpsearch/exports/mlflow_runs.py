"""A search as runs of MLflow: one for the search, with a child run for each candidate.

Runs are found again by their tags, so that nothing is doubled if a search is resumed or
exported again: the name of the search's run, and the candidate's ordinals and digest.
Everything goes through one `MlflowClient`: MLflow's own global state is left alone.
"""

from __future__ import annotations

import json
import math
import re
import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dask_hpsearch.exports.candidate_result import CandidateResult, CandidateState
from dask_hpsearch.exports.mlflow_settings import check_reachable
from dask_hpsearch.journal.serialization import shown_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from dask_hpsearch.exports.mlflow_settings import (
        MlflowTracker,
        SearchDescription,
        SearchEnd,
    )

RUN, KIND, STATE = "dask-hpsearch.run", "dask-hpsearch.kind", "dask-hpsearch.state"
CANDIDATE, DIGEST = "dask-hpsearch.candidate", "dask-hpsearch.digest"
GENERATION, SPLITS = "dask-hpsearch.generation", "dask-hpsearch.n_splits"
_PARENT = "mlflow.parentRunId"
# MLflow's limits, which its servers check.
_LONGEST_VALUE, _LONGEST_TAG, _LONGEST_NAME = 6000, 5000, 250
_PARAMS_PER_BATCH, _METRICS_PER_BATCH, _RUNS_PER_PAGE = 90, 900, 1000
_NO_NAME = re.compile(r"[^\w\-. :]", re.ASCII)
_STATUS = {
    CandidateState.COMPLETE: "FINISHED",
    CandidateState.FAILED: "FAILED",
    CandidateState.DROPPED: "KILLED",
}
_STATUS_OF_SEARCH = {"failed": "FAILED", "cancelled": "KILLED", "running": "RUNNING"}


@dataclass(slots=True)
class _Child:
    """A child run that is there.

    Attributes
    ----------
    run_id : str
    candidate, digest : str
    generation : int
    written : tuple of (str, str) or None
        State and number of splits; None if it is not written to its end.
    """

    run_id: str
    candidate: str
    digest: str
    generation: int
    written: tuple[str, str] | None


class MlflowRuns:
    """The runs of one search at an MLflow server.

    Parameters
    ----------
    settings : MlflowTracker
        Resolved.
    search : SearchDescription
    """

    def __init__(self, settings: MlflowTracker, search: SearchDescription) -> None:
        from mlflow import MlflowClient

        check_reachable(settings.tracking_uri)
        with warnings.catch_warnings():
            # Of what MLflow calls in SQLAlchemy: users can do nothing about it.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.client = MlflowClient(tracking_uri=settings.tracking_uri)
        self._settings = settings
        self._search = search
        self.experiment_id = self._experiment()
        self.parent = self._parent()
        self._children = list(self._found("candidate"))
        self._by_ordinal = {
            (one.generation, one.candidate): one for one in self._children
        }
        self._taken: set[str] = set()

    def write(self, results: Iterable[CandidateResult]) -> None:
        """Write candidates that have ended, unless they are there.

        Raises
        ------
        TrackerError
            If the server does not answer.
        """
        check_reachable(self._settings.tracking_uri)
        for one in results:
            if one.state != CandidateState.UNFINISHED:
                self._write(one)

    def end(self, end: SearchEnd) -> None:
        """Write how the search has ended, or that it runs."""
        from mlflow.entities import Metric, RunTag

        now = int(1000 * time.time())
        tags = {STATE: end.state, "dask-hpsearch.reason": end.reason}
        if end.best_params is not None:
            best = {key: _shown(one) for key, one in end.best_params.items()}
            tags["dask-hpsearch.best_params"] = json.dumps(best, default=str)
        states = [one.written[0] for one in self._children if one.written]
        metrics: dict[str, float] = {"n_candidates": len(states)}
        for state in (CandidateState.FAILED, CandidateState.DROPPED):
            metrics[f"n_{state}"] = states.count(state)
        if end.best_score is not None:
            metrics["best_score"] = end.best_score
        self.client.log_batch(
            self.parent,
            metrics=[Metric(key, one, now, 0) for key, one in _finite(metrics).items()],
            tags=[RunTag(key, _cut(one, _LONGEST_TAG)) for key, one in tags.items()],
        )
        status = _STATUS_OF_SEARCH.get(end.state, "FINISHED")
        if status == "RUNNING":
            self.client.update_run(self.parent, status=status)
        else:
            self.client.set_terminated(self.parent, status=status, end_time=now)

    # --- the search's own run -----------------------------------------------------------

    def _experiment(self) -> str:
        """Return the id of the experiment, which is created if there is none."""
        name = str(self._settings.experiment)
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        try:
            return str(self.client.create_experiment(name))
        except Exception:
            found = self.client.get_experiment_by_name(name)
            if found is None:
                raise
            return str(found.experiment_id)  # another process has just created it

    def _parent(self) -> str:
        search = self._search
        for run in self._search_runs("search"):
            if run.info.status != "RUNNING":
                self.client.update_run(run.info.run_id, status="RUNNING")
            return str(run.info.run_id)
        name = self._settings.run_name or search.task_name
        tags = {
            RUN: search.run_id,
            KIND: "search",
            STATE: "running",
            "dask-hpsearch.search": search.search_text,
            "mlflow.source.name": "dask_hpsearch",
        }
        if search.url:
            tags["dask-hpsearch.url"] = search.url
        for argument, pin in search.data.items():
            tags[f"dask-hpsearch.data.{argument}"] = pin
        run = self.client.create_run(
            self.experiment_id,
            start_time=int(1000 * search.created),
            tags={key: _cut(one, _LONGEST_TAG) for key, one in tags.items()},
            run_name=name or f"{search.search_class} {search.run_id}",
        )
        self._log(
            run.info.run_id,
            params={"search_class": search.search_class, "refit": str(search.refit)},
        )
        return str(run.info.run_id)

    # --- candidates ---------------------------------------------------------------------

    def _write(self, one: CandidateResult) -> None:
        child = self._child_of(one)
        written = str(one.state), str(one.n_finished)
        if child is not None and child.written == written:
            if child.candidate != one.name or child.generation != one.generation:
                self._rename(child, one)
            return
        if child is None:
            child = self._create(one)
        self._taken.add(child.run_id)
        # A run that was created, and not written to its end, is written again.
        params = (
            {} if child.written else {key: _shown(v) for key, v in one.params.items()}
        )
        self._log(
            child.run_id,
            params=params,
            metrics=_metrics_of(one),
            at=int(1000 * one.ended),
            tags={SPLITS: written[1], STATE: written[0]},
        )
        self.client.set_terminated(
            child.run_id, status=_STATUS[one.state], end_time=int(1000 * one.ended)
        )
        child.written = written
        if child.candidate != one.name or child.generation != one.generation:
            self._rename(child, one)

    def _child_of(self, one: CandidateResult) -> _Child | None:
        """Return the run of a candidate, if there is one.

        In an extended run the ordinals may have changed: there the same parameters in the
        same call are the same candidate.
        """
        found = self._by_ordinal.get((one.generation, one.name))
        if found is None and one.generation:
            call = f"{one.call}."
            found = next(
                (
                    child
                    for child in self._children
                    if child.generation < one.generation
                    and child.digest == one.digest
                    and child.candidate.startswith(call)
                    and child.run_id not in self._taken
                ),
                None,
            )
        if found is not None:
            self._taken.add(found.run_id)
        return found

    def _create(self, one: CandidateResult) -> _Child:
        tags = {
            _PARENT: self.parent,
            RUN: one.run_id,
            KIND: "candidate",
            CANDIDATE: one.name,
            DIGEST: one.digest,
            GENERATION: str(one.generation),
            "mlflow.source.name": "dask_hpsearch",
        }
        for name, value in one.extra.items():
            tags[_name(f"dask-hpsearch.{name}")] = _cut(str(value), _LONGEST_TAG)
        run = self.client.create_run(
            self.experiment_id,
            start_time=int(1000 * one.started),
            tags=tags,
            run_name=f"candidate {one.name}",
        )
        child = _Child(run.info.run_id, one.name, one.digest, one.generation, None)
        self._add(child)
        return child

    def _rename(self, child: _Child, one: CandidateResult) -> None:
        """Give a run the ordinals that its candidate has in an extended run."""
        self._log(
            child.run_id, tags={CANDIDATE: one.name, GENERATION: str(one.generation)}
        )
        child.candidate, child.generation = one.name, one.generation
        self._by_ordinal[one.generation, one.name] = child

    def _add(self, child: _Child) -> None:
        self._children.append(child)
        self._by_ordinal[child.generation, child.candidate] = child

    def _found(self, kind: str) -> Iterator[_Child]:
        for run in self._search_runs(kind):
            tags = run.data.tags
            ended = run.info.status in _STATUS.values() and STATE in tags
            yield _Child(
                run.info.run_id,
                tags.get(CANDIDATE, ""),
                tags.get(DIGEST, ""),
                int(tags.get(GENERATION, 0)),
                (tags[STATE], tags.get(SPLITS, "")) if ended else None,
            )

    def _search_runs(self, kind: str) -> Iterator[Any]:
        """Yield the runs of the search of one kind, oldest first."""
        token = None
        text = f"tags.`{RUN}` = '{self._search.run_id}' and tags.`{KIND}` = '{kind}'"
        while True:
            page = self.client.search_runs(
                [self.experiment_id],
                filter_string=text,
                max_results=_RUNS_PER_PAGE,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            yield from page
            token = page.token
            if not token:
                return

    def _log(
        self,
        run_id: str,
        *,
        params: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
        at: int = 0,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log within the limits of one request; tags come last."""
        from mlflow.entities import Metric, Param, RunTag

        texts = _named(params or {}, _LONGEST_VALUE)
        numbers = _named(_finite(metrics or {}), None)
        all_params = [Param(key, one) for key, one in texts.items()]
        all_metrics = [Metric(key, one, at, 0) for key, one in numbers.items()]
        for part in _parts(all_params, _PARAMS_PER_BATCH):
            self.client.log_batch(run_id, params=part)
        for part in _parts(all_metrics, _METRICS_PER_BATCH):
            self.client.log_batch(run_id, metrics=part)
        if tags:
            self.client.log_batch(
                run_id, tags=[RunTag(key, one) for key, one in tags.items()]
            )


def _metrics_of(one: CandidateResult) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for kind, scores in (("test", one.split_scores), ("train", one.train_scores)):
        for name, values in scores.items():
            known = [value for value in values if not math.isnan(value)]
            mean = sum(known) / len(known) if known else math.nan
            if kind == "test":
                mean = one.mean_scores[name]
            metrics[f"mean_{kind}_{name}"] = mean
            for split, value in enumerate(values):
                metrics[f"split{split}_{kind}_{name}"] = value
    for name, times in (("fit_time", one.fit_times), ("score_time", one.score_times)):
        known = [value for value in times if not math.isnan(value)]
        metrics[f"mean_{name}"] = sum(known) / len(known) if known else math.nan
    return metrics


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the numbers that every store of MLflow can hold."""
    return {key: float(one) for key, one in metrics.items() if math.isfinite(one)}


def _named(values: Mapping[str, Any], longest: int | None) -> dict[str, Any]:
    """Return values by names that MLflow permits; two names never become one."""
    found: dict[str, Any] = {}
    for key, one in values.items():
        name = _name(key)
        while name in found:
            name = f"{name[: _LONGEST_NAME - 1]}_"
        found[name] = one if longest is None else _cut(one, longest)
    return found


def _name(text: str) -> str:
    return _NO_NAME.sub("_", str(text))[:_LONGEST_NAME] or "_"


def _shown(value: Any) -> str:
    return str(shown_value(value))


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _parts(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for first in range(0, len(values), size):
        yield values[first : first + size]
