"""`SearchRun`: a handle on a run, in this process or another, now or next week."""

from __future__ import annotations

import os
import time
import uuid
import warnings
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
from dask_hpsearch.journal.segments import JournalReader
from dask_hpsearch.progress import text
from dask_hpsearch.runs import views
from dask_hpsearch.runs.create import default_store
from dask_hpsearch.runs.driver.drive import REQUESTS, result_name
from dask_hpsearch.runs.generations import (
    begin_generation,
    generation_of,
    n_iter_more,
)
from dask_hpsearch.runs.launch.kubernetes_job import (
    JobWatch,
    end_if_stuck,
    forget_job,
    problem_with_driver,
)
from dask_hpsearch.runs.launch.launch import new_limits, start
from dask_hpsearch.runs.launch.local_process import check_other_processes
from dask_hpsearch.runs.logs import forget_logs, logs_of
from dask_hpsearch.runs.result import load_result, why_no_result, why_unstored
from dask_hpsearch.runs.states import (
    ENDED,
    UNDER_WAY,
    WITH_RESULT,
    note_state,
    signature_of,
    state_of,
    why_ended,
    why_not_stored,
)
from dask_hpsearch.stores import open_store

if TYPE_CHECKING:
    import pandas as pd
    from distributed import Client

    from dask_hpsearch.progress import ProgressSnapshot

Events = list[dict[str, Any]]
Names = list[str]
_POLL_S, _POLL_BUCKET_S = 0.2, 1.0
_READERS = 16


class SearchRun:
    """A search that runs, or has run, somewhere.

    Made by `DaskSearchCV.submit` or `SearchRun.attach`. It holds no result and no
    connection: everything is read from the run's folder when asked for.

    Parameters
    ----------
    folder : RunFolder
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._reader = JournalReader(
            folder.store, folder.run_id, folder.manifest.public
        )
        self._watch = JobWatch(folder)

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
            If the run has ended before its time, it goes on there.
        trust : bool
            Believe a run that another user made: its pickles can run anything.

        Raises
        ------
        RunNotFoundError
            If there is no run.
        UntrustedObjectError
            If another user made it and ``trust`` is False, or it was altered.

        Warns
        -----
        VersionSkewWarning
            If other versions wrote its result: progress can be seen, no more.
        """
        run = cls(RunFolder.open(open_store(url), trusted=trust))
        skew = run._folder.version_skew()
        if skew:
            warnings.warn(skew, VersionSkewWarning, stacklevel=2)
        if client is not None and run.state in ("interrupted", "failed"):
            run.resume(client)
        return run

    @classmethod
    def list(cls, store: str | os.PathLike[str] | None = None) -> list[Self]:
        """All runs of a store that this user made, oldest first.

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
        """Where the run is: what `attach` takes."""
        return self._folder.store.url

    @property
    def run_id(self) -> str:
        """The run's name within its store."""
        return self._folder.run_id

    @property
    def task_name(self) -> str:
        """The name that the user gave."""
        return self._folder.manifest.task_name

    @property
    def state(self) -> str:
        """How the run stands.

        "starting", "running", "finished", "stopped" (it has a result of what had
        finished), "cancelled", "failed" (see `logs`) or "interrupted" (its driver or
        its scheduler is gone: `resume` goes on).
        """
        return self._state(self._events())[0]

    @property
    def watch(self) -> JobWatch:
        """What looks whether the run's driver can run."""
        return self._watch

    def done(self) -> bool:
        """Whether the run has ended, well or not."""
        return self.state in ENDED

    def progress(self) -> ProgressSnapshot:
        """How far it is: fits done and known of, rate, ETA, best so far, cost so far."""
        return self.look()[0]

    def look(self) -> tuple[ProgressSnapshot, str]:
        """Return progress and state, of one reading of the journal."""
        events = self._events()
        state, _ = self._state(events)
        refit = self._folder.manifest.traits["refit"]
        snapshot = views.progress(
            events,
            refit=refit,
            ended=state in ENDED,
            reason=why_ended(events, state, generation=generation_of(self._folder)),
        )
        return snapshot, state

    def best(self) -> tuple[float | None, dict[str, Any] | None]:
        """Best mean score so far, and its parameters."""
        snapshot = self.progress()
        params = None if snapshot.best_params is None else dict(snapshot.best_params)
        return snapshot.best_score, params

    def trials(self) -> pd.DataFrame:
        """Candidates of which fits have finished, with columns as in ``cv_results_``."""
        return views.trials(self._events())

    def wait(self, timeout: float | None = None, *, progress: bool = False) -> Self:
        """Wait for the run's end; Ctrl-C ends only the waiting.

        Parameters
        ----------
        timeout : float, optional
            Seconds.
        progress : bool
            Show how far it is meanwhile, as ``fit(progress=True)`` does.

        Raises
        ------
        TimeoutError
            After ``timeout`` seconds; the run goes on.
        PodStartError
            If its driver is to be a pod, and that cannot start.
        """
        from dask_hpsearch.runs.follow import look_on  # it knows this module

        if progress:
            look_on(self, timeout)
            return self
        deadline = None if timeout is None else time.monotonic() + timeout
        # Every look at a bucket takes a few requests, which cost time and money.
        pause_s = _POLL_S if self._folder.store.local_path() else _POLL_BUCKET_S
        while (state := self.state) not in ENDED:
            self._watch.look(state)
            if deadline is not None and time.monotonic() > deadline:
                msg = f"run {self.run_id} is still {state} after {timeout:g} s"
                raise TimeoutError(msg)
            time.sleep(pause_s)
        return self

    def result(self, timeout: float | None = None, *, estimator: bool = True) -> Any:
        """Return the fitted search, once the run has ended.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait for the end.
        estimator : bool
            Whether to read the refitted estimator too: False reads what is small.

        Raises
        ------
        RunFailedError, RunCancelledError
            If there is none.
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
        """Return the result, and why it covers only a part, if it does; as `result`."""
        self._folder.check_versions()
        self.wait(timeout)
        try:
            return load_result(
                self._folder, generation_of(self._folder), estimator=estimator
            )
        except ObjectNotFoundError as error:
            events = self._events()
            state, text = self._state(events)
            if state in WITH_RESULT:
                why = why_not_stored(events, generation=generation_of(self._folder))
                raise why_unstored(
                    self._folder, state, why, estimator=estimator
                ) from error
            raise why_no_result(self._folder, state, text) from error

    def stop(self) -> Self:
        """Ask for an end with what has finished: a result of that, refitted.

        A run whose driver is gone gets one for that alone: it runs no fit but the refit.
        Nothing is done if the run has a result.
        """
        if self.state in UNDER_WAY:
            return self._request("stopped")
        if self.state not in WITH_RESULT:
            self._folder.check_versions()
            check_other_processes(self._folder.store, None)
            earlier = self._requests()
            self._request("stopped")
            self._start(None, generation_of(self._folder), ignored=earlier)
        return self

    def cancel(self) -> Self:
        """Ask the driver to end now, without a result.

        A run whose driver is gone is marked as cancelled. Nothing is done if the run has
        a result.
        """
        if self.state in WITH_RESULT:
            return self
        # A driver that is thought to be gone, on another machine, hears of it too.
        self._request("cancelled")
        state = self.state
        stuck = end_if_stuck(self.run_id) if state == "starting" else None
        if stuck is not None or state not in UNDER_WAY:
            signature = signature_of(stuck or uuid.uuid4().hex, os.getpid(), own=False)
            generation = generation_of(self._folder)
            note_state(self._folder, "cancelled", signature, generation=generation)
        return self

    def resume(
        self,
        client: Client | None = None,
        *,
        max_time: float | None = None,
        fit_timeout: float | None = None,
        max_cost: float | None = None,
    ) -> Self:
        """Go on where the journal ends, in a new driver process on this machine.

        Nothing is done if the run is under way or finished.

        Parameters
        ----------
        client : distributed.Client, optional
            Default: a local cluster of the driver's own.
        max_time, fit_timeout, max_cost : float, optional
            Limits for what is still to be done, as `DaskSearchCV` has them; ``math.inf`` is
            none. Default: those that the run was begun with, counted anew.

        Raises
        ------
        RunFailedError
            If limits are given and the run is under way: they cannot change any more.
        """
        limits = new_limits(
            self._folder,
            client,
            max_time_s=max_time,
            fit_timeout_s=fit_timeout,
            max_cost_usd=max_cost,
        )
        self._folder.check_versions()
        state = self.state
        if state in UNDER_WAY and limits:
            msg = (
                f"run {self.run_id} is {state}, with the limits that it has: stop() it "
                "first, then resume() with others"
            )
            raise RunFailedError(msg)
        if state in UNDER_WAY or state == "finished":
            return self
        check_other_processes(self._folder.store, client)
        generation = generation_of(self._folder)
        if state == "stopped":  # its result stays; the whole one is another
            generation = begin_generation(self._folder, 0)
        self._start(client, generation, limits=limits)
        return self

    def extend(self, n_iter: int, client: Client | None = None) -> Self:
        """Let a finished run draw more candidates; those it has are not run again.

        Parameters
        ----------
        n_iter : int
            How many more.
        client : distributed.Client, optional
            Default: a local cluster of the driver's own.
        """
        if n_iter < 1:
            msg = f"n_iter must be a positive number of further candidates, got {n_iter!r}"
            raise ValueError(msg)
        kind = self._folder.manifest.search_class
        if not self._folder.manifest.traits["extendable"]:
            msg = f"a {kind} cannot be extended: it has no n_iter, or none that counts"
            raise UnsupportedSearchError(msg)
        if self.state not in ("finished", "stopped"):
            msg = f"run {self.run_id} is {self.state}: wait for its end, or resume it"
            raise RunFailedError(msg)
        self._folder.check_versions()
        check_other_processes(self._folder.store, client)
        self._start(client, begin_generation(self._folder, n_iter))
        return self

    def logs(self) -> str:
        """Return what the run's drivers wrote, and the pods of a cluster on Kubernetes.

        Of each the end, also of those that are gone; of pods as of some seconds ago.
        """
        texts = logs_of(self._folder.store, self.run_id)
        told = problem_with_driver(self.run_id)
        if told:
            texts["kubernetes"] = f"{told}\n"
        return "\n".join(f"== {name}\n{text}" for name, text in texts.items())

    def delete(self) -> None:
        """Delete the run's folder.

        Raises
        ------
        RunFailedError
            If it still runs.
        """
        if self.state in UNDER_WAY:
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
            "state": state,
            "fits": f"{snapshot.fits_done} of {snapshot.fits_total}",
            "best score": best,
            "best parameters": str(dict(snapshot.best_params or {}))[:300],
            "URL": self.url,
        }
        if snapshot.cost_usd is not None:
            rows["cost"] = text.cost(snapshot.cost_usd)
        return views.as_html(rows)

    def _events(self) -> Events:
        return self._reader.events()

    def _state(self, events: Events) -> tuple[str, str]:
        generation = generation_of(self._folder)
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
        start(
            self._folder,
            client,
            generation=generation,
            n_iter_more=n_iter_more(self._folder),
            ignored=self._requests() if ignored is None else ignored,
            limits=limits,
        )

    def _requests(self) -> Names:
        return [one.name for one in self._folder.store.list(REQUESTS)]

    def _request(self, what: str) -> Self:
        self._folder.store.create(f"{REQUESTS}{what}-{uuid.uuid4().hex[:12]}", b"")
        return self
