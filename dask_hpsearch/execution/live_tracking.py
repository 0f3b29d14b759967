"""Writes candidates to a tracker while the search runs, and catches up at the end.

The search never waits for the tracker while it runs: a thread sends what there is to a
process that speaks to MLflow. If that fails, it is tried again, at longer and longer
intervals. At the end of the search it is tried until nothing has been written for a while.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from dask_hpsearch.exceptions import TrackerError
from dask_hpsearch.exports.mlflow_process import LoggedModel, MlflowProcess
from dask_hpsearch.exports.mlflow_settings import check_reachable
from dask_hpsearch.journal.serialization import shown

if TYPE_CHECKING:
    from dask_hpsearch.exports.candidate_result import CandidateResult
    from dask_hpsearch.exports.mlflow_settings import (
        MlflowTracker,
        SearchDescription,
        SearchEnd,
    )

_logger = logging.getLogger(__name__)
_BATCH = 20
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _LONGEST_LAST_PAUSE_S = 1.0, 60.0, 5.0
_MODEL_S, _MODEL_ATTEMPTS = 120.0, 2


class LiveTracking:
    """Tracks one search.

    Parameters
    ----------
    settings : MlflowTracker
        Resolved.
    search : SearchDescription
    """

    def __init__(self, settings: MlflowTracker, search: SearchDescription) -> None:
        self._settings = settings
        self._search = search
        self._give_up_s = settings.give_up_s
        self._waiting: deque[CandidateResult] = deque()
        self._end: SearchEnd | None = None
        self._model: LoggedModel | None = None
        self._problem = self._model_problem = ""
        self._n_model_errors = 0
        self._given_up = False
        self._last_success = time.monotonic()
        self._changed = threading.Condition()
        self._process: MlflowProcess | None = None
        self._thread = threading.Thread(
            target=self._run, name="dask-hpsearch-tracker", daemon=True
        )
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """The process that speaks to MLflow, if there is one."""
        process = self._process
        return None if process is None else process.pid

    @property
    def _is_written(self) -> bool:
        """Whether the end of the search, and all before it, is written."""
        return self._end is None

    def put(self, result: CandidateResult) -> None:
        """Write a candidate soon."""
        with self._changed:
            self._waiting.append(replace(result, params=shown(result.params)))
            self._changed.notify_all()

    def close(
        self,
        end: SearchEnd,
        model: LoggedModel | None = None,
        *,
        give_up_s: float | None = None,
    ) -> str:
        """Write the rest and the end of the search; wait while the tracker makes progress.

        Parameters
        ----------
        end : SearchEnd
        model : LoggedModel, optional
        give_up_s : float, optional
            Wait no longer than this without any success, whatever the settings say.

        Returns
        -------
        str
            Why not all is written; empty if it is.
        """
        if give_up_s is not None:
            self._give_up_s = min(give_up_s, self._give_up_s)
        with self._changed:
            self._end, self._model = end, model
            self._last_success = time.monotonic()
            self._changed.notify_all()
        try:
            while self._thread.is_alive() and not self._is_late():
                self._thread.join(0.1)
        except KeyboardInterrupt:
            self._problem = "waiting for it was interrupted (Ctrl-C)"
        self._give_up()
        if self._is_written:
            return self._model_problem
        return self._problem or "it did not answer in time"

    def _is_late(self) -> bool:
        return time.monotonic() - self._last_success > self._give_up_s

    def _give_up(self) -> None:
        with self._changed:
            self._given_up = True
            self._changed.notify_all()
            process = self._process
        if process is not None:
            process.kill()  # the thread closes it

    # --- in the thread ------------------------------------------------------------------

    def _run(self) -> None:
        pause_s = _FIRST_PAUSE_S
        try:
            while not self._given_up:
                try:
                    if self._step():
                        return
                    pause_s = _FIRST_PAUSE_S
                except TrackerError as error:
                    self._note_problem(str(error))
                    self._drop_process()
                    self._pause(pause_s)
                    pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        except Exception as error:  # the search goes on, whatever this is
            _logger.exception("the tracker has failed")
            self._note_problem(f"{type(error).__name__}: {error}")
        finally:
            self._drop_process()

    def _step(self) -> bool:
        """Write some of what there is; return whether all is written and the search ended."""
        process = self._connected()
        with self._changed:
            while not (self._waiting or self._end is not None or self._given_up):
                self._changed.wait()
            batch = [self._waiting[at] for at in range(min(_BATCH, len(self._waiting)))]
            end, model = self._end, self._model
        if self._given_up:
            return False
        if batch:
            process.write(batch)
            with self._changed:
                for _ in batch:
                    self._waiting.popleft()
        elif end is not None:
            if model is not None:
                self._log_model(process, model)
            process.end(end)
            self._end = None
        self._last_success = time.monotonic()
        return self._end is None and end is not None

    def _connected(self) -> MlflowProcess:
        if self._process is None:
            # MLflow's own process takes seconds to find that out.
            check_reachable(self._settings.tracking_uri)
            process = MlflowProcess(self._settings, self._search)
            with self._changed:
                self._process = process
        return self._process

    def _log_model(self, process: MlflowProcess, model: LoggedModel) -> None:
        """Log the model; if that fails twice, leave it out."""
        self._last_success = time.monotonic() + _MODEL_S
        try:
            process.log_model(model)
        except TrackerError as error:
            self._n_model_errors += 1
            if self._n_model_errors < _MODEL_ATTEMPTS:
                raise
            self._model_problem = f"its model is not logged: {error}"
        self._model = None

    def _drop_process(self) -> None:
        with self._changed:
            process, self._process = self._process, None
        if process is not None:
            process.close()

    def _pause(self, seconds: float) -> None:
        """Wait before the next attempt; the end of the search comes soon after the last."""
        with self._changed:
            if self._end is None:
                self._changed.wait_for(
                    lambda: self._given_up or self._end is not None, seconds
                )
            else:
                self._changed.wait_for(
                    lambda: self._given_up, min(seconds, _LONGEST_LAST_PAUSE_S)
                )

    def _note_problem(self, text: str) -> None:
        if not self._problem:
            _logger.info("the tracker is tried again: %s", text)
        self._problem = text
