"""What a search reports its candidates to while it runs: a callback, a tracker, or neither."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import cloudpickle

from dask_hpsearch import sklearn_adapter
from dask_hpsearch.exceptions import (
    CallbackWarning,
    ClientClosedError,
    RunCancelledError,
    SearchStopped,
    TrackerWarning,
)
from dask_hpsearch.execution.callers import user_stacklevel
from dask_hpsearch.execution.candidate_callback import CandidateCallback
from dask_hpsearch.execution.candidate_reports import CandidateReports
from dask_hpsearch.execution.live_tracking import LiveTracking
from dask_hpsearch.exports.mlflow_model import example_of
from dask_hpsearch.exports.mlflow_process import LoggedModel
from dask_hpsearch.exports.mlflow_settings import SearchDescription, SearchEnd
from dask_hpsearch.journal.events import FitEvent
from dask_hpsearch.journal.serialization import shown
from dask_hpsearch.raised_errors import came_from_fit
from dask_hpsearch.recorder.listener import RecordListener
from dask_hpsearch.safe_text import message_of
from dask_hpsearch.strategies.optuna.search import is_optuna_search

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dask_hpsearch.execution.fitted import Fitted
    from dask_hpsearch.execution.settings import Settings
    from dask_hpsearch.exports.candidate_result import CandidateResult
    from dask_hpsearch.journal.run_journal import RunJournal

_logger = logging.getLogger(__name__)
_GIVE_UP_AFTER_ERROR_S = 15.0
_INTERRUPTIONS = (KeyboardInterrupt, ClientClosedError, SearchStopped)


class Reporting:
    """Passes on candidates that have ended.

    Parameters
    ----------
    search : object
        As the user made it.
    settings : Settings
    journal : RunJournal or None

    Attributes
    ----------
    listener : RecordListener
        Of the recorder.
    """

    def __init__(
        self, search: Any, settings: Settings, journal: RunJournal | None
    ) -> None:
        self.listener = RecordListener()
        self._generation = 0 if journal is None else journal.generation
        self._callback: CandidateCallback | None = None
        self._tracking: LiveTracking | None = None
        self._logs_model = False
        if settings.on_candidate is None and settings.tracker is None:
            return
        described = (
            SearchDescription.of_search(search)
            if journal is None
            else SearchDescription.of_run(
                journal.folder.manifest, journal.folder.store.url
            )
        )
        self._url = described.url
        if settings.on_candidate is not None:
            self._callback = CandidateCallback(settings.on_candidate, journal)
        if settings.tracker is not None:
            self._logs_model = settings.tracker.log_model
            self._tracking = LiveTracking(settings.tracker, described)
        self.listener = CandidateReports(
            described.run_id,
            self._put,
            refit=described.refit,
            generation=self._generation,
            by_trials=is_optuna_search(search),
            ends={} if journal is None else _ends(journal),
        )

    def _put(self, result: CandidateResult, may_change: bool) -> None:  # noqa: FBT001 (a callback)
        if self._callback is not None and not may_change:
            self._callback.put(result)
        if self._tracking is not None:
            self._tracking.put(result)

    def fit_ended(self) -> None:
        """Report the last candidates, and wait for the callback.

        Warns
        -----
        CallbackWarning
            If it has raised an error.
        """
        if isinstance(self.listener, CandidateReports):
            self.listener.search_ended()
        callback, self._callback = self._callback, None
        if callback is not None:
            callback.close()

    def result_stored(self, fitted: Fitted, X: Any) -> None:
        """Have the tracker catch up, with the end of the search and its model.

        Parameters
        ----------
        fitted : Fitted
        X : array-like
            The data, of which some rows are the model's input example.

        Warns
        -----
        TrackerWarning
            If not all could be written.
        """
        score, params = sklearn_adapter.best_of(fitted.search)
        end = SearchEnd(
            state="stopped" if fitted.stopped else "finished",
            reason=fitted.stopped or "",
            best_score=score,
            best_params=None if params is None else shown(params),
        )
        self._close_tracking(end, self._model_of(fitted.search, X))

    def failed(self, error: BaseException) -> None:
        """Write how an error has ended the search."""
        state = "failed"
        if isinstance(error, RunCancelledError):
            state = "cancelled"
        elif isinstance(error, _INTERRUPTIONS) and not came_from_fit(error):
            state = "interrupted"
        text = f"{type(error).__name__}: {message_of(error)}"
        end = SearchEnd(state=state, reason=text)
        self._close_tracking(end, None, give_up_s=_GIVE_UP_AFTER_ERROR_S)

    def _model_of(self, search: Any, X: Any) -> LoggedModel | None:
        model = getattr(search, "best_estimator_", None)
        if not self._logs_model or model is None:
            return None
        try:
            pickled = cloudpickle.dumps((model, example_of(X)), protocol=5)
        except Exception as error:  # noqa: BLE001 (a model may hold anything)
            _logger.warning("the tracker gets no model: %s", message_of(error))
            return None
        return LoggedModel(pickled, self._generation)

    def _close_tracking(
        self,
        end: SearchEnd,
        model: LoggedModel | None,
        *,
        give_up_s: float | None = None,
    ) -> None:
        tracking, self._tracking = self._tracking, None
        if tracking is None:
            return
        problem = tracking.close(end, model, give_up_s=give_up_s)
        if problem:
            hint = (
                f"; SearchRun.attach({self._url!r}).to_mlflow(...) adds what is missing"
            )
            text = f"the tracker does not have all of the search: {problem}"
            warnings.warn(
                text + (hint if self._url else ""),
                TrackerWarning,
                stacklevel=user_stacklevel(),
            )


@contextmanager
def reporting(
    search: Any, settings: Settings, journal: RunJournal | None = None
) -> Iterator[Reporting]:
    """Report the candidates of a search while the block runs."""
    own = Reporting(search, settings, journal)
    try:
        yield own
    except BaseException as error:
        with suppress(CallbackWarning, TrackerWarning):  # the error counts
            own.fit_ended()
        with suppress(TrackerWarning):
            own.failed(error)
        raise


def _ends(journal: RunJournal) -> dict[tuple[int, str, int], float]:
    """Return when the fits of earlier drivers had ended."""
    ends: dict[tuple[int, str, int], float] = {}
    for event in journal.earlier.events():
        if isinstance(event, FitEvent):
            key = event.call, event.digest, event.split
            ends[key] = min(ends.get(key, event.time), event.time)
    return ends
