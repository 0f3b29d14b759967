"""Sends exceptions from a slot to the client, with type, text and exit code.

A user's exception may fail to be pickled, to be loaded again, or to return its text. As
much of it as possible is sent.
"""

from __future__ import annotations

import contextlib
import pickle
import traceback
from typing import TYPE_CHECKING, Any

import cloudpickle

from dask_hpsearch.safe_text import message_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_FROM_FIT = "_dask_hpsearch_from_fit"


def encode_error(error: BaseException) -> bytes:
    """Pickle an exception with its traceback as a note.

    An exception that is not the same after loading is sent by its parts, if need be
    without those that cannot be pickled, or as text if its class cannot be pickled. The
    note includes its causes, which are not sent themselves. The exception itself is
    restored at the end, since a module may keep one and raise it again.
    """
    notes = list(getattr(error, "__notes__", ()))
    cause, context = error.__cause__, error.__context__
    suppressed = error.__suppress_context__
    with contextlib.suppress(Exception):
        error.add_note("".join(traceback.format_exception(error)).rstrip())
    error.__cause__ = error.__context__ = error.__traceback__ = None
    try:
        return _pickled(error)
    finally:
        error.__notes__ = notes
        error.__cause__, error.__context__ = cause, context
        error.__suppress_context__ = suppressed


def _pickled(error: BaseException) -> bytes:
    changed: list[bytes] = []
    for candidate in _forms_of(error):
        with contextlib.suppress(BaseException):  # pickling it runs its own code
            payload = bytes(cloudpickle.dumps(candidate, protocol=5))
            if _is_same(pickle.loads(payload), error):  # noqa: S301 (just written)
                return payload
            changed.append(payload)
    if changed:
        return changed[0]
    return pickle.dumps(RuntimeError(in_words(error)))


def decode_error(payload: bytes, words: str) -> BaseException:
    """Load an exception; if it cannot be loaded, make one from its text.

    Parameters
    ----------
    payload : bytes
        From `encode_error`.
    words : str
        From `in_words`.
    """
    error: BaseException
    try:
        error = pickle.loads(payload)  # noqa: S301 (from one of our slots)
    except BaseException as problem:  # noqa: BLE001 (loading it runs its own code)
        error = RuntimeError(words)
        error.add_note(
            f"(the exception itself does not load here: {in_words(problem)})"
        )
    with contextlib.suppress(Exception):
        setattr(error, _FROM_FIT, True)
    return error


def came_from_fit(error: BaseException) -> bool:
    """Whether a fit raised an exception; False for the user's Ctrl-C or a stop."""
    return bool(getattr(error, _FROM_FIT, False))


def in_words(error: BaseException) -> str:
    """Return type, text and notes of an exception, without them if that fails.

    The note that names an error's section in the manual is left out: the text becomes a
    part of another error's, which has such a note too.
    """
    try:
        shown = traceback.TracebackException(type(error), error, None, compact=True)
        help_note = getattr(error, "help_note", None)
        if help_note is not None and isinstance(shown.__notes__, list):
            shown.__notes__ = [one for one in shown.__notes__ if one != help_note]
        return "".join(shown.format_exception_only()).strip()
    except Exception:  # noqa: BLE001 (its own code runs)
        return type(error).__qualname__


def _forms_of(error: BaseException) -> Iterator[Any]:
    yield error
    state = dict(vars(error))
    if isinstance(error, SystemExit):
        state["code"] = error.code
    yield _ByParts(error, error.args, state)
    notes = {"__notes__": list(map(str, getattr(error, "__notes__", ())))}
    yield _ByParts(error, (message_of(error),), notes)


class _ByParts:
    """Pickles an exception whose constructor takes other arguments than it keeps."""

    def __init__(
        self, error: BaseException, args: tuple[Any, ...], state: dict[str, Any]
    ) -> None:
        self._parts = type(error), args, state

    def __reduce__(self) -> Any:
        return rebuild_error, self._parts


def rebuild_error(
    kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]
) -> BaseException:
    """Make an exception without calling its constructor."""
    error = kind.__new__(kind, *args)
    error.args = args
    if isinstance(error, SystemExit):
        error.code = state.pop("code", None)
    vars(error).update(state)
    return error


def _is_same(one: Any, other: BaseException) -> bool:
    codes = [getattr(error, "code", None) for error in (one, other)]
    return in_words(one) == in_words(other) and (
        not isinstance(other, SystemExit) or codes[0] == codes[1]
    )
