"""Looks at processes, and waits on what they do."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from dask_hpsearch.slots.plugin import PLUGIN_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from distributed import Worker

_POLL_S = 0.02
WAIT_S = 90.0
ROOT = Path(__file__).parents[1]
# More threads than free cores spin, and a fit of a tenth of a second takes seconds.
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}


def wait_until(state: Callable[[], Any], *, within_s: float = WAIT_S) -> None:
    """Wait until a state is reached; fail if it is not."""
    deadline = time.monotonic() + within_s
    while not state():
        assert time.monotonic() < deadline, f"not reached within {within_s:g} s"
        time.sleep(_POLL_S)


def is_alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="latin-1")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def parent_of(pid: int) -> int:
    """Return the process that started another."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="latin-1")
    return int(stat.rpartition(")")[2].split()[1])


def marked(mark: str) -> list[int]:
    """Processes whose environment contains a text."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return [pid for pid in found if is_alive(pid)]


def script(
    text: str,
    folder: Path,
    *,
    environment: Mapping[str, str] | None = None,
    terminal: TextIO | None = None,
) -> subprocess.Popen[str]:
    """Start a script in an interpreter where every warning is an error.

    It leads a process group of its own, as a terminal's command does; its errors go to
    the terminal, if there is one.
    """
    path = folder / "script.py"
    path.write_text(text, encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(path)],
        env=os.environ | _ONE_THREAD | {"PYTHONPATH": str(ROOT)} | (environment or {}),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=terminal or subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


# Workers import this module for the functions below: nothing heavy belongs here.


def busy_slots(dask_worker: Worker) -> int:
    """Count the slots of a worker that run something."""
    plugin: Any = dask_worker.plugins[PLUGIN_NAME]
    return len(plugin.pool._busy)


def bundles_kept(dask_worker: Worker) -> list[str]:
    """Return the files that a worker was sent."""
    folder = Path(dask_worker.local_directory)
    return [str(path) for path in folder.glob("bundles-*/*")]


def held_bytes(path: Path) -> int:
    """Return the memory of this process in the maps of a file."""
    held, of_file = 0, False
    for line in Path("/proc/self/smaps").read_text("utf-8").splitlines():
        if line[0] in "0123456789abcdef":
            of_file = line.endswith(path.name)
        elif of_file and line.startswith("Rss:"):
            held += 1024 * int(line.split()[1])
    return held
