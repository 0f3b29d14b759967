"""A joblib backend that hands scikit-learn's tasks to the engine."""

from __future__ import annotations

__all__ = ["backend", "pickling", "session"]
