"""Texts of users' values and errors, whose own methods may raise anything.

Labels, messages and logs use them: a failing method must not end a search.
"""

from __future__ import annotations

from typing import Any

_LONGEST = 200
# Python refuses to write the decimal digits of longer integers by default.
LONGEST_INTEGER_BITS = 4096


def repr_of(value: Any, longest: int = _LONGEST) -> str:
    """Return an object's ``repr``, cut to a length; its type's name if that fails."""
    try:
        text = repr(value)
        # The text may be of a user's class, whose methods may fail too.
        text = text if type(text) is str else str.__str__(text)
    except Exception:  # noqa: BLE001
        text = _by_parts(value)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def message_of(error: BaseException) -> str:
    """Return an error's text; if that fails, say so as tracebacks do."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001
        return f"<{type(error).__name__} without a text>"


def integer_text(value: int) -> str:
    """Return an integer's digits, hexadecimal ones if it is very long."""
    return str(value) if value.bit_length() <= LONGEST_INTEGER_BITS else hex(value)


def _by_parts(value: Any) -> str:
    """Return the text of a value whose ``repr`` fails, item by item if it has items."""
    if type(value) is int:
        return integer_text(value)
    try:
        if type(value) is dict:
            parts = (f"{repr_of(key)}: {repr_of(one)}" for key, one in value.items())
            return f"{{{', '.join(parts)}}}"
        if type(value) is list:
            return f"[{', '.join(map(repr_of, value))}]"
    except RecursionError:
        pass
    return f"<{type(value).__name__}>"
