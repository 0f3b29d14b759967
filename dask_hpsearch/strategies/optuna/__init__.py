"""Optuna's OptunaSearchCV, and its samplers for other searches."""

from __future__ import annotations

__all__ = ["asker", "samplers", "search", "strategy"]
