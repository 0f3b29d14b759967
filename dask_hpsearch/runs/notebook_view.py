"""A run in a notebook: the live view, with what its buttons do."""

from __future__ import annotations

import logging
import weakref
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dask_hpsearch.journal import next_steps
from dask_hpsearch.live.widget import NotebookView
from dask_hpsearch.progress import text
from dask_hpsearch.progress.environment import in_kernel
from dask_hpsearch.runs.live import LiveRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from distributed import Client

    from dask_hpsearch.execution.settings import Settings
    from dask_hpsearch.live.state import LiveState
    from dask_hpsearch.runs.run import SearchRun

_logger = logging.getLogger(__name__)
_LOCAL_S, _BUCKET_S = 0.5, 2.0


def start_view(
    run: SearchRun, cluster: Any = None, *, blocks: bool = False
) -> NotebookView:
    """Display a run in the current cell, and follow it to its end.

    Parameters
    ----------
    run : SearchRun
    cluster : Dask cluster, optional
        Can be scaled from the view.
    blocks : bool
        Whether a fit keeps this kernel's main thread busy until ``close`` is called.
    """
    from IPython.display import display

    can_scale = scalable(cluster)
    actions: dict[str, Callable[..., str]] = {"stop": lambda: stop(run)}
    if can_scale:
        actions["scale"] = _scaling(cluster)
    local = run._folder.store.local_path() is not None  # noqa: SLF001 (of this package)
    view = NotebookView(
        _Followed(run, can_scale=can_scale),
        actions,
        display,
        blocks=blocks,
        every_s=_LOCAL_S if local else _BUCKET_S,
    )
    view.start()
    return view


@contextmanager
def shown_while_driven(run: SearchRun, settings: Settings) -> Iterator[Settings]:
    """Display a run that this process drives, if it is in a notebook.

    Yields
    ------
    Settings
        For the driver, which displays nothing if the view does.
    """
    if not (settings.progress and in_kernel()):
        yield settings
        return
    try:
        view = start_view(run, cluster_of(settings.client), blocks=True)
    except Exception:
        # The search can do without; its progress is shown as in a terminal.
        _logger.debug("the live view cannot be displayed", exc_info=True)
        yield settings
        return
    try:
        yield replace(settings, progress=False)
    finally:
        view.close()


def stop(run: SearchRun) -> str:
    """Stop a run that is under way; return a sentence about it."""
    if not run.state.is_under_way:
        return "The search is no longer running."
    run.stop()
    return "The search was asked to stop: it fits the best candidate so far, and ends."


def cancel(run: SearchRun) -> str:
    """Cancel a run that is under way; return a sentence about it."""
    if not run.state.is_under_way:
        return "The search is no longer running."
    run.cancel()
    return "The search was asked to end without a result."


def cluster_of(client: Client | None) -> Any:
    """Return the cluster of a client that this process can scale; None if there is none."""
    return None if client is None else getattr(client, "cluster", None)


def scalable(cluster: Any) -> bool:
    """Whether a cluster can be scaled by hand."""
    adapts = getattr(cluster, "_adaptive", None) is not None
    return callable(getattr(cluster, "scale", None)) and not adapts


def _scaling(cluster: Any) -> Callable[[int], str]:
    reference = weakref.ref(cluster)

    def scale(n: int) -> str:
        found = reference()
        if found is None:
            return "The cluster is gone."
        found.scale(n)
        return f"The cluster scales to {n} worker{'' if n == 1 else 's'}."

    return scale


class _Followed(LiveRun):
    """A run that a notebook follows."""

    def __init__(self, run: SearchRun, *, can_scale: bool) -> None:
        super().__init__(run, can_scale=can_scale)
        self._ended = False

    def refresh(self) -> LiveState:
        state = super().refresh()
        self._ended = state.has_ended
        return state

    def lines(self) -> list[str]:
        if self._ended:
            return text.ending(self.snapshot, next_steps.to_resume(self.about.url))
        return text.lines(self.snapshot)
