"""The runs that a dashboard shows, each read again only when it may have changed."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

from dask_hpsearch.exceptions import HPSearchError
from dask_hpsearch.live import html
from dask_hpsearch.progress import text
from dask_hpsearch.runs import SearchRun
from dask_hpsearch.runs.live import LiveRun

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dask_hpsearch.live.state import LiveState

_LIST_EVERY_S = 10.0
_READ_EVERY_S = 1.0
_READ_ENDED_EVERY_S = 30.0
_LONGEST_READ_S = 0.8
_READERS = 8


class KnownRun:
    """A run, and its state when it was last read.

    Parameters
    ----------
    run : SearchRun
    """

    def __init__(self, run: SearchRun) -> None:
        self.run = run
        self._live: LiveRun | None = None
        self._state: LiveState | None = None
        self._read_at = float("-inf")
        self._lock = threading.Lock()
        self.error = ""

    def row(self) -> dict[str, Any]:
        """Return the run as a row of the list of runs."""
        state = self._state
        manifest = self.run._folder.manifest  # noqa: SLF001 (of this package's floor below)
        known = "…" if not self.error else "unreadable"
        row = {
            "id": self.run.run_id,
            "name": self.run.task_name or "",
            "search": manifest.search_class,
            "created": manifest.created,
            "state": known if state is None else state.state,
            "chip": html.state_chip(known if state is None else state.state),
            "score": None if state is None else state.best_score,
            "score_text": "",
            "done": 0 if state is None else state.fits_done,
            "total": 0 if state is None else state.fits_total,
            "failed": 0 if state is None else state.fits_failed,
            "elapsed": 0.0 if state is None else state.elapsed,
            "cost": None if state is None else state.cost_usd,
        }
        if state is not None and state.best_score is not None:
            row["score_text"] = text.score_text(state.best_score)
        return row

    def refresh(self, *, every_s: float = _READ_EVERY_S) -> LiveState | None:
        """Read the run, unless that was done a moment ago; None if it cannot be read."""
        with self._lock:
            return self._refresh(every_s)

    def look(self, reader: Callable[[LiveRun, LiveState], Any]) -> Any:
        """Return what a function makes of the run, which does not change meanwhile.

        Raises
        ------
        HPSearchError
            If the run cannot be read.
        """
        with self._lock:
            if self._live is None:
                self._read_at = float("-inf")
            state = self._refresh(_READ_EVERY_S)
            if state is None or self._live is None:
                raise HPSearchError(self.error)
            return reader(self._live, state)

    def forget_candidates(self) -> None:
        """Free the memory of a run that nobody looks at."""
        with self._lock:
            self._live = None

    def is_due(self) -> bool:
        """Whether it should be read again for the list of runs."""
        ended = self._state is not None and self._state.has_ended
        every_s = _READ_ENDED_EVERY_S if ended else _READ_EVERY_S
        return time.monotonic() - self._read_at >= every_s

    def _refresh(self, every_s: float) -> LiveState | None:
        if time.monotonic() - self._read_at < every_s:
            return self._state
        if self._live is None:
            self._live = LiveRun(self.run)
        try:
            self._state = self._live.refresh()
            self.error = ""
        except (HPSearchError, OSError) as error:
            self.error = str(error)
            self._state = None
        self._read_at = time.monotonic()
        return self._state


class KnownRuns:
    """The runs of a store, or one run.

    Parameters
    ----------
    store : str or None
        URL; None: the runs are given.
    runs : sequence of SearchRun
    """

    def __init__(self, store: str | None, runs: Sequence[SearchRun] = ()) -> None:
        self.store = store
        self._known = {one.run_id: KnownRun(one) for one in runs}
        self._listed_at = float("-inf")
        self._lock = threading.Lock()
        self._readers = ThreadPoolExecutor(_READERS, "dask-hpsearch-dashboard")

    def only_run(self) -> str | None:
        """Return the id of the one run that was given; None for a store."""
        return next(iter(self._known)) if self.store is None else None

    def get(self, run_id: str) -> KnownRun | None:
        """Return a run by its id."""
        if run_id not in self._known:
            self._list()
        return self._known.get(run_id)

    def rows(self) -> list[dict[str, Any]]:
        """Return the list of runs, newest first; some may not be read yet."""
        self._list()
        known = sorted(self._known.values(), key=lambda one: one.run.run_id)[::-1]
        due = [one for one in known if one.is_due()]
        wait([self._readers.submit(_read, one) for one in due], timeout=_LONGEST_READ_S)
        return [one.row() for one in known]

    def close(self) -> None:
        """End the threads that read runs."""
        self._readers.shutdown(wait=False, cancel_futures=True)

    def _list(self) -> None:
        with self._lock:
            if self.store is None or (
                time.monotonic() - self._listed_at < _LIST_EVERY_S
            ):
                return
            listed = {one.run_id: one for one in SearchRun.list(self.store)}
            for run_id in self._known.keys() - listed.keys():
                del self._known[run_id]
            for run_id, run in listed.items():
                self._known.setdefault(run_id, KnownRun(run))
            self._listed_at = time.monotonic()


def _read(known: KnownRun) -> None:
    state = known.refresh()
    if state is not None and state.has_ended:
        known.forget_candidates()
