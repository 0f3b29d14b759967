"""scikit-learn's callbacks (since 1.9): how they get to the slots, and messages back.

As with joblib's own processes, the hooks of a fit run where the fit runs, on copies of the
callbacks. scikit-learn's fits carry their place in the tree of all tasks, which grows with
the search; what is sent here is the way from its root to one fit.

The copies send what they have to say to a socket on the search's machine. A slot that
cannot connect to it, since it is on another machine, hands the messages over with the
outcome of the fit, and they are delivered here.
"""

from __future__ import annotations

import contextlib
import copy
import datetime as dt
import importlib
import pickle
import weakref
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client
from typing import TYPE_CHECKING, Any

import cloudpickle

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Address of a socket, and a pickled message for it.
Message = tuple[str, bytes]

CALLER, CONTEXT = "caller", "callback_ctx"
_OF_THE_FIT_UNDER_WAY = ("_callback_fit_ctx", "_skl_callbacks_to_teardown")


def callbacks_of(estimator: Any) -> list[Any]:
    """Return the callbacks of a search or an estimator, and of all within it."""
    parts = [estimator]
    with contextlib.suppress(Exception):  # the user's code may raise anything
        parts += estimator.get_params(deep=True).values()
    found: list[Any] = []
    for part in parts:
        with contextlib.suppress(Exception):
            found += vars(part).get("_skl_callbacks", ())
    return found


def what_hooks_need(
    context: Any, caller: Any, estimator: Any, parameters: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the keywords by which the fits of one call are told to callbacks.

    Parameters
    ----------
    context : CallbackContext or None
        That of one of the fits.
    caller, estimator : object
        The search, and what it fits.
    parameters : dict or None
        The fit's own: estimators among them may have callbacks too.

    Returns
    -------
    dict
        The same objects for all fits of the call; empty if nothing has callbacks.
    """
    if context is None or context.parent is None:
        return {}
    known = _known.get(context.parent)
    if known is None:
        needed = bool(context._callbacks or callbacks_of(estimator))  # noqa: SLF001
        known = _known[context.parent] = _Sent(needed=needed)
    values = (parameters or {}).values()
    if known.needed or any(
        callbacks_of(one) for one in values if hasattr(one, "get_params")
    ):
        return known.keywords(context, caller)
    return {}


class _Sent:
    """What is sent for the fits of one call, made when the first needs it."""

    def __init__(self, *, needed: bool) -> None:
        self.needed = needed
        self._keywords: dict[str, Any] = {}

    def keywords(self, context: Any, caller: Any) -> dict[str, Any]:
        if not self._keywords:
            caller = copy.copy(caller)
            for name in _OF_THE_FIT_UNDER_WAY:  # the tree of all tasks
                vars(caller).pop(name, None)
            self._keywords = {CALLER: caller, CONTEXT: _way_to(context)}
        return self._keywords


_known: weakref.WeakKeyDictionary[Any, _Sent] = weakref.WeakKeyDictionary()


def for_one_fit(shared: Mapping[str, Any], number: int | None) -> dict[str, Any]:
    """Return a call's keywords for one of its fits, with a context of its own.

    Parameters
    ----------
    shared : mapping
        The keywords of all.
    number : int or None
        The fit's ordinal among those of its call.
    """
    context = _way_to(shared[CONTEXT])
    context.task_id = number
    context.init_time = dt.datetime.now(dt.UTC)
    context.parent._children_map = {number: context}  # noqa: SLF001
    return {**shared, CONTEXT: context}


def _way_to(context: Any) -> Any:
    """Copy a context and those above it, without what else hangs on them."""
    copied = copy.copy(context)
    copied._children_map = {}  # noqa: SLF001
    if context.parent is not None:
        copied.parent = _way_to(context.parent)
        copied.parent._children_map[context.task_id] = copied  # noqa: SLF001
    return copied


# --- messages of callbacks --------------------------------------------------------


class _Relay:
    """Stands for a connection to a socket that cannot be reached from this process."""

    def __init__(self, address: str) -> None:
        self._address = address

    def send(self, message: Any) -> None:
        """Keep a message until the fit has ended."""
        payload = bytes(cloudpickle.dumps(message, protocol=5))
        _messages.append((self._address, payload))

    def recv(self) -> None:
        """Return the acknowledgement that a sender waits for."""

    def close(self) -> None:
        """Do nothing: nothing is open."""


_messages: list[Message] = []


def relay_messages() -> None:
    """Let callbacks in this process keep messages that they cannot send."""
    transport = _transport()
    if transport is not None:
        transport.Client = _connect


def taken_messages() -> tuple[Message, ...]:
    """Return the messages that are kept, and keep them no longer."""
    if not _messages:
        return ()
    taken = tuple(_messages)
    _messages.clear()
    return taken


def deliver(messages: Iterable[Message]) -> None:
    """Hand messages to those who listen in this process."""
    for address, payload in messages:
        consumers = getattr(_transport(), "_message_consumers", {})
        consumer = consumers.get(address)
        if consumer is not None:  # else the search has ended meanwhile
            consumer(pickle.loads(payload))  # noqa: S301 (from one of our slots)


def _connect(address: str, authkey: bytes | None = None) -> Any:
    try:
        return Client(address, authkey=authkey)
    except (OSError, AuthenticationError):
        return _Relay(address)


def _transport() -> Any:
    try:
        return importlib.import_module("sklearn.callback._transport")
    except ImportError:  # before 1.9
        return None
