"""One search, from its start to its end."""

from __future__ import annotations

__all__ = ["client", "cluster_end", "cost", "fit", "fitted", "joblib_fit", "settings"]
