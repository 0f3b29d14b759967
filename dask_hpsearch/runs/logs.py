"""What drivers write: a file in the run's folder, or one that goes there in the end.

An object of a bucket cannot grow. There, a driver's output is a file of this machine while
it runs; the driver itself stores it when it ends, or, if it was killed, the next one.

What pods wrote is in one bounded object. It is written anew, under a new name, as often as
that pays, and the one before is removed: what pods wrote that are gone stays in it.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import logging
import shutil
import threading
import time
import zlib
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

from dask_hpsearch import paths
from dask_hpsearch.exceptions import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Self

    from dask_hpsearch.stores import Store


LOGS = "logs"
POD_LOGS = "logs/pods-"
# Of each pod, in characters; of so many pods: 12 MiB at most, a tenth of that when packed.
_MOST_OF_A_POD = 2**16
_MOST_PODS = 192
_LONGEST_LINE = 4000
_FIRST_AFTER_S, _SELDOM_S = 2.0, 30.0
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
        if not one.name.startswith(POD_LOGS):
            contents[one.name.rpartition("/")[2]] = store.read(one.name)
    found = {
        f"{LOGS}/{name}": contents[name].decode(errors="replace")
        for name in sorted(contents)
    }
    return found | read_pod_logs(store)[0].texts()


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


@dataclass(slots=True)
class Page:
    """The last lines of one pod.

    Attributes
    ----------
    lines : deque of str
    size : int
        Their characters.
    last : str
        When the last of them was written, as Kubernetes says it.
    left_out : int
        How many lines there were before.
    """

    lines: deque[str] = field(default_factory=deque)
    size: int = 0
    last: str = ""
    left_out: int = 0

    def add(self, moment: str, line: str) -> None:
        """Append a line; the first ones go when there are too many."""
        line = line[:_LONGEST_LINE]
        self.lines.append(line)
        self.size += len(line) + 1
        self.last = moment
        while self.size > _MOST_OF_A_POD:
            self.size -= len(self.lines.popleft()) + 1
            self.left_out += 1

    def text(self) -> str:
        """Return it as it was written."""
        before = f"({self.left_out} lines before)\n" if self.left_out else ""
        return before + "".join(f"{line}\n" for line in self.lines)


class PodLogArchive:
    """The pages of all pods; of too many pods, those that were silent longest go."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}

    def add(self, who: str, moment: str, line: str) -> None:
        """Append a line of a pod."""
        page = self.pages.setdefault(who, Page())
        page.add(moment, line)
        while len(self.pages) > _MOST_PODS:
            silent = [one for one in self.pages if one.startswith("worker ")]
            oldest = min(silent or self.pages, key=lambda one: self.pages[one].last)
            del self.pages[oldest]

    def moments(self) -> dict[str, str]:
        """Return when each pod wrote last."""
        return {who: page.last for who, page in self.pages.items()}

    def texts(self) -> dict[str, str]:
        """Return what each wrote: driver, scheduler, then the workers."""
        return {who: self.pages[who].text() for who in sorted(self.pages)}

    def to_bytes(self) -> bytes:
        """Write it down; `update` reads it."""
        rows = [
            [who, page.last, page.left_out, list(page.lines)]
            for who, page in self.pages.items()
        ]
        return gzip.compress(json.dumps(rows).encode(), compresslevel=5)

    def update(self, content: bytes) -> None:
        """Take over the pages of another book; of a pod that both have, the later.

        Raises
        ------
        ValueError
            If it is none.
        """
        try:
            rows = json.loads(gzip.decompress(content))
            for who, last, left_out, lines in rows:
                page = Page(deque(lines), sum(len(one) + 1 for one in lines))
                page.last, page.left_out = last, left_out
                known = self.pages.get(who)
                if known is None or known.last <= last:
                    self.pages[who] = page
        except (OSError, EOFError, TypeError, ValueError, zlib.error) as error:
            msg = f"it is no book of logs: {error!r}"
            raise ValueError(msg) from error


class StoredPodLogs:
    """Keeps a book in a run's folder while its pods write.

    Parameters
    ----------
    store : Store
        The run's folder.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.book, self._before = read_pod_logs(store)
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._changed = threading.Event()
        self._end = threading.Event()
        self._began = time.monotonic()
        self._thread = threading.Thread(
            target=self._run, name="dask-hpsearch-kept-logs", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()
        self.write()

    def take(self, who: str, moment: str, line: str) -> None:
        """Append a line of a pod."""
        with self._lock:
            self.book.add(who, moment, line)
        self._changed.set()

    def _run(self) -> None:
        while not self._end.wait(self._pause_s()):
            self.write()

    def _pause_s(self) -> float:
        """Write often at first, when somebody may be looking, and seldom in a long run."""
        return min(_FIRST_AFTER_S + (time.monotonic() - self._began) / 10, _SELDOM_S)

    def write(self) -> None:
        """Write the book down, unless it is there as it is."""
        with self._writing:
            if self._changed.is_set():
                self._changed.clear()
                with self._lock:
                    content = self.book.to_bytes()
                self._store_anew(content)

    def _store_anew(self, content: bytes) -> None:
        name = f"{POD_LOGS}{time.time_ns():020d}.json.gz"
        try:
            if self._store.create(name, content):
                for old in self._before:
                    self._store.delete(old)
                self._before = [name]
        except StoreError as error:
            self._changed.set()
            _logger.warning("logs of pods are not stored: %s", error)


def read_pod_logs(store: Store) -> tuple[PodLogArchive, list[str]]:
    """Read the logs of pods that a run's folder has.

    Returns
    -------
    book : PodLogArchive
    names : list of str
        The objects that it was read from.
    """
    book, names = PodLogArchive(), []
    with contextlib.suppress(StoreError):
        for name, content in _newest(store):
            try:
                book.update(content)
            except ValueError as error:
                _logger.warning("left out %s: %s", name, error)
            else:
                names.append(name)
    return book, names


def _newest(store: Store) -> Iterator[tuple[str, bytes]]:
    """Yield the books, oldest first; one may give way to the next meanwhile."""
    seen: set[str] = set()
    for _ in range(2):
        for one in store.list(POD_LOGS):
            if one.name not in seen:
                with contextlib.suppress(FileNotFoundError):
                    yield one.name, store.read(one.name)
                    seen.add(one.name)
