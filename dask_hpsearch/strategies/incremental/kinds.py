"""Which searches are dask-ml's that train models by ``partial_fit``."""

from __future__ import annotations

from typing import Any

_BASE = "BaseIncrementalSearchCV"
_HYPERBAND = "HyperbandSearchCV"


def is_incremental(search: Any) -> bool:
    """Whether a search is one of dask-ml's that train models by ``partial_fit``.

    That are IncrementalSearchCV, InverseDecaySearchCV, SuccessiveHalvingSearchCV,
    HyperbandSearchCV and subclasses of them.
    """
    return _is_kind(search, _BASE)


def is_hyperband(search: Any) -> bool:
    """Whether a search is a HyperbandSearchCV, which has several brackets."""
    return _is_kind(search, _HYPERBAND)


def _is_kind(search: Any, name: str) -> bool:
    return any(
        base.__module__.startswith("dask_ml.") and base.__name__ == name
        for base in type(search).__mro__
    )
