"""The public search estimator, and which way a search is run."""

from __future__ import annotations

__all__ = ["estimator"]
