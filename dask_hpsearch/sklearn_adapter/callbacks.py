"""scikit-learn's callbacks (since 1.9): sent to the slots, with messages back.

As with joblib's own processes, the hooks of a fit run where the fit runs, on copies of the
callbacks. scikit-learn gives each fit the tree of all tasks, which grows with the search;
only the path from the root to the fit is sent.

The copies send messages to a socket on the search's machine. A slot on another machine
cannot connect to it: it returns the messages with the outcome of the fit, and the client
delivers them.
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
_OF_THE_RUNNING_FIT = ("_callback_fit_ctx", "_skl_callbacks_to_teardown")


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


def are_called(search: Any, candidates: Iterable[Mapping[str, Any]]) -> bool:
    """Whether fits of a search call callbacks: its own, or those of estimators in it.

    Parameters
    ----------
    search : BaseSearchCV
    candidates : iterable of dict
        Their parameters may be estimators too.
    """
    return bool(callbacks_of(search)) or any(
        callbacks_of(value)
        for candidate in candidates
        for value in candidate.values()
        if hasattr(value, "get_params")
    )


def keywords_for_hooks(
    context: Any, caller: Any, estimator: Any, parameters: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the keywords that the hooks of a call's fits need.

    Parameters
    ----------
    context : CallbackContext or None
        The context of one of the fits.
    caller, estimator : object
        The search, and its estimator.
    parameters : dict or None
        The fit's parameters; estimators among them may have callbacks too.

    Returns
    -------
    dict
        The same objects for all fits of the call; empty if there are no callbacks.
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
    """The keywords that are sent for the fits of one call, made for the first of them."""

    def __init__(self, *, needed: bool) -> None:
        self.needed = needed
        self._keywords: dict[str, Any] = {}

    def keywords(self, context: Any, caller: Any) -> dict[str, Any]:
        if not self._keywords:
            caller = copy.copy(caller)
            for name in _OF_THE_RUNNING_FIT:  # the tree of all tasks
                vars(caller).pop(name, None)
            self._keywords = {CALLER: caller, CONTEXT: _path_to(context)}
        return self._keywords


_known: weakref.WeakKeyDictionary[Any, _Sent] = weakref.WeakKeyDictionary()


def for_one_fit(shared: Mapping[str, Any], number: int | None) -> dict[str, Any]:
    """Return a call's keywords for one of its fits, with the fit's own context.

    Parameters
    ----------
    shared : mapping
        The keywords of all fits of the call.
    number : int or None
        The fit's ordinal among those of its call.
    """
    context = _path_to(shared[CONTEXT])
    context.task_id = number
    context.init_time = dt.datetime.now(dt.UTC)
    context.parent._children_map = {number: context}  # noqa: SLF001
    return {**shared, CONTEXT: context}


def _path_to(context: Any) -> Any:
    """Copy a context and its parents, without their other children."""
    copied = copy.copy(context)
    copied._children_map = {}  # noqa: SLF001
    if context.parent is not None:
        copied.parent = _path_to(context.parent)
        copied.parent._children_map[context.task_id] = copied  # noqa: SLF001
    return copied


# --- messages of callbacks --------------------------------------------------------


class _Relay:
    """Replaces a connection to a socket that this process cannot reach."""

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
    """Let callbacks in this process keep the messages that they cannot send."""
    transport = _transport()
    if transport is not None:
        transport.Client = _connect


def taken_messages() -> tuple[Message, ...]:
    """Return and forget the kept messages."""
    if not _messages:
        return ()
    taken = tuple(_messages)
    _messages.clear()
    return taken


def deliver(messages: Iterable[Message]) -> None:
    """Deliver messages to the listeners in this process."""
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
