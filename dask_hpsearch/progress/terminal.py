"""Progress in a terminal: three lines, redrawn in place by rich."""

from __future__ import annotations

import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dask_hpsearch.progress import text
from dask_hpsearch.progress.environment import is_terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dask_hpsearch.progress.state import SearchProgress

REFRESHES_PER_SECOND = 4


@contextmanager
def show_in_terminal(progress: SearchProgress, stream: TextIO) -> Iterator[None]:
    """Redraw the progress while the context lasts; leave one line at its end."""
    console = Console(file=stream, force_jupyter=False)
    live = Live(
        console=console,
        get_renderable=lambda: _render(progress),
        refresh_per_second=REFRESHES_PER_SECOND,
        transient=True,
        # Output of the search is printed above these lines, unless it goes to a file.
        redirect_stdout=is_terminal(sys.stdout),
        redirect_stderr=is_terminal(sys.stderr),
    )
    live.start()
    try:
        yield
    finally:
        # A terminal that was closed in the meantime must not end the search.
        with suppress(OSError, ValueError):
            live.stop()
            last, *hints = text.closing(progress)
            console.print(_line(last), no_wrap=True, overflow="ellipsis")
            for hint in hints:  # whole, to be copied
                console.print(Text(hint), soft_wrap=True)


def _render(progress: SearchProgress) -> Group:
    snapshot = progress.snapshot()
    first = Table.grid(expand=True, padding=(0, 1))
    first.add_column()
    first.add_column(ratio=1)
    first.add_column()
    bar = ProgressBar(total=snapshot.fits_total or 1, completed=snapshot.fits_done)
    first.add_row(_line("Search"), bar, _line(text.fits(snapshot)))
    problem = map(_line, text.problem(snapshot))
    return Group(
        first, _line(text.pace(snapshot)), _line(text.best(snapshot)), *problem
    )


def _line(content: str) -> Text:
    return Text(content, no_wrap=True, overflow="ellipsis")
