"""Progress in a notebook: one HTML block, updated in place."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from html import escape
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Protocol

from dask_hpsearch.progress import text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dask_hpsearch.progress.state import ProgressSnapshot, SearchProgress

logger = logging.getLogger(__name__)

UPDATE_INTERVAL_S = 0.5


class DisplayHandle(Protocol):
    """The return value of IPython's ``display``: an output that can be replaced."""

    def update(self, obj: Any, **kwargs: Any) -> None:
        """Replace the output."""


class Display(Protocol):
    """IPython's ``display``."""

    def __call__(self, obj: Any, *, raw: bool, display_id: bool) -> DisplayHandle:
        """Show an output."""


@contextmanager
def show_in_notebook(progress: SearchProgress, display: Display) -> Iterator[None]:
    """Update one output while the context lasts, and once more at its end.

    Parameters
    ----------
    progress
        The progress to show.
    display
        ``IPython.display.display``.
    """
    output = display(_bundle(progress.snapshot()), raw=True, display_id=True)
    over = Event()
    thread = Thread(
        target=_keep_updating,
        args=(progress, output, over),
        name="dask-hpsearch-progress",
        daemon=True,
    )
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        _update(output, _bundle(progress.snapshot(), text.closing(progress)))


def _keep_updating(
    progress: SearchProgress, output: DisplayHandle, over: Event
) -> None:
    while not over.wait(UPDATE_INTERVAL_S):
        _update(output, _bundle(progress.snapshot()))


def _update(output: DisplayHandle, bundle: dict[str, str]) -> None:
    try:
        output.update(bundle, raw=True)
    except Exception:
        # A notebook that was closed in the meantime must not end the search.
        logger.debug("the notebook did not display the progress", exc_info=True)


def _bundle(
    snapshot: ProgressSnapshot, lines: list[str] | None = None
) -> dict[str, str]:
    """Return the progress as HTML, and as plain text for consoles."""
    if lines is None:
        lines = text.lines(snapshot)
    bar = (
        f'<progress value="{snapshot.fits_done}" max="{snapshot.fits_total or 1}" '
        'style="width: 100%"></progress>'
    )
    rows = "".join(f"<div>{escape(line)}</div>" for line in lines)
    html = f'<div style="max-width: 60em">{bar}{rows}</div>'
    return {"text/html": html, "text/plain": "\n".join(lines)}
