"""Displays of a search, in scikit-learn's manner: ``Display.from_search(search)``.

matplotlib, the extra ``plots``, is imported when something is drawn.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dask_hpsearch.plots.contour import ContourDisplay
    from dask_hpsearch.plots.parallel_coordinates import ParallelCoordinatesDisplay
    from dask_hpsearch.plots.parameter_importance import ParameterImportanceDisplay
    from dask_hpsearch.plots.parameter_slice import ParameterSliceDisplay
    from dask_hpsearch.plots.search_history import SearchHistoryDisplay
    from dask_hpsearch.plots.split_scores import SplitScoresDisplay
    from dask_hpsearch.plots.timeline import TimelineDisplay

__all__ = [
    "ContourDisplay",
    "ParallelCoordinatesDisplay",
    "ParameterImportanceDisplay",
    "ParameterSliceDisplay",
    "SearchHistoryDisplay",
    "SplitScoresDisplay",
    "TimelineDisplay",
]

_EXPORTS = {
    "ContourDisplay": "dask_hpsearch.plots.contour",
    "ParallelCoordinatesDisplay": "dask_hpsearch.plots.parallel_coordinates",
    "ParameterImportanceDisplay": "dask_hpsearch.plots.parameter_importance",
    "ParameterSliceDisplay": "dask_hpsearch.plots.parameter_slice",
    "SearchHistoryDisplay": "dask_hpsearch.plots.search_history",
    "SplitScoresDisplay": "dask_hpsearch.plots.split_scores",
    "TimelineDisplay": "dask_hpsearch.plots.timeline",
}


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
