"""A fitted search, and the warning if it covers only a part of its candidates."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

from dask_hpsearch.exceptions import SearchStoppedWarning
from dask_hpsearch.execution.callers import user_stacklevel

_BY_SCORE = ("stop_score", "patience")


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted search.

    Attributes
    ----------
    search : object
        Of the user's own class.
    stopped : str or None
        "max_time", "max_cost", "stop_score", "patience" or "interrupted" if it covers only
        a part of the candidates.
    url : str or None
        URL of its run, if it has a journal.
    """

    search: Any
    stopped: str | None = None
    url: str | None = None


def warn_stopped(stopped: str, covers: str, hint: str) -> None:
    """Warn, at the user's line, that a search covers only a part.

    An end by a score is what the user has asked for: no warning.

    Parameters
    ----------
    stopped : str
        Why.
    covers : str
        The candidates that its results cover, in words.
    hint : str
        How to resume the search; "" if that is not possible.
    """
    if stopped in _BY_SCORE:
        return
    text = f"the search was stopped ({stopped}): its results cover the {covers}"
    text += f"; {hint}" if hint else ""
    warnings.warn(text, SearchStoppedWarning, stacklevel=user_stacklevel())
