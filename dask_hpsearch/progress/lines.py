"""Progress in a file or a pipe, where nothing can be redrawn: one line at intervals."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import TYPE_CHECKING, TextIO

from dask_hpsearch.progress import text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dask_hpsearch.progress.state import SearchProgress

LINE_EVERY_S = 30.0


@contextmanager
def show_in_lines(
    progress: SearchProgress, stream: TextIO, *, every_s: float = LINE_EVERY_S
) -> Iterator[None]:
    """Write a line at intervals while the context lasts, and one at its end.

    Parameters
    ----------
    progress
        The progress to show.
    stream
        Any text stream.
    every_s
        Seconds between two lines.
    """
    over = Event()
    thread = Thread(
        target=_keep_writing,
        args=(progress, stream, over, every_s),
        name="dask-hpsearch-progress",
        daemon=True,
    )
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for line in text.closing(progress):
            _write(stream, line)


def _keep_writing(
    progress: SearchProgress, stream: TextIO, over: Event, every_s: float
) -> None:
    while not over.wait(every_s):
        _write(stream, text.line(progress.snapshot()))


def _write(stream: TextIO, line: str) -> None:
    encoding = stream.encoding or "utf-8"  # cron's may be ASCII
    # A pipe without a reader must not end the search.
    with suppress(OSError, ValueError):
        stream.write(line.encode(encoding, "replace").decode(encoding) + "\n")
        stream.flush()
