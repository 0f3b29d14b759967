"""The loop of a driver: it continues a run from its journal until the run has ended."""

from __future__ import annotations

import logging
import os
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dask_hpsearch.data import DataStore
from dask_hpsearch.exceptions import RunCancelledError
from dask_hpsearch.execution.settings import Settings
from dask_hpsearch.journal.events import StateEvent
from dask_hpsearch.journal.run_state import RunState
from dask_hpsearch.journal.segments import JournalReader
from dask_hpsearch.runs.create import Work, load_work
from dask_hpsearch.runs.driver.drive import drive_run
from dask_hpsearch.runs.driver.retry import PAUSE_S
from dask_hpsearch.runs.driver_process import describe_process
from dask_hpsearch.runs.states import note_state
from dask_hpsearch.safe_text import message_of
from dask_hpsearch.stores import open_store

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Client

    from dask_hpsearch.journal.folder import RunFolder
    from dask_hpsearch.runs.driver.request import DriverRequest
    from dask_hpsearch.runs.driver.retry import Retry

_logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class DriverLoop:
    """Drives a run in the process of a program, on this machine or in a pod.

    Attributes
    ----------
    folder : RunFolder
        Writable.
    request : DriverRequest
    connect : callable
        Returns a client, which is closed by the stack; None for a local cluster.
    retry : Retry, optional
        None: the first error ends the driver.
    heartbeat_timeout_s : float, optional
        As for `describe_process`.
    cluster : object, optional
        Can be scaled, which the driver does when the run has reached its cost limit.
    before_end : callable
        As for `drive_run`.
    """

    folder: RunFolder
    request: DriverRequest
    connect: Callable[[ExitStack], Client | None]
    retry: Retry | None = None
    heartbeat_timeout_s: float | None = None
    cluster: Any = None
    before_end: Callable[[], None] = lambda: None

    def run(self) -> Exception | None:
        """Drive the run to its end.

        Returns
        -------
        Exception or None
            The error that ended the run, which its journal has too.

        Raises
        ------
        Exception
            Without `retry`: the error that ended the driver.
        StoreError
            If the journal cannot be read or written.
        """
        retry = self.retry
        if retry is None:
            self._drive()
            return None
        while not self._has_ended():
            began = time.monotonic()
            try:
                self._drive()
            except RunCancelledError as error:
                return error
            except Exception as error:  # noqa: BLE001 (the journal gets it)
                retry.attempt_lasted(time.monotonic() - began)
                state = retry.end_state(error)
                if state is not None:
                    self._note_end(error, state)
                    return error
                _logger.warning(
                    "trying again after %s: %s", type(error).__name__, error
                )
                time.sleep(PAUSE_S)
            else:
                _logger.info("the run has its result")
        return None

    def give_up(self, error: Exception) -> None:
        """Note that the run has failed, unless it has ended.

        Raises
        ------
        StoreError
            If the journal cannot be written.
        """
        if not self._has_ended():
            self._note_end(error, RunState.FAILED)

    def _has_ended(self) -> bool:
        """Whether this driver has noted the end of the run."""
        folder = self.folder
        reader = JournalReader(folder.store, folder.run_id, folder.manifest.public)
        noted = [
            event
            for event in reader.read().notes()
            if isinstance(event, StateEvent)
            and event.process.driver == self.request.driver
        ]
        last = max(noted, key=lambda event: event.time, default=None)
        return last is not None and last.state.has_ended

    def _drive(self) -> None:
        """Drive the run once, from where its journal ends."""
        request, folder, retry = self.request, self.folder, self.retry
        settings = Settings.from_manifest(folder.manifest.settings, **request.limits)
        with ExitStack() as stack:
            data_store = stack.enter_context(DataStore.of(open_store(request.store)))
            work = _extended(load_work(folder, data_store), request.n_iter_more)
            client = self.connect(stack)
            drive_run(
                folder,
                work,
                data_store,
                replace(settings, client=client, cluster=self.cluster),
                generation=request.generation,
                driver=request.driver,
                ignored=request.ignored,
                will_retry=(lambda _: False) if retry is None else retry.will_retry,
                heartbeat_timeout_s=self.heartbeat_timeout_s,
                before_end=self.before_end,
            )

    def _note_end(self, error: Exception, state: RunState) -> None:
        text = f"{type(error).__name__}: {message_of(error)}"
        _logger.error("the run is %s: %s", state, text, exc_info=error)
        process = describe_process(self.request.driver, os.getpid(), own=True)
        note_state(
            self.folder,
            state,
            process,
            generation=self.request.generation,
            error=text,
        )


def _extended(work: Work, n_iter_more: int) -> Work:
    """Let a search draw more candidates than it was made for."""
    if n_iter_more:
        work.search.n_iter += n_iter_more
    return work
