"""BayesSearchCV without a barrier between its batches."""

from __future__ import annotations

__all__ = ["strategy"]
