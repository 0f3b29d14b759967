"""Where progress can be shown."""

from __future__ import annotations

import sys
from typing import TextIO


def in_kernel() -> bool:
    """Say whether this process is a Jupyter kernel, without importing IPython."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


def is_terminal(stream: TextIO | None) -> bool:
    """Say whether a person sees what is written to ``stream``.

    A process without a console has None for its standard streams.
    """
    return stream is not None and not stream.closed and stream.isatty()
