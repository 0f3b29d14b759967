"""Detects a Jupyter kernel and a terminal."""

from __future__ import annotations

import sys
from typing import TextIO


def in_kernel() -> bool:
    """Whether this process is a Jupyter kernel; does not import IPython."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal.

    The standard streams of a process without a console are None.
    """
    return stream is not None and not stream.closed and stream.isatty()
