"""Logs of a run: the output of its drivers, and of the pods of its cluster.

The log of a driver is a file in the run's folder. A bucket's objects cannot be appended to:
there, the log is a file of this machine while the driver runs, and the driver stores it when
it ends, or the next driver does if it was killed.

The logs of all pods are one object of limited size. It is replaced from time to time by an
object with a new name, and still has the logs of pods that no longer exist.
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
# In characters for each pod: 12 MiB at most for all, a tenth of that when compressed.
_MAX_POD_LOG_LENGTH = 2**16
_MAX_PODS = 192
_MAX_LINE_LENGTH = 4000
_MIN_PAUSE_S, _MAX_PAUSE_S = 2.0, 30.0
_logger = logging.getLogger(__name__)


def create_driver_log(store: Store, run_id: str) -> BinaryIO:
    """Create the log of a driver, under a name that no driver of the run has used.

    Parameters
    ----------
    store : Store
        The run's folder.
    run_id : str
    """
    store_driver_logs(store, run_id)
    _last_error(run_id).unlink(missing_ok=True)
    logs = _folder(store, run_id)
    logs.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(len(store.list(f"{LOGS}/"))):
        with contextlib.suppress(FileExistsError):  # another driver starts too
            return (logs / f"driver-{number:03d}.log").open("xb")
    raise AssertionError


def store_driver_logs(store: Store, run_id: str) -> None:
    """Store the logs that are on this machine; their drivers end now, or have ended."""
    if store.local_path() is not None:
        return
    for path in _local_logs(store, run_id):
        try:
            store.send(f"{LOGS}/{path.name}", path)
        except (OSError, StoreError) as error:
            _logger.warning("the log %s is not stored: %s", path, error)
        else:
            path.unlink(missing_ok=True)


def logs_of(store: Store, run_id: str) -> dict[str, str]:
    """Return the logs of drivers and pods, by their names."""
    contents = {
        path.name: path.read_bytes()
        for path in _local_logs(store, run_id)
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
    """Remove the logs of a run that are on this machine."""
    _last_error(run_id).unlink(missing_ok=True)
    if store.local_path() is None:
        shutil.rmtree(_folder(store, run_id), ignore_errors=True)


def write_last_error(run_id: str, text: str) -> None:
    """Write a driver's error to this machine, since the run's store cannot be written."""
    path = _last_error(run_id)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_text(text, encoding="utf-8")


def read_last_error(run_id: str) -> str:
    """Return the error of a run's last driver that is on this machine, if there is one."""
    with contextlib.suppress(OSError):
        return _last_error(run_id).read_text(encoding="utf-8")
    return ""


def _last_error(run_id: str) -> Path:
    return paths.data_folder() / "drivers" / f"{run_id}.word"


def _local_logs(store: Store, run_id: str) -> list[Path]:
    return sorted(_folder(store, run_id).glob("driver-*.log"))


def _folder(store: Store, run_id: str) -> Path:
    local = store.local_path()
    return paths.data_folder() / LOGS / run_id if local is None else local / LOGS


@dataclass(slots=True)
class PodLog:
    """The last lines that a pod wrote.

    Attributes
    ----------
    lines : deque of str
    size : int
        In characters.
    last_time : str
        Time of the last line, in the format of Kubernetes.
    n_dropped : int
        How many earlier lines were dropped.
    """

    lines: deque[str] = field(default_factory=deque)
    size: int = 0
    last_time: str = ""
    n_dropped: int = 0

    def add(self, moment: str, line: str) -> None:
        """Append a line; drop the first ones if the log gets too long."""
        line = line[:_MAX_LINE_LENGTH]
        self.lines.append(line)
        self.size += len(line) + 1
        self.last_time = moment
        while self.size > _MAX_POD_LOG_LENGTH:
            self.size -= len(self.lines.popleft()) + 1
            self.n_dropped += 1

    def text(self) -> str:
        """Return the lines as the pod wrote them."""
        before = f"({self.n_dropped} lines before)\n" if self.n_dropped else ""
        return before + "".join(f"{line}\n" for line in self.lines)


class PodLogArchive:
    """The logs of all pods; of too many pods, the logs that are oldest are dropped."""

    def __init__(self) -> None:
        self._logs: dict[str, PodLog] = {}

    def add_line(self, pod: str, moment: str, line: str) -> None:
        """Append a line to the log of a pod ("worker NAME")."""
        self._logs.setdefault(pod, PodLog()).add(moment, line)
        while len(self._logs) > _MAX_PODS:
            workers = [name for name in self._logs if name.startswith("worker ")]
            names = workers or self._logs
            del self._logs[min(names, key=lambda name: self._logs[name].last_time)]

    def last_times(self) -> dict[str, str]:
        """Return the time of each pod's last line."""
        return {pod: log.last_time for pod, log in self._logs.items()}

    def texts(self) -> dict[str, str]:
        """Return the logs by pod: driver, scheduler, then the workers."""
        return {pod: self._logs[pod].text() for pod in sorted(self._logs)}

    def to_bytes(self) -> bytes:
        """Return the content of an object that `update` reads."""
        rows = [
            [pod, log.last_time, log.n_dropped, list(log.lines)]
            for pod, log in self._logs.items()
        ]
        return gzip.compress(json.dumps(rows).encode(), compresslevel=5)

    def update(self, content: bytes) -> None:
        """Add the logs of another archive; if both have a pod, the later log counts.

        Raises
        ------
        ValueError
            If the content is not that of an archive.
        """
        try:
            rows = json.loads(gzip.decompress(content))
            for pod, last_time, n_dropped, lines in rows:
                size = sum(len(line) + 1 for line in lines)
                known = self._logs.get(pod)
                if known is None or known.last_time <= last_time:
                    self._logs[pod] = PodLog(deque(lines), size, last_time, n_dropped)
        except (OSError, EOFError, TypeError, ValueError, zlib.error) as error:
            msg = f"invalid archive of pod logs: {error!r}"
            raise ValueError(msg) from error


class StoredPodLogs:
    """Stores an archive in a run's folder while the pods write.

    Parameters
    ----------
    store : Store
        The run's folder.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.archive, self._stored = read_pod_logs(store)
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._changed = threading.Event()
        self._end = threading.Event()
        self._began = time.monotonic()
        self._thread = threading.Thread(
            target=self._run, name="dask-hpsearch-stored-logs", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()
        self.write()

    def add_line(self, pod: str, moment: str, line: str) -> None:
        """Append a line to the log of a pod."""
        with self._lock:
            self.archive.add_line(pod, moment, line)
        self._changed.set()

    def _run(self) -> None:
        while not self._end.wait(self._pause_s()):
            self.write()

    def _pause_s(self) -> float:
        """Write often at first, when a user may be looking, and seldom in a long run."""
        return min(_MIN_PAUSE_S + (time.monotonic() - self._began) / 10, _MAX_PAUSE_S)

    def write(self) -> None:
        """Write the archive, unless it is unchanged."""
        with self._writing:
            if self._changed.is_set():
                self._changed.clear()
                with self._lock:
                    content = self.archive.to_bytes()
                self._replace(content)

    def _replace(self, content: bytes) -> None:
        name = f"{POD_LOGS}{time.time_ns():020d}.json.gz"
        try:
            if self._store.create(name, content):
                for old in self._stored:
                    self._store.delete(old)
                self._stored = [name]
        except StoreError as error:
            self._changed.set()
            _logger.warning("the logs of pods are not stored: %s", error)


def read_pod_logs(store: Store) -> tuple[PodLogArchive, list[str]]:
    """Read the archive of pod logs in a run's folder.

    Returns
    -------
    archive : PodLogArchive
    names : list of str
        The objects that it was read from.
    """
    archive, names = PodLogArchive(), []
    with contextlib.suppress(StoreError):
        for name, content in _archives(store):
            try:
                archive.update(content)
            except ValueError as error:
                _logger.warning("left out %s: %s", name, error)
            else:
                names.append(name)
    return archive, names


def _archives(store: Store) -> Iterator[tuple[str, bytes]]:
    """Yield the archives, oldest first; a driver may replace one in the meantime."""
    seen: set[str] = set()
    for _ in range(2):
        for one in store.list(POD_LOGS):
            if one.name not in seen:
                with contextlib.suppress(FileNotFoundError):
                    yield one.name, store.read(one.name)
                    seen.add(one.name)
