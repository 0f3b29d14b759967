"""Exit codes and argument types that all commands share."""

from __future__ import annotations

from argparse import ArgumentTypeError

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130


def positive(text: str) -> int:
    """Parse a positive integer."""
    if not text.isdecimal() or int(text) < 1:
        msg = f"must be a positive integer, got {text}"
        raise ArgumentTypeError(msg)
    return int(text)
