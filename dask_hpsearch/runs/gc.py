"""Removes old runs from a store, and data that no run refers to."""

from __future__ import annotations

import calendar
import logging
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dask_hpsearch.exceptions import RunNotFoundError, UntrustedObjectError
from dask_hpsearch.journal.folder import MANIFEST, RUNS, RunFolder
from dask_hpsearch.journal.run_state import RunState
from dask_hpsearch.runs.run import SearchRun
from dask_hpsearch.stores import open_store

if TYPE_CHECKING:
    from dask_hpsearch.stores import Store

DATA = "data"
KEPT_DAYS = 30.0
_DAY_S = 86400.0
_YOUNG_S = 3600.0
_REMOVABLE = (RunState.FINISHED, RunState.STOPPED, RunState.CANCELLED)
_logger = logging.getLogger(__name__)
_TIDIED = ".tidied"
_DIGEST = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Removed:
    """What `gc` removed.

    Attributes
    ----------
    runs : list of str
        Ids of runs, also of those whose creation was never completed.
    n_data : int
        Data files.
    nbytes : int
        Size of these files.
    """

    runs: list[str]
    n_data: int
    nbytes: int


def gc(store: Store, *, older_than_days: float | None = None) -> Removed:
    """Remove data that no run refers to, and old runs if asked.

    Parameters
    ----------
    store : Store
    older_than_days : float, optional
        This user's runs that were created before that are removed too, unless they are
        under way, interrupted or failed: these can be resumed.

    Raises
    ------
    UntrustedObjectError
        If a run's manifest cannot be read: its data are unknown then.
    """
    runs = store.child(RUNS)
    ids = sorted({one.name.split("/")[0] for one in runs.list("")})
    limit = 0.0 if older_than_days is None else time.time() - older_than_days * _DAY_S
    removed, used, oldest = [], set(), time.time()
    for run_id in ids:
        try:
            folder = RunFolder.open(runs.child(run_id), trusted=True)
        except RunNotFoundError:
            if _creation_time(run_id) < time.time() - _YOUNG_S:
                _remove_incomplete(runs.child(run_id))
                removed.append(run_id)
            continue
        if (
            folder.manifest.created < limit
            and _is_own(folder)
            and _is_removable(folder)
        ):
            SearchRun(folder).delete()
            removed.append(run_id)
            continue
        pins = folder.manifest.data.values()
        used |= {pin["digest"] for pin in pins if "digest" in pin}
        if SearchRun(folder).state.is_under_way:
            oldest = min(oldest, folder.manifest.created)
    # A run that is under way may write further data, all of it since it was created.
    n_data, nbytes = _remove_data(store, used, before=oldest - _YOUNG_S)
    return Removed(removed, n_data, nbytes)


def tidy(store: Store) -> None:
    """Once a day, remove runs of the default store that are older than a month."""
    folder = store.local_path()
    if folder is None or not folder.is_dir():
        return
    mark = folder / _TIDIED
    try:
        if mark.exists() and time.time() - mark.stat().st_mtime < _DAY_S:
            return
        mark.touch()
        gc(store, older_than_days=KEPT_DAYS)
    except Exception:
        _logger.warning("could not tidy %s", store.url, exc_info=True)


def _is_own(folder: RunFolder) -> bool:
    try:
        RunFolder.open(folder.store)
    except UntrustedObjectError:
        return False
    return True


def _is_removable(folder: RunFolder) -> bool:
    return SearchRun(folder).state in _REMOVABLE


def _creation_time(run_id: str) -> float:
    """Return when a run was created, by its id; now if the id has no time."""
    try:
        moment = time.strptime(run_id[:15], "%Y%m%d-%H%M%S")
    except ValueError:
        return time.time()
    return float(calendar.timegm(moment))


def _remove_incomplete(run: Store) -> None:
    for one in run.list(""):
        if one.name != MANIFEST:
            run.delete(one.name)


def _remove_data(store: Store, used: set[str], *, before: float) -> tuple[int, int]:
    data = open_store(store.child(DATA).url)  # whose folder stays when it is empty
    old = [
        one
        for one in data.list("")
        if _DIGEST.fullmatch(one.name)
        and one.name not in used
        and one.modified < before
    ]
    for one in old:  # another process may have deleted it
        data.delete(one.name)
    return len(old), sum(one.nbytes for one in old)
