"""The progress of a search, and its display in a terminal or a notebook."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from dask_hpsearch.progress.environment import in_kernel, is_terminal
from dask_hpsearch.progress.state import Fits, ProgressSnapshot, SearchProgress

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "Fits",
    "ProgressSnapshot",
    "SearchProgress",
    "environment",
    "score_limits",
    "show",
    "text",
]


@contextmanager
def show(
    progress: SearchProgress, *, enabled: bool, stream: TextIO | None = None
) -> Iterator[None]:
    """Show the progress of a search while the context lasts.

    In a Jupyter kernel, that is one HTML block, updated in place. In a terminal, it is a
    few lines that are redrawn in place; one remains at the end. Elsewhere (a file, a
    pipe), it is a line every half minute, and one at the end.

    Parameters
    ----------
    progress
        The progress to show; other threads may change it in the meantime.
    enabled
        False: nothing is shown or imported.
    stream
        Default: a kernel's display, or else standard error.
    """
    if not enabled:
        yield
    elif stream is None and in_kernel():
        from IPython.display import display

        from dask_hpsearch.progress.notebook import show_in_notebook

        with show_in_notebook(progress, display):
            yield
    elif is_terminal(stream := stream or sys.stderr):
        from dask_hpsearch.progress.terminal import show_in_terminal

        with show_in_terminal(progress, stream):
            yield
    elif stream is None:  # a process without standard streams
        yield
    else:
        from dask_hpsearch.progress.lines import show_in_lines

        with show_in_lines(progress, stream):
            yield
