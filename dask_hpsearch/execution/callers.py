"""Finds the line of the user's code that a warning should point at."""

from __future__ import annotations

import sys
from pathlib import Path

import joblib
import sklearn

# A Pipeline or cross_validate may fit a search: their lines are skipped too.
_NOT_THE_USERS = tuple(
    f"{folder}/"
    for folder in (
        Path(__file__).parents[1],  # dask_hpsearch
        Path(sklearn.__file__).parent,
        Path(joblib.__file__).parent,
    )
)


def user_stacklevel() -> int:
    """Return the ``stacklevel`` for the caller's warning to point at the user's line.

    ``warnings.warn`` can skip files by itself from Python 3.12 on.
    """
    frame, level = sys._getframe(1), 1  # noqa: SLF001 (the documented way to walk the stack)
    while frame.f_back is not None:
        if not frame.f_code.co_filename.startswith(_NOT_THE_USERS):
            return level
        frame, level = frame.f_back, level + 1
    return level
