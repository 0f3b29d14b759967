"""`SearchRun`: a handle on a run, from any process.

Reading a run needs no Dask and no scikit-learn search: modules that start a driver are imported
by the methods that need them.
"""

from __future__ import annotations

import os
import threading
import uuid
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self

from dask_hpsearch.exceptions import (
    ObjectNotFoundError,
    RunFailedError,
    RunNotFoundError,
    UnsupportedSearchError,
    UntrustedObjectError,
    VersionSkewWarning,
)
from dask_hpsearch.journal.folder import RUNS, RunFolder
from dask_hpsearch.journal.run_state import RunState
from dask_hpsearch.journal.segments import JournalReader
from dask_hpsearch.progress import text
from dask_hpsearch.progress.environment import in_kernel
from dask_hpsearch.runs import views
from dask_hpsearch.runs.driver_process import describe_process
from dask_hpsearch.runs.exports import RunExports
from dask_hpsearch.runs.generations import (
    begin_generation,
    current_generation,
    n_iter_more,
)
from dask_hpsearch.runs.launch.job_watch import (
    JobWatch,
    delete_if_stuck,
    driver_problem,
    forget_job,
)
from dask_hpsearch.runs.logs import forget_logs, logs_of
from dask_hpsearch.runs.requests import add_request, list_requests
from dask_hpsearch.runs.result import (
    load_result,
    result_name,
    why_no_result,
    why_unstored,
)
from dask_hpsearch.runs.states import note_state, state_of, why_ended, why_not_stored
from dask_hpsearch.runs.stores import default_store
from dask_hpsearch.stores import open_store

if TYPE_CHECKING:
    import pandas as pd
    from distributed import Client

    from dask_hpsearch.journal.events import Event
    from dask_hpsearch.progress import ProgressSnapshot
    from dask_hpsearch.runs.history import RunHistory

# Within the class, `list` is its method.
Events = list["Event"]
Names = list[str]
_POLL_S, _POLL_BUCKET_S = 0.2, 1.0
_READERS = 16


class SearchRun(RunExports):
    """A search that runs, or has run, in any process.

    `DaskSearchCV.submit` and `SearchRun.attach` return one. It has no result and no
    connection: each method reads the run's folder.

    Parameters
    ----------
    folder : RunFolder
    cluster : Dask cluster, optional
        Which `watch` can scale.
    """

    def __init__(self, folder: RunFolder, *, cluster: Any = None) -> None:
        super().__init__(folder)
        self._cluster = None if cluster is None else weakref.ref(cluster)
        self._reader = JournalReader(
            folder.store, folder.run_id, folder.manifest.public
        )
        self._reading = threading.Lock()
        self._progress: views.RunProgress | None = None
        self._job_watch = JobWatch(folder)

    @classmethod
    def attach(
        cls,
        url: str | os.PathLike[str],
        client: Client | None = None,
        *,
        trust: bool = False,
    ) -> Self:
        """Find a run by its URL.

        Parameters
        ----------
        url : str or Path
            The run's folder, as `url` gives it.
        client : distributed.Client, optional
            If the run was interrupted or has failed, it is resumed there.
        trust : bool
            Trust a run that another user made: its pickles can run any code.

        Raises
        ------
        RunNotFoundError
            If there is no run.
        UntrustedObjectError
            If another user made it and ``trust`` is False, or it was altered.

        Warns
        -----
        VersionSkewWarning
            If other versions wrote the run: only its progress can be read.
        """
        run = cls(RunFolder.open(open_store(url), trusted=trust))
        skew = run._folder.version_skew()
        if skew:
            warnings.warn(skew, VersionSkewWarning, stacklevel=2)
        if client is not None and run.state in (RunState.INTERRUPTED, RunState.FAILED):
            run.resume(client)
        return run

    @classmethod
    def list(cls, store: str | os.PathLike[str] | None = None) -> list[Self]:
        """Return the runs of a store that this user made, oldest first.

        Parameters
        ----------
        store : str or Path, optional
            Default: the user's own store on this machine.
        """
        opened = default_store() if store is None else open_store(store)
        runs = opened.child(RUNS)
        names = sorted({one.name.split("/")[0] for one in runs.list("")})

        def open_own(name: str) -> RunFolder | None:
            try:
                return RunFolder.open(runs.child(name))
            except (RunNotFoundError, UntrustedObjectError):
                return None

        with ThreadPoolExecutor(_READERS) as threads:
            return [cls(one) for one in threads.map(open_own, names) if one is not None]

    @property
    def url(self) -> str:
        """The run's folder, as `attach` takes it."""
        return self._folder.store.url

    @property
    def task_name(self) -> str:
        """The ``task_name`` of the search."""
        return self._folder.manifest.task_name

    @property
    def data_pins(self) -> dict[str, Any]:
        """What identifies X, y and the other data: digests, or pinned objects of URLs."""
        return dict(self._folder.manifest.data)

    @property
    def state(self) -> RunState:
        """The state of the run, a string.

        "starting", "running", "finished", "stopped" (its result has the candidates that
        had finished), "cancelled", "failed" (see `logs`) or "interrupted" (its driver or
        its scheduler was lost: see `resume`).
        """
        return self._state(self._notes())[0]

    def done(self) -> bool:
        """Whether the run has ended, successfully or not."""
        return self.state.has_ended

    def progress(self) -> ProgressSnapshot:
        """Return the progress: fits, rate, remaining time, best candidate and cost so far."""
        return self.look()[0]

    def look(self) -> tuple[ProgressSnapshot, RunState]:
        """Read the journal once; return progress and state."""
        with self._reading:
            journal = self._reader.read()
            notes = journal.notes()
            state, _ = self._state(notes)
            reason = why_ended(
                notes, state, generation=current_generation(self._folder)
            )
            if self._progress is None:
                refit = self._folder.manifest.traits["refit"]
                self._progress = views.RunProgress(refit=refit)
            self._progress.update(journal.objects)
            return self._progress.snapshot(ended=state.has_ended, reason=reason), state

    def best(self) -> tuple[float | None, dict[str, Any] | None]:
        """Return the best mean score so far, and its parameters."""
        snapshot = self.progress()
        params = None if snapshot.best_params is None else dict(snapshot.best_params)
        return snapshot.best_score, params

    def trials(self) -> pd.DataFrame:
        """Return candidates with finished fits, with the columns of ``cv_results_``."""
        with self._reading:
            events = self._reader.events()
        return views.trials(events)

    def history(self) -> RunHistory:
        """Return candidates, fits with their times, and the cluster's sizes so far."""
        from dask_hpsearch.runs.history import history_of

        with self._reading:
            events = self._reader.events()
        return history_of(events, refit=self._folder.manifest.traits["refit"])

    def wait(self, timeout: float | None = None, *, progress: bool = False) -> Self:
        """Wait until the run has ended; Ctrl-C leaves the run going.

        Parameters
        ----------
        timeout : float, optional
            Seconds.
        progress : bool
            Display the progress, as ``fit(progress=True)`` does.

        Raises
        ------
        TimeoutError
            After ``timeout`` seconds; the run continues.
        PodStartError
            If the pod of its driver cannot start.
        """
        if progress:
            from dask_hpsearch.runs.watch import watch

            watch(self, timeout)
            return self
        # Each poll of a bucket takes a few requests, which cost time and money.
        interval = _POLL_S if self._folder.store.local_path() else _POLL_BUCKET_S
        self._job_watch.wait_for_end(lambda: self.state, timeout, interval=interval)
        return self

    def watch(self, cluster: Any = None) -> None:
        """Display the run while it goes on.

        In a notebook, that is a view which follows the run to its end; this method returns
        at once. Elsewhere it is the text of ``wait(progress=True)``, up to the end of the
        run; Ctrl-C leaves the run going.

        Parameters
        ----------
        cluster : Dask cluster, optional
            The run's cluster, to be scaled from the view. Default: that of the client
            with which this process has submitted the run.
        """
        if not in_kernel():
            self.wait(progress=True)
            return
        from dask_hpsearch.runs.notebook_view import start_view

        if cluster is None and self._cluster is not None:
            cluster = self._cluster()
        start_view(self, cluster)

    def result(self, timeout: float | None = None, *, estimator: bool = True) -> Any:
        """Return the fitted search, once the run has ended.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait for the end.
        estimator : bool
            Whether to load the refitted estimator, which may be large.

        Raises
        ------
        RunFailedError, RunCancelledError
            If there is no result.
        VersionSkewError
            If it was written by other versions.
        UntrustedObjectError
            If it was altered.
        TimeoutError
        """
        return self.outcome(timeout, estimator=estimator)[0]

    def outcome(
        self, timeout: float | None = None, *, estimator: bool = True
    ) -> tuple[Any, str | None]:
        """Return the result as `result` does, and why it was stopped early, if it was."""
        self._folder.check_versions()
        self.wait(timeout)
        try:
            return load_result(
                self._folder, current_generation(self._folder), estimator=estimator
            )
        except ObjectNotFoundError as error:
            notes = self._notes()
            state, text = self._state(notes)
            if state.has_result:
                why = why_not_stored(notes, generation=current_generation(self._folder))
                raise why_unstored(
                    self._folder, state, why, estimator=estimator
                ) from error
            raise why_no_result(self._folder, state, text) from error

    def stop(self) -> Self:
        """Stop the run: its result, with a refit, has the candidates that have finished.

        A run without a driver gets one that runs no fit except the refit. A run that has
        a result stays as it is.
        """
        if self.state.is_under_way:
            add_request(self._folder.store, RunState.STOPPED)
        elif not self.state.has_result:
            from dask_hpsearch.runs.launch.local_process import check_other_processes

            self._folder.check_versions()
            check_other_processes(self._folder.store, None)
            earlier = list_requests(self._folder.store)
            add_request(self._folder.store, RunState.STOPPED)
            self._start(None, current_generation(self._folder), ignored=earlier)
        return self

    def cancel(self) -> Self:
        """Cancel the run: it ends now, without a result.

        A run without a driver is noted as cancelled. A run that has a result stays as it
        is.
        """
        if self.state.has_result:
            return self
        # A driver on another machine that only seems to be lost gets the request too.
        add_request(self._folder.store, RunState.CANCELLED)
        state = self.state
        stuck = delete_if_stuck(self.run_id) if state == RunState.STARTING else None
        if stuck is not None or not state.is_under_way:
            note_state(
                self._folder,
                RunState.CANCELLED,
                describe_process(stuck or uuid.uuid4().hex, os.getpid(), own=False),
                generation=current_generation(self._folder),
            )
        return self

    def resume(
        self,
        client: Client | None = None,
        *,
        max_time: float | None = None,
        fit_timeout: float | None = None,
        max_cost: float | None = None,
        stop_score: float | None = None,
        patience: float | None = None,
    ) -> Self:
        """Continue the run from its journal, in a new driver.

        A run that is under way or finished stays as it is.

        Parameters
        ----------
        client : distributed.Client, optional
            Default: the driver starts a local cluster.
        max_time, fit_timeout, max_cost : float, optional
            Limits for the rest of the run, as for `DaskSearchCV`; ``math.inf`` removes
            one. Default: the limits that the run was created with, counted from now.
        stop_score, patience : float, optional
            As for `DaskSearchCV`, for the whole run with the candidates that it has;
            ``math.inf`` removes one. Default: those that the run was created with.

        Raises
        ------
        RunFailedError
            If limits are given and the run is under way: they can no longer change.
        """
        from dask_hpsearch.runs.launch.launch import new_limits
        from dask_hpsearch.runs.launch.local_process import check_other_processes

        limits = new_limits(
            self._folder,
            client,
            max_time_s=max_time,
            fit_timeout_s=fit_timeout,
            max_cost_usd=max_cost,
            stop_score=stop_score,
            patience=patience,
        )
        self._folder.check_versions()
        state = self.state
        if state.is_under_way and limits:
            msg = (
                f"run {self.run_id} is {state}, so its limits cannot change: call stop() "
                "first, then resume() with new limits"
            )
            raise RunFailedError(msg)
        if state.is_under_way or state == RunState.FINISHED:
            return self
        check_other_processes(self._folder.store, client)
        generation = current_generation(self._folder)
        if state == RunState.STOPPED:  # its result stays, beside the complete one
            generation = begin_generation(self._folder, 0)
        self._start(client, generation, limits=limits)
        return self

    def extend(self, n_iter: int, client: Client | None = None) -> Self:
        """Let a finished run draw more candidates; finished fits do not run again.

        Parameters
        ----------
        n_iter : int
            Number of further candidates.
        client : distributed.Client, optional
            Default: the driver starts a local cluster.
        """
        from dask_hpsearch.runs.launch.local_process import check_other_processes

        if n_iter < 1:
            msg = f"n_iter must be a positive number of further candidates, got {n_iter!r}"
            raise ValueError(msg)
        kind = self._folder.manifest.search_class
        if not self._folder.manifest.traits["extendable"]:
            msg = (
                f"a {kind} cannot be extended: that needs one n_iter for the whole search; "
                "submit a new search"
            )
            raise UnsupportedSearchError(msg)
        if not self.state.has_result:
            msg = f"run {self.run_id} is {self.state}: wait for its end, or resume it"
            raise RunFailedError(msg)
        self._folder.check_versions()
        check_other_processes(self._folder.store, client)
        self._start(client, begin_generation(self._folder, n_iter))
        return self

    def logs(self) -> str:
        """Return the logs of the run's drivers, and of the pods of a Kubernetes cluster.

        Logs of drivers and pods that no longer exist are included. Long logs of pods are
        cut at their start, and are up to half a minute old. Empty for a run that only `fit`
        has driven: it writes to the output of its own process.
        """
        texts = logs_of(self._folder.store, self.run_id)
        problem = driver_problem(self.run_id)
        if problem:
            texts["kubernetes"] = f"{problem}\n"
        return "\n".join(f"== {name}\n{text}" for name, text in texts.items())

    def delete(self) -> None:
        """Delete the run's folder.

        Raises
        ------
        RunFailedError
            If it is under way.
        """
        if self.state.is_under_way:
            msg = f"run {self.run_id} still runs: cancel() it first"
            raise RunFailedError(msg)
        self._folder.delete()
        forget_logs(self._folder.store, self.run_id)
        forget_job(self.run_id)

    def __repr__(self) -> str:
        return f"<SearchRun {self.run_id} {self.state} {self.url}>"

    def _repr_html_(self) -> str:
        snapshot, state = self.look()
        best = "" if snapshot.best_score is None else f"{snapshot.best_score:.4g}"
        rows = {
            "run": self.run_id,
            "name": self.task_name,
            "state": str(state),
            "fits": f"{snapshot.fits_done} of {snapshot.fits_total}",
            "best score": best,
            "best parameters": str(dict(snapshot.best_params or {}))[:300],
            "URL": self.url,
        }
        if snapshot.cost_usd is not None:
            rows["cost"] = text.cost(snapshot.cost_usd)
        return views.as_html(rows)

    def _events_so_far(self) -> tuple[Events, bool]:
        with self._reading:
            events = self._reader.events()
        return events, self._state(events)[0].has_ended

    def _notes(self) -> Events:
        """Return the events that the run's state follows from."""
        with self._reading:
            return self._reader.read().notes()

    def _state(self, events: Events) -> tuple[RunState, str]:
        generation = current_generation(self._folder)
        name = result_name(generation, estimator=True)
        return state_of(
            events,
            generation=generation,
            created=self._folder.manifest.created,
            has_result=self._folder.exists(name),
        )

    def _start(
        self,
        client: Client | None,
        generation: int,
        *,
        ignored: Names | None = None,
        limits: dict[str, Any] | None = None,
    ) -> None:
        from dask_hpsearch.runs.launch.launch import start_driver

        requests = list_requests(self._folder.store)
        start_driver(
            self._folder,
            client,
            generation=generation,
            n_iter_more=n_iter_more(self._folder),
            ignored=requests if ignored is None else ignored,
            limits=limits,
        )
