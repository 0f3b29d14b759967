"""The live view in a notebook: a widget that follows a run, and HTML that stays.

The output has the widget and, for exports and where widgets are missing, a snapshot as HTML.
A thread updates both; the kernel is free meanwhile. Once the run has ended, only the HTML
remains: it needs no kernel.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Protocol

from dask_hpsearch.exceptions import StoreError
from dask_hpsearch.live import html
from dask_hpsearch.safe_text import message_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dask_hpsearch.live.state import LiveState

_logger = logging.getLogger(__name__)
SNAPSHOT_EVERY_S = 20.0
_VIEW = "application/vnd.jupyter.widget-view+json"
_CLOSE_TIMEOUT_S = 30.0


class Source(Protocol):
    """What a view follows."""

    def refresh(self) -> LiveState:
        """Return the state now."""

    def lines(self) -> list[str]:
        """Return the state of the last `refresh` as text."""


class NotebookView:
    """An output of a notebook that follows a run.

    Parameters
    ----------
    source : Source
    actions : mapping of str to callable
        What the reader may do: "stop" takes nothing, "scale" the number of workers. Each
        returns a sentence to display.
    display : callable
        ``IPython.display.display``.
    blocks : bool
        Whether a fit keeps this kernel's main thread busy, so that an interrupt stops it.
    every_s : float
        Seconds between two updates.
    """

    def __init__(
        self,
        source: Source,
        actions: Mapping[str, Callable[..., str]],
        display: Callable[..., Any],
        *,
        blocks: bool,
        every_s: float,
    ) -> None:
        self._source = source
        self._actions = actions
        self._display = display
        self._blocks = blocks
        self._every_s = every_s
        self._over = Event()
        self._wake = Event()
        self._widget: Any = None
        self._output: Any = None
        self._state: LiveState | None = None
        self._thread = Thread(target=self._run, name="dask-hpsearch-live", daemon=True)

    def start(self) -> None:
        """Display the state, and follow it.

        Raises
        ------
        StoreError
            If the run cannot be read.
        """
        self._state = self._source.refresh()
        if not self._state.has_ended:
            self._widget = new_widget(self._payload(self._state))
        if self._widget is not None:
            self._widget.on_msg(self._answer)
            _hear_in_subshells(self._widget)
        bundle = self._bundle(self._state)
        self._output = self._display(bundle, raw=True, display_id=True)
        if not self._state.has_ended:
            self._thread.start()

    def close(self) -> None:
        """Display the last state, and stop following."""
        self._over.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(_CLOSE_TIMEOUT_S)
        self._refresh()
        if self._widget is not None:
            self._widget.close()
            self._widget = None
        self._show()

    def _run(self) -> None:
        waited_s = 0.0
        while not self._over.is_set():
            self._wake.wait(self._every_s)
            self._wake.clear()
            if self._over.is_set():
                return
            self._refresh()
            if self._state is not None and self._state.has_ended and not self._blocks:
                self._end()
                return
            waited_s += self._every_s
            if self._widget is None or waited_s >= SNAPSHOT_EVERY_S:
                waited_s = 0.0
                self._show()

    def _end(self) -> None:
        """Leave the last state as HTML alone."""
        widget, self._widget = self._widget, None
        self._show()
        if widget is not None:
            widget.close()

    def _refresh(self) -> None:
        try:
            self._state = self._source.refresh()
            if self._widget is not None:
                self._widget.payload = self._payload(self._state)
                _hear_in_subshells(self._widget)
        except StoreError as error:
            _logger.info("could not read the run now: %s", error)
        except Exception:
            # A display that fails must not end what it shows.
            _logger.debug("the notebook did not display the run", exc_info=True)

    def _show(self) -> None:
        if self._state is None or self._output is None:
            return
        try:
            self._output.update(self._bundle(self._state), raw=True)
        except Exception:
            # A notebook that was closed in the meantime must not end the search.
            _logger.debug("the notebook did not display the run", exc_info=True)

    def _bundle(self, state: LiveState) -> dict[str, Any]:
        bundle: dict[str, Any] = {
            "text/html": html.snapshot(state),
            "text/plain": "\n".join(self._source.lines()),
        }
        if self._widget is not None:
            model_id = self._widget.model_id
            bundle[_VIEW] = {
                "version_major": 2,
                "version_minor": 0,
                "model_id": model_id,
            }
        return bundle

    def _payload(self, state: LiveState) -> dict[str, Any]:
        actions = [one for one in state.actions if one in self._actions]
        return payload_of(state, actions=actions) | {"blocks": self._blocks}

    def _answer(self, widget: Any, message: Any, _buffers: Any) -> None:
        """Do what the page asks for, and say so."""
        reply: dict[str, Any] = {"number": None}
        try:
            reply["number"] = int(message["number"])
            reply["said"] = act(self._actions, message)
        except Exception as error:
            _logger.debug("the page's request failed", exc_info=True)
            reply["error"] = message_of(error) or type(error).__name__
        widget.send(reply)
        self._wake.set()


def payload_of(state: LiveState, *, actions: Sequence[str]) -> dict[str, Any]:
    """Return what ``live.js`` displays: sections as HTML, and what may be done."""
    tenth = 10 * (10 * state.fits_done // max(state.fits_total, state.fits_done, 1))
    done = "" if state.has_ended else f", {tenth} percent of the fits are done"
    return {
        "parts": html.parts(state),
        "state": state.state,
        "ended": state.has_ended,
        "actions": list(actions),
        "workers": state.workers,
        "announce": f"The search is {state.state}{done}",
    }


def act(actions: Mapping[str, Callable[..., str]], message: Mapping[str, Any]) -> str:
    """Do what a page asks for.

    Raises
    ------
    ValueError
        If that is none of the actions, or not a number of workers.
    """
    name = str(message.get("action"))
    if name not in actions:
        msg = f"action must be one of {sorted(actions)}, got {name!r}"
        raise ValueError(msg)
    if name != "scale":
        return actions[name]()
    n = message.get("n")
    if not isinstance(n, int) or isinstance(n, bool) or n < 0:
        msg = f"the number of workers must be 0 or more, got {n!r}"
        raise ValueError(msg)
    return actions[name](n)


def _hear_in_subshells(widget: Any) -> None:
    """Let the page's messages reach the subshell to which the page sends them.

    ipykernel 7.4 sends them to the shell from which the widget was last changed: that of the
    cell, which a fit keeps busy. It has no public way to change that; without its private
    attribute, as in other versions, the page's choice counts.
    """
    comm: Any = getattr(widget, "comm", None)
    with contextlib.suppress(AttributeError):
        del comm._reply_subshell_id  # noqa: SLF001 (see above)


def new_widget(payload: dict[str, Any]) -> Any:
    """Return a widget that displays a payload; None if anywidget is not installed."""
    try:
        return _widget_class()(payload=payload)
    except ImportError:
        return None


@functools.cache
def _widget_class() -> Any:
    import anywidget
    import traitlets

    class LiveWidget(anywidget.AnyWidget):
        """The view of ``live.js``."""

        _esm = html.FILES / "live.js"
        _css = html.FILES / "live.css"
        payload = traitlets.Dict().tag(sync=True)

    return LiveWidget
