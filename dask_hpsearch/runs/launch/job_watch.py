"""Watches the Job of a run's driver, on the machine that has started it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from dask_hpsearch import paths
from dask_hpsearch.concurrency import poll_until, run_coroutine
from dask_hpsearch.exceptions import HPSearchError, PodStartError
from dask_hpsearch.journal.run_state import RunState
from dask_hpsearch.runs.driver_process import describe_process
from dask_hpsearch.runs.generations import current_generation
from dask_hpsearch.runs.states import note_state

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dask_hpsearch.clusters.kubernetes.diagnosis import Problem
    from dask_hpsearch.journal.folder import RunFolder

_logger = logging.getLogger(__name__)
_POLL_S = 5.0
_STUCK_POLLS = 2


@dataclass(frozen=True, slots=True)
class StartedJob:
    """A Job that this machine has started, and how it connects to Kubernetes.

    Attributes
    ----------
    job : str
    connection : dict
        As `api.connected` takes it.
    driver : str
        Name of the driver.
    """

    job: str
    connection: dict[str, Any]
    driver: str

    def save(self, run_id: str) -> None:
        """Write the file that `of_run` reads; a run does not depend on it."""
        path = _path(run_id)
        content = {"job": self.job, "where": self.connection, "driver": self.driver}
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.unlink(missing_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(content, file)
        except OSError as error:
            _logger.debug("the connection to %s is not saved: %s", self.job, error)

    @classmethod
    def of_run(cls, run_id: str) -> Self | None:
        """Return the Job of a run's driver; None if this machine has not started one."""
        try:
            content = json.loads(_path(run_id).read_text("utf-8"))
            return cls(content["job"], content["where"], content["driver"])
        except (KeyError, OSError, TypeError, ValueError):
            return None

    def problem(self) -> Problem | None:
        """Return the problem that keeps the Job's pod from running, if there is one."""
        from dask_hpsearch.clusters.kubernetes import job_control

        try:
            found: Problem | None = run_coroutine(
                lambda: job_control.find_problem(self.job, self.connection)
            )
        except HPSearchError as error:
            _logger.debug("the state of the driver's Job is not known: %s", error)
            return None
        return found

    def delete(self) -> None:
        """Delete the Job, unless Kubernetes refuses that."""
        from dask_hpsearch.clusters.kubernetes import job_control

        with contextlib.suppress(HPSearchError):
            run_coroutine(lambda: job_control.delete_job(self.job, self.connection))


class JobWatch:
    """Watches, while a run is under way, whether its driver's pod can run.

    Parameters
    ----------
    folder : RunFolder

    Attributes
    ----------
    text : str
        The problem that keeps the driver from running; empty if there is none.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._next_poll = time.monotonic() + _POLL_S
        self._logged = ""
        self._stuck_polls = 0
        self.text = ""

    def wait_for_end(
        self, look: Callable[[], RunState], timeout: float | None, *, interval: float
    ) -> RunState:
        """Poll the run and its Job until the run has ended; return its state.

        Parameters
        ----------
        look : callable
            Returns the run's present state.
        timeout : float or None
            Seconds; None: no limit.
        interval : float
            Seconds between two calls of ``look``.

        Raises
        ------
        PodStartError
            If the pod of the driver cannot start.
        TimeoutError
            After ``timeout`` seconds.
        """

        def poll() -> RunState:
            state = look()
            self.poll(state)
            return state

        return poll_until(
            poll,
            lambda state: state.has_ended,
            timeout=timeout,
            interval=interval,
            on_timeout=lambda state: TimeoutError(
                f"run {self._folder.run_id} is still {state} after {timeout:g} s"
            ),
        )

    def poll(self, state: RunState) -> None:
        """Look at the Job, if it is time.

        Raises
        ------
        PodStartError
            If the pod cannot start; with the reason that Kubernetes gives.
        """
        if not state.is_under_way or time.monotonic() < self._next_poll:
            return
        self._next_poll = time.monotonic() + _POLL_S
        job = StartedJob.of_run(self._folder.run_id)
        problem = None if job is None else job.problem()
        self.text = "" if problem is None else problem.message
        if job is None or problem is None:
            self._stuck_polls = 0
            return
        if problem.message != self._logged:
            self._logged = problem.message
            _logger.warning("the driver does not run: %s", problem.message)
        if problem.reason == "JobFailed":
            self._note_failure(job, problem.message)
            return
        self._stuck_polls += problem.outlook in ("late", "stuck")
        if self._stuck_polls >= _STUCK_POLLS:
            self._stuck_polls = 0
            msg = (
                f"the driver of run {self._folder.run_id} does not start: "
                f"{problem.message}. Call cancel(), then resume(client) to try again"
            )
            raise PodStartError(msg)

    def _note_failure(self, job: StartedJob, text: str) -> None:
        """Note the run's end, since no driver is left to do so."""
        with contextlib.suppress(HPSearchError):
            note_state(
                self._folder,
                RunState.FAILED,
                describe_process(job.driver, 0, own=True),
                generation=current_generation(self._folder),
                error=text,
            )


def driver_problem(run_id: str) -> str:
    """Return the problem that keeps a run's driver from running; empty if none is known."""
    job = StartedJob.of_run(run_id)
    problem = None if job is None else job.problem()
    return "" if problem is None else problem.message


def delete_if_stuck(run_id: str) -> str | None:
    """Delete a Job whose pod does not start; return its driver's name if that was so."""
    job = StartedJob.of_run(run_id)
    if job is None or job.problem() is None:
        return None
    job.delete()
    return job.driver


def forget_job(run_id: str) -> None:
    """Forget the Job of a run's driver."""
    _path(run_id).unlink(missing_ok=True)


def _path(run_id: str) -> Path:
    return paths.data_folder() / "drivers" / f"{run_id}.job"
