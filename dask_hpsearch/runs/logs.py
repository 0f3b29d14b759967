"""What drivers write: a file in the run's folder, or one that goes there in the end.

An object of a bucket cannot grow. There, a driver's output is a file of this machine while
it runs; the driver itself stores it when it ends, or, if it was killed, the next one.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import shutil
from typing import TYPE_CHECKING, BinaryIO

from dask_hpsearch import paths
from dask_hpsearch.errors import StoreError
from dask_hpsearch.runs.log_book import BOOKS, read_book

if TYPE_CHECKING:
    from pathlib import Path

    from dask_hpsearch.stores import Store

LOGS = "logs"
_logger = logging.getLogger(__name__)


def new_log(store: Store, run_id: str) -> BinaryIO:
    """Open a new log; its name is one that no driver of the run had.

    Parameters
    ----------
    store : Store
        The run's folder.
    run_id : str
    """
    keep_logs(store, run_id)
    _word(run_id).unlink(missing_ok=True)
    logs = _folder(store, run_id)
    logs.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(len(store.list(f"{LOGS}/"))):
        with contextlib.suppress(FileExistsError):  # another driver starts too
            return (logs / f"driver-{number:03d}.log").open("xb")
    raise AssertionError


def keep_logs(store: Store, run_id: str) -> None:
    """Store logs of this machine, all of them of drivers that end or have ended."""
    if store.local_path() is not None:
        return
    for path in _on_the_way(store, run_id):
        try:
            store.send(f"{LOGS}/{path.name}", path)
        except (OSError, StoreError) as error:
            _logger.warning("the log %s is not stored: %s", path, error)
        else:
            path.unlink(missing_ok=True)


def logs_of(store: Store, run_id: str) -> dict[str, str]:
    """Return what drivers wrote, by the names of their logs, and the cluster's pods."""
    contents = {
        path.name: path.read_bytes()
        for path in _on_the_way(store, run_id)
        if store.local_path() is None
    }
    for one in store.list(f"{LOGS}/"):
        if not one.name.startswith(BOOKS):
            contents[one.name.rpartition("/")[2]] = store.read(one.name)
    found = {
        f"{LOGS}/{name}": contents[name].decode(errors="replace")
        for name in sorted(contents)
    }
    return found | read_book(store)[0].texts()


def forget_logs(store: Store, run_id: str) -> None:
    """Remove logs that are on this machine alone."""
    _word(run_id).unlink(missing_ok=True)
    if store.local_path() is None:
        shutil.rmtree(_folder(store, run_id), ignore_errors=True)


def leave_word(run_id: str, text: str) -> None:
    """Leave a driver's last words where the run's store cannot take them."""
    with contextlib.suppress(OSError):
        _word(run_id).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _word(run_id).write_text(text, encoding="utf-8")


def last_word(run_id: str) -> str:
    """Return what the last driver of a run left on this machine, if it could no more."""
    with contextlib.suppress(OSError):
        return _word(run_id).read_text(encoding="utf-8")
    return ""


def _word(run_id: str) -> Path:
    return paths.data_folder() / "drivers" / f"{run_id}.word"


def _on_the_way(store: Store, run_id: str) -> list[Path]:
    return sorted(_folder(store, run_id).glob("driver-*.log"))


def _folder(store: Store, run_id: str) -> Path:
    place = store.local_path()
    return paths.data_folder() / LOGS / run_id if place is None else place / LOGS
