"""Drives a run as often as it takes: what passes by itself is waited for."""

from __future__ import annotations

import logging
import os
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from dask_hpsearch.data import DataStore
from dask_hpsearch.exceptions import (
    ClientClosedError,
    ClusterNotFoundError,
    ClusterUnreachableError,
    KubernetesUnreachableError,
    NoWorkersError,
    PodStartError,
    RunCancelledError,
    SearchStopped,
    StoreError,
)
from dask_hpsearch.execution.settings import Settings
from dask_hpsearch.journal.segments import JournalReader
from dask_hpsearch.runs.create import Work, load
from dask_hpsearch.runs.driver.drive import drive_run
from dask_hpsearch.runs.states import ENDED, note_state, signature_of
from dask_hpsearch.safe_text import message_of
from dask_hpsearch.stores import open_store

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Client

    from dask_hpsearch.journal.folder import RunFolder

Step = Literal["again", "interrupted", "failed"]
_PAUSE_S = 2.0
# How long problems may last, one after the other; after as long without any they are over.
_PROBLEMS_S = 3600.0
_CALM_S = 300.0
_PASSING = (
    ClientClosedError,
    ClusterUnreachableError,
    KubernetesUnreachableError,
    NoWorkersError,
    PodStartError,  # the next scheduler's
)
_logger = logging.getLogger(__name__)


class PodEnds(BaseException):
    """Kubernetes ends the pod: another one goes on."""


@dataclass(slots=True)
class DriverLoop:
    """Drives a run from where its journal ends, on the scheduler that there is.

    Attributes
    ----------
    folder : RunFolder
        Writable.
    request : dict
        As `runs.starting` makes it.
    connect : callable
        Returns a client of the cluster; what is to be closed goes on the stack.
    has_cluster : callable
        Whether there still is a cluster to wait for.
    heartbeat_timeout_s : float, optional
        As for `signature_of`.
    cluster : object, optional
        What can be scaled, when the run has spent what it may.
    before_end : callable
        As for `drive_run`.
    """

    folder: RunFolder
    request: dict[str, Any]
    connect: Callable[[ExitStack], Client]
    has_cluster: Callable[[], bool]
    heartbeat_timeout_s: float | None = None
    cluster: Any = None
    before_end: Callable[[], None] = lambda: None
    _problemd_since: float | None = field(default=None, init=False)

    def drive_to_the_end(self) -> Exception | None:
        """Return what ended the run, if that was an error; its journal says so too.

        Raises
        ------
        StoreError
            If the journal cannot be read, or does not take that.
        """
        while not self._is_over():
            began = time.monotonic()
            try:
                self._drive()
            except RunCancelledError as error:
                return error
            except Exception as error:  # noqa: BLE001 (what it was is noted)
                if time.monotonic() - began > _CALM_S:
                    self._problemd_since = None
                step = self._next_step(error)
                if step != "again":
                    self._note_end(error, step)
                    return error
                _logger.warning("going on after %s: %s", type(error).__name__, error)
                time.sleep(_PAUSE_S)
            else:
                _logger.info("the run has its result")
        return None

    def give_up(self, error: Exception) -> None:
        """Note that the run has failed, unless it has ended.

        Raises
        ------
        StoreError
            If the journal does not take that.
        """
        if not self._is_over():
            self._note_end(error, "failed")

    def _is_over(self) -> bool:
        """Whether the run's journal says that this driver has ended it."""
        folder, driver = self.folder, self.request["driver"]
        events = JournalReader(
            folder.store, folder.run_id, folder.manifest.public
        ).events()
        mine = [
            one for one in events if one["e"] == "state" and one["driver"] == driver
        ]
        last = max(mine, key=lambda one: float(one["t"]), default={"state": ""})
        return last["state"] in ENDED

    def _drive(self) -> None:
        request, folder = self.request, self.folder
        settings = Settings.from_manifest(
            folder.manifest.settings, **request.get("limits", {})
        )
        with ExitStack() as stack:
            data_store = stack.enter_context(DataStore.of(open_store(request["store"])))
            work = extended(load(folder, data_store), int(request["n_iter_more"]))
            client = self.connect(stack)
            drive_run(
                folder,
                work,
                data_store,
                replace(settings, client=client, cluster=self.cluster),
                generation=request["generation"],
                driver=request["driver"],
                ignored=request["ignored"],
                goes_on=lambda error: self._next_step(error) == "again",
                heartbeat_timeout_s=self.heartbeat_timeout_s,
                before_end=self.before_end,
            )

    def _next_step(self, error: BaseException) -> Step:
        """Decide what becomes of the run after an error."""
        if isinstance(error, PodEnds):
            return "again"
        if isinstance(error, ClusterNotFoundError | SearchStopped):
            return "interrupted"
        if not passes(error):
            return "failed"
        if getattr(error, "lasts", False):
            return "interrupted"
        now = time.monotonic()
        self._problemd_since = self._problemd_since or now
        lasts = now - self._problemd_since > _PROBLEMS_S
        return "interrupted" if lasts or not self.has_cluster() else "again"

    def _note_end(self, error: Exception, state: str) -> None:
        text = f"{type(error).__name__}: {message_of(error)}"
        _logger.error("the run is %s: %s", state, text, exc_info=error)
        note_state(
            self.folder,
            state,
            signature_of(self.request["driver"], os.getpid(), own=True),
            generation=self.request["generation"],
            error=text,
        )


def passes(error: BaseException) -> bool:
    """Whether what was in a driver's way may pass by itself.

    Kinds of `StoreError` of their own (a permission, no room, no bucket) are for somebody
    to see to.
    """
    return isinstance(error, _PASSING) or type(error) is StoreError


def let_go(client: Client) -> None:
    """Close a client, whose scheduler may be lost."""
    with suppress(Exception):
        client.close()


def extended(work: Work, n_iter_more: int) -> Work:
    """Let a search draw more candidates than it was made for."""
    if n_iter_more:
        work.search.n_iter += n_iter_more
    return work
