"""One search, from its start to its end."""

from __future__ import annotations

__all__ = [
    "client",
    "cluster_end",
    "cost",
    "early_ends",
    "fit",
    "fitted",
    "joblib_fit",
    "reporting",
    "settings",
]
