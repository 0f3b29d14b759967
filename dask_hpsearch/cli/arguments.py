"""What all commands share: exit codes, and kinds of arguments."""

from __future__ import annotations

from argparse import ArgumentTypeError

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130


def positive(text: str) -> int:
    """Read a whole number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        msg = f"{text!r} is no whole number of 1 or more"
        raise ArgumentTypeError(msg)
    return int(text)
